//! How many requests of one async handler run at the same time.

use std::collections::VecDeque;

use super::inbox::Incoming;

/// The places of one handler, and who waits for one. Bounded, because all requests of a worker are.
#[derive(Default)]
pub(super) struct Lane {
    running: u32,
    waiting: VecDeque<Box<Incoming>>,
}

// === impl Lane ===

impl Lane {
    /// Gives the request back if it may run now; otherwise it waits.
    pub(super) fn admit(&mut self, incoming: Box<Incoming>, limit: u32) -> Option<Box<Incoming>> {
        if self.running < limit {
            self.running += 1;
            return Some(incoming);
        }
        self.waiting.push_back(incoming);
        None
    }

    /// One that ran has ended: the request that takes its place, if one waits.
    pub(super) fn leave(&mut self) -> Option<Box<Incoming>> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running -= 1;
        }
        next
    }
}
