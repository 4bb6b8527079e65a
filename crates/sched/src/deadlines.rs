//! The deadlines of live requests, soonest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::Ticket;

/// A heap that forgets late: a request that ended before its deadline stays until it is popped or swept out.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Ticket)>>,
}

/// Entries of ended requests that are kept before they are swept out.
const SLACK: usize = 1024;

// === impl Deadlines ===

impl Deadlines {
    pub(crate) fn add(&mut self, deadline: Instant, ticket: Ticket) {
        self.heap.push(Reverse((deadline, ticket)));
    }

    /// The soonest deadline; it may be of a request that has ended.
    pub(crate) fn soonest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// A request whose deadline has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Ticket> {
        if self.soonest()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, ticket))| ticket)
    }

    /// Sweeps out the entries of ended requests once they outnumber the live ones.
    pub(crate) fn sweep(&mut self, live: usize, is_live: impl Fn(Ticket) -> bool) {
        if self.heap.len() > 2 * live + SLACK {
            self.heap.retain(|Reverse((_, ticket))| is_live(*ticket));
        }
    }
}
