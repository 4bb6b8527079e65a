//! Everything that is to happen at an instant, soonest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::sequence::Handle;
use crate::{GroupId, Ticket, WorkerId};

/// What an instant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The request's caller stops waiting.
    Deadline(Ticket),
    /// The request's handler should have stopped by now.
    Overrun(Ticket),
    /// A batch need not wait for more requests.
    Batch(GroupId),
    /// What waits in this worker's socket should have begun by now.
    Stall(GroupId, WorkerId),
    /// A sequence may have been idle for too long.
    Idle(Handle),
}

/// A heap that forgets late: what is no longer wanted stays until it is due or swept out.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

/// Entries of ended requests that are kept before they are swept out.
const SLACK: usize = 1024;

// === impl Timers ===

impl Timers {
    pub(crate) fn add(&mut self, at: Instant, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// The soonest instant; what it was for may have passed.
    pub(crate) fn soonest(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Something that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.soonest()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }

    /// Sweeps out the deadlines of ended requests once they outnumber what is alive.
    pub(crate) fn sweep(&mut self, live: usize, is_live: impl Fn(Ticket) -> bool) {
        if self.heap.len() > 2 * live + SLACK {
            self.heap.retain(|Reverse((_, timer))| match timer {
                Timer::Deadline(ticket) | Timer::Overrun(ticket) => is_live(*ticket),
                Timer::Batch(_) | Timer::Stall(..) | Timer::Idle(_) => true,
            });
        }
    }
}
