//! The name of one request inside the runtime, on the worker socket and in the slot table.

use std::fmt;

const INDEX_BITS: u32 = 20;
const INDEX: u64 = (1 << INDEX_BITS) - 1;

/// A request that was submitted: a number that is never used again, with its place in the table of requests.
///
/// `sequence << 20 | index`; the sequence starts at 1 and has 40 bits, so that a ticket fits the slot table's 61 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

// === impl Ticket ===

impl Ticket {
    /// Requests that can be known at the same time.
    pub(crate) const MAX_LIVE: usize = 1 << INDEX_BITS;

    pub(crate) fn new(sequence: u64, index: usize) -> Self {
        Self(sequence << INDEX_BITS | (index as u64 & INDEX))
    }

    /// The ticket as it travels; never 0.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The ticket that travelled as this number. It may be one that never was.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0 & INDEX).expect("20 bits fit")
    }

    /// Earlier submitted is smaller.
    pub(crate) fn sequence(self) -> u64 {
        self.0 >> INDEX_BITS
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({}@{})", self.sequence(), self.index())
    }
}
