//! Bytes on their way to a worker: frames in, as few system calls as can be out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use anyserve_wire::Frame;
use bytes::{Buf, Bytes, BytesMut};

/// A body from this size on is sent from where it lies; a smaller one is copied next to its head.
const OWN_SEGMENT: usize = 8 << 10;
/// Segments given to one system call.
const MAX_SLICES: usize = 64;
/// Answers that may wait to be written. Whoever asks waits for its answer, so there are as many as handlers at work.
const MAX_ANSWERS: usize = 4096;

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    segments: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes of the segments.
    queued: u64,
    /// Bytes that were written since the start.
    written: u64,
    /// Where those answers end that are not written yet, counted as `written` is.
    answers: VecDeque<u64>,
    /// Where those results of calls end that are not written yet, as with answers; the last one of each call.
    results: VecDeque<u64>,
}

/// A worker asks and asks, and does not read what it is answered.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_ANSWERS} answers are waiting to be read")]
pub(crate) struct Unread;

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
            self.push_segment(body.clone());
        }
    }

    /// Appends the answer to something that the worker has asked.
    ///
    /// # Errors
    /// It has not read those before; nothing is appended then.
    pub(crate) fn push_answer(&mut self, answer: &Frame) -> Result<(), Unread> {
        while self.answers.front().is_some_and(|end| *end <= self.written) {
            self.answers.pop_front();
        }
        if self.answers.len() >= MAX_ANSWERS {
            return Err(Unread);
        }
        answer.encode_head(&mut self.tail);
        self.answers.push_back(self.written + self.queued + self.tail.len() as u64);
        Ok(())
    }

    /// What was appended last ends a call.
    pub(crate) fn note_result(&mut self) {
        self.results.push_back(self.written + self.queued + self.tail.len() as u64);
    }

    /// Calls whose last results are not written yet.
    pub(crate) fn unread_results(&mut self) -> usize {
        while self.results.front().is_some_and(|end| *end <= self.written) {
            self.results.pop_front();
        }
        self.results.len()
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
            let tail = self.tail.split().freeze();
            self.push_segment(tail);
        }
    }

    fn push_segment(&mut self, bytes: Bytes) {
        self.queued += bytes.len() as u64;
        self.segments.push_back(bytes);
    }

    fn advance(&mut self, mut written: usize) {
        self.written += written as u64;
        self.queued -= written as u64;
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
    use anyserve_wire::Kind;

    use super::*;

    #[test]
    fn so_many_answers_wait_to_be_read_and_no_more() {
        let (mut outbox, answer) = (Outbox::default(), Frame::bare(Kind::View, 1));
        let len = answer.to_bytes().len();
        outbox.push(&Bytes::from(vec![0; OWN_SEGMENT]));
        for _ in 0..MAX_ANSWERS {
            outbox.push_answer(&answer).unwrap();
        }
        assert!(outbox.push_answer(&answer).is_err());
        let mut take = |most: usize| {
            let mut left = most;
            let done = outbox.write_with(|slices| {
                let taken = left.min(slices.iter().map(|slice| slice.len()).sum());
                left -= taken;
                if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            });
            done.unwrap();
            outbox.push_answer(&answer).is_ok()
        };
        assert_eq!((take(OWN_SEGMENT + len - 1), take(1), take(len - 1), take(1)), (false, true, false, true));
        assert!(take(usize::MAX));
        assert_eq!((outbox.answers.len(), outbox.queued), (1, 0));
    }

    #[test]
    fn a_result_counts_as_unread_until_its_last_byte_is_written() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"abc");
        outbox.push(&Bytes::from(vec![0; OWN_SEGMENT]));
        outbox.note_result();
        outbox.tail().extend_from_slice(b"d");
        outbox.note_result();
        let mut write = |most: usize| {
            let mut left = most;
            let wrote = outbox.write_with(|slices| {
                let taken = left.min(slices.iter().map(|slice| slice.len()).sum());
                left -= taken;
                if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            });
            wrote.unwrap();
            outbox.unread_results()
        };
        assert_eq!((write(OWN_SEGMENT + 2), write(1), write(1)), (2, 1, 0));
    }

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
