//! A message in several runs of bytes, which is decoded as if it were in one.
//!
//! ```text
//! plain · tensor · plain · tensor · plain        what the client sent, byte for byte
//! heap    room     heap    room     heap
//! ```

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{DecodeError, Message};

/// The bytes of a message, where they lie.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Empty only if there is nothing.
    first: Bytes,
    later: VecDeque<Bytes>,
    /// Bytes in `later`.
    further: usize,
}

// === impl Pieces ===

impl Pieces {
    /// Adds bytes at the end.
    pub(super) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else if !piece.is_empty() {
            self.further += piece.len();
            self.later.push_back(piece);
        }
    }

    /// Decodes the message. A `bytes` field that is one piece, or part of one, stays where it lies.
    ///
    /// # Errors
    /// The same as for the same bytes in one run.
    pub(super) fn decode<M: Message + Default>(self) -> Result<M, DecodeError> {
        // The common message is one run, which prost reads without asking for the next one at every field.
        if self.later.is_empty() { M::decode(self.first) } else { M::decode(self) }
    }

    fn renew(&mut self) {
        if self.first.is_empty()
            && let Some(next) = self.later.pop_front()
        {
            self.further -= next.len();
            self.first = next;
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(first: Bytes) -> Self {
        Self { first, ..Self::default() }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.first.len() + self.further
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn advance(&mut self, mut count: usize) {
        while count > self.first.len() && !self.later.is_empty() {
            count -= self.first.len();
            self.first.clear();
            self.renew();
        }
        self.first.advance(count);
        self.renew();
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        if len <= self.first.len() {
            let taken = self.first.split_to(len);
            self.renew();
            return taken;
        }
        // A field over the edge of a piece: only a message that breaks its own lengths has one.
        let mut taken = BytesMut::with_capacity(len);
        taken.put(self.take(len));
        taken.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_proto::inference::ModelInferRequest;
    use proptest::prelude::*;

    fn split(bytes: &Bytes, cuts: &[usize]) -> Pieces {
        let (mut rest, mut pieces) = (bytes.clone(), Pieces::default());
        for cut in cuts {
            pieces.push(rest.split_to(cut % (rest.len() + 1)));
        }
        pieces.push(rest);
        pieces
    }

    #[test]
    fn a_field_that_is_a_piece_is_not_copied() {
        let tensor = Bytes::from(vec![7; 100]);
        let mut pieces = Pieces::from(Bytes::from_static(&[10, 1, b'm', 58, 100]));
        pieces.push(tensor.clone());
        pieces.push(Bytes::from_static(&[58, 0]));
        let message: ModelInferRequest = pieces.decode().unwrap();
        assert_eq!((&*message.model_name, &*message.raw_input_contents), ("m", &[tensor.clone(), Bytes::new()][..]));
        assert_eq!(message.raw_input_contents[0].as_ptr(), tensor.as_ptr());
    }

    proptest! {
        #[test]
        fn pieces_read_as_the_run_that_they_are(
            data in proptest::collection::vec(any::<u8>(), 0..100),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
            takes in proptest::collection::vec((any::<bool>(), 0..40_usize), 0..8),
        ) {
            let mut whole = Bytes::from(data);
            let mut pieces = split(&whole, &cuts);
            for (copies, len) in takes {
                let len = len.min(whole.len());
                if copies {
                    prop_assert_eq!(pieces.copy_to_bytes(len), whole.copy_to_bytes(len));
                } else {
                    pieces.advance(len);
                    whole.advance(len);
                }
                prop_assert_eq!(pieces.remaining(), whole.remaining());
                prop_assert_eq!(pieces.has_remaining(), !pieces.chunk().is_empty());
            }
            prop_assert_eq!(pieces.copy_to_bytes(whole.len()), whole);
        }

        #[test]
        fn any_bytes_decode_to_the_same_in_pieces(
            data in proptest::collection::vec(prop_oneof![any::<u8>(), 0..64_u8], 0..80),
            cuts in proptest::collection::vec(any::<usize>(), 0..8),
        ) {
            let whole = Bytes::from(data);
            let decoded: Result<ModelInferRequest, _> = split(&whole, &cuts).decode();
            prop_assert_eq!(decoded, ModelInferRequest::decode(whole));
        }
    }
}
