//! gRPC's length-prefixed messages, counted without being kept.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before each message: a compression flag and a big-endian length.
pub(crate) const PREFIX: usize = 5;

/// The tag of field 1, length-delimited: `ModelStreamInferResponse.error_message`, which comes
/// first on the wire and is left out when it is empty.
const ERROR_MESSAGE_TAG: u8 = 0x0a;

/// Puts gRPC's prefix before `message`.
///
/// # Errors
/// The message's length if it does not fit the prefix's 32 bits.
pub(crate) fn frame(message: &[u8]) -> Result<Bytes, usize> {
    let length = u32::try_from(message.len()).map_err(|_| message.len())?;
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    Ok(framed.freeze())
}

/// Counts the messages in a body that arrives in pieces cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    prefix_len: usize,
    /// Bytes of the current message still to come.
    left: usize,
    at_first_byte: bool,
    /// Messages that began with field 1, which in a stream's answer is an error.
    pub(crate) errors: u64,
}

impl Messages {
    /// Takes the next piece and returns how many messages it completed.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> u64 {
        let mut completed = 0;
        while !piece.is_empty() {
            piece = if self.prefix_len < PREFIX { self.take_prefix(piece) } else { self.take_message(piece) };
            if self.prefix_len == PREFIX && self.left == 0 {
                self.prefix_len = 0;
                completed += 1;
            }
        }
        completed
    }

    /// Whether the body may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.prefix_len == 0
    }

    fn take_prefix<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let taken = piece.len().min(PREFIX - self.prefix_len);
        self.prefix[self.prefix_len..self.prefix_len + taken].copy_from_slice(&piece[..taken]);
        self.prefix_len += taken;
        if self.prefix_len == PREFIX {
            let [_, length @ ..] = self.prefix;
            self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            self.at_first_byte = true;
        }
        &piece[taken..]
    }

    fn take_message<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.at_first_byte {
            self.at_first_byte = false;
            self.errors += u64::from(piece[0] == ERROR_MESSAGE_TAG);
        }
        let taken = piece.len().min(self.left);
        self.left -= taken;
        &piece[taken..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        let messages: [&[u8]; 4] = [&[0x12, 1, 7], &[], &[0x0a, 1, b'!'], &[0x12; 300]];
        messages.iter().flat_map(|message| frame(message).unwrap()).collect()
    }

    #[test]
    fn messages_are_counted_wherever_the_body_is_cut() {
        let body = body();
        for cut in 0..=body.len() {
            let mut messages = Messages::default();
            let count = messages.feed(&body[..cut]) + messages.feed(&body[cut..]);
            assert_eq!((count, messages.errors), (4, 1), "cut at {cut}");
            assert!(messages.is_between_messages());
        }
    }

    #[test]
    fn a_body_that_arrives_byte_by_byte_counts_the_same() {
        let mut messages = Messages::default();
        let count: u64 = body().chunks(1).map(|byte| messages.feed(byte)).sum();
        assert_eq!((count, messages.errors), (4, 1));
    }

    #[test]
    fn a_body_cut_off_inside_a_message_is_noticed() {
        let mut messages = Messages::default();
        assert_eq!(messages.feed(&body()[..4]), 0);
        assert!(!messages.is_between_messages());
    }
}
