//! Bytes on their way to a worker: frames in, as few system calls as can be out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// A body from this size on is sent from where it lies; a smaller one is copied next to its head.
const OWN_SEGMENT: usize = 8 << 10;
/// Segments given to one system call.
const MAX_SLICES: usize = 64;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    segments: VecDeque<Bytes>,
    tail: BytesMut,
}

// === impl Outbox ===

impl Outbox {
    /// Where the next frame's head goes.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends bytes behind what was written last.
    pub(crate) fn push(&mut self, body: &Bytes) {
        if body.len() < OWN_SEGMENT {
            self.tail.extend_from_slice(body);
        } else {
            self.close_tail();
            self.segments.push_back(body.clone());
        }
    }

    /// Writes until everything is gone or `write` would block. True if everything is gone.
    pub(crate) fn write_with(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        self.close_tail();
        while !self.segments.is_empty() {
            let slices: Vec<_> = self.segments.iter().take(MAX_SLICES).map(|bytes| IoSlice::new(bytes)).collect();
            match write(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push_back(self.tail.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.segments.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_however_little_each_write_takes() {
        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![7; OWN_SEGMENT]);
        outbox.tail().extend_from_slice(b"head");
        outbox.push(&Bytes::from_static(b"small"));
        outbox.push(&large);
        outbox.tail().extend_from_slice(b"next");
        let mut sent = Vec::new();
        let done = outbox.write_with(|slices| {
            let take = slices[0].len().min(5);
            sent.extend_from_slice(&slices[0][..take]);
            Ok(take)
        });
        assert!(done.unwrap());
        assert_eq!(sent, [&b"headsmall"[..], &large, b"next"].concat());
    }

    #[test]
    fn a_full_socket_keeps_what_is_left_and_an_error_is_told() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"abcdef");
        let mut room = 2;
        let partial = outbox.write_with(|_| match std::mem::take(&mut room) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        });
        assert!(!partial.unwrap());
        let mut left = Vec::new();
        outbox
            .write_with(|slices| {
                Ok({
                    left.extend_from_slice(&slices[0]);
                    slices[0].len()
                })
            })
            .unwrap();
        assert_eq!(left, b"cdef");
        outbox.tail().extend_from_slice(b"x");
        assert!(outbox.write_with(|_| Ok(0)).is_err());
    }
}
