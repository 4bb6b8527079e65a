//! JSON of any length, in pieces that are paid for before they are written.
//!
//! ```text
//! serde ─► last ─ full? ─► the next one is paid for ─► pieces … ─► client: each is given back once it is written
//! ```
//!
//! A run that grows is copied and, for a moment, there twice; pieces are neither, and what they take is known before.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyserve_core::Error;
use anyserve_server::BodyError;
use anyserve_server::parts::{Budget, Charge};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes of the first piece. Each has twice as many as the one before, up to the most.
const FIRST: usize = 1 << 10;
const MOST: usize = 256 << 10;

/// What is written, as the body that it becomes.
#[derive(Debug)]
pub(super) struct Paid {
    budget: Budget,
    pieces: VecDeque<Bytes>,
    last: Piece,
    /// Why nothing more can be written.
    refused: Option<Error>,
}

/// Bytes, and the memory that they take: given back with them, whoever has them last.
#[derive(Debug)]
struct Piece {
    data: Vec<u8>,
    max: usize,
    _charge: Charge,
}

// === impl Paid ===

impl Paid {
    /// Nothing yet.
    pub(super) fn new(budget: &Budget) -> Self {
        let last = Piece::of_nothing(budget);
        Self { budget: budget.clone(), pieces: VecDeque::new(), last, refused: None }
    }

    /// The next piece in the order in which they were written.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.cut();
        self.pieces.pop_front()
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// `OVERLOADED` where there is no memory for them.
    pub(super) fn put(&mut self, data: &[u8]) -> Result<(), Error> {
        let written = self.write_all(data).map_err(|error| Error::internal(error.to_string()));
        self.refused().map_or(written, Err)
    }

    /// Adds a few bytes that nothing is paid for, and that can be written in any case.
    pub(super) fn push(&mut self, few: Bytes) {
        self.cut();
        self.pieces.push_back(few);
    }

    /// Why a write failed, if there was no memory for it.
    pub(super) fn refused(&mut self) -> Option<Error> {
        self.refused.take()
    }

    /// What has been written of the last piece becomes a piece.
    fn cut(&mut self) {
        if !self.last.data.is_empty() {
            let last = std::mem::replace(&mut self.last, Piece::of_nothing(&self.budget));
            self.pieces.push_back(Bytes::from_owner(last));
        }
    }

    /// Begins the next piece, once it is paid for.
    fn extend(&mut self) -> Result<(), Error> {
        let max = (2 * self.last.max).clamp(FIRST, MOST);
        let mut charge = self.budget.charge();
        charge.grow(max)?;
        self.cut();
        self.last = Piece { data: Vec::with_capacity(max), max, _charge: charge };
        Ok(())
    }
}

impl Write for Paid {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.last.data.len() == self.last.max
            && let Err(error) = self.extend()
        {
            let why = io::Error::other(error.message.clone());
            self.refused = Some(error);
            return Err(why);
        }
        let count = data.len().min(self.last.max - self.last.data.len());
        self.last.data.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body for Paid {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.get_mut().pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.last.data.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let len = self.last.data.len() + self.pieces.iter().map(Bytes::len).sum::<usize>();
        SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
    }
}

// === impl Piece ===

impl Piece {
    fn of_nothing(budget: &Budget) -> Self {
        Self { data: Vec::new(), max: 0, _charge: budget.charge() }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::Code;
    use proptest::prelude::*;

    fn popped(paid: &mut Paid) -> Vec<u8> {
        std::iter::from_fn(|| paid.pop()).flatten().collect()
    }

    #[test]
    fn what_is_written_is_paid_for_piece_by_piece_and_given_back_so() {
        let budget = Budget::of(3 * FIRST);
        let mut paid = Paid::new(&budget);
        paid.write_all(&[1; 3 * FIRST]).unwrap();
        assert!(budget.charge().grow(1).is_err());
        assert_eq!(paid.size_hint().exact(), Some(3 * FIRST as u64));
        let first = paid.pop().unwrap();
        assert_eq!(first.len(), FIRST);
        assert!(budget.charge().grow(1).is_err());
        drop(first);
        assert!(budget.charge().grow(FIRST).is_ok() && budget.charge().grow(FIRST + 1).is_err());
        assert_eq!(popped(&mut paid).len(), 2 * FIRST);
        assert!(budget.charge().grow(3 * FIRST).is_ok());
    }

    #[test]
    fn beyond_the_budget_nothing_is_written_and_all_comes_back_with_it() {
        let budget = Budget::of(3 * FIRST);
        let mut paid = Paid::new(&budget);
        assert!(paid.write_all(&[1; 3 * FIRST + 1]).is_err());
        let error = paid.refused().unwrap();
        assert_eq!((error.code, error.retry_after.is_some()), (Code::Overloaded, true));
        drop(paid);
        assert!(budget.charge().grow(3 * FIRST).is_ok());
    }

    #[test]
    fn no_piece_is_longer_than_the_most() {
        let mut paid = Paid::new(&Budget::of(1 << 30));
        paid.write_all(&vec![1; 5 * MOST]).unwrap();
        let lens: Vec<_> = std::iter::from_fn(|| paid.pop()).map(|piece| piece.len()).collect();
        assert_eq!((lens[0], lens[1], *lens.iter().max().unwrap()), (FIRST, 2 * FIRST, MOST));
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_was_written(
            written in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8),
        ) {
            let mut paid = Paid::new(&Budget::of(1 << 20));
            for part in &written {
                paid.write_all(part).unwrap();
            }
            prop_assert_eq!(popped(&mut paid), written.concat());
        }
    }
}
