//! How many calls of one async handler run at the same time.

use std::collections::VecDeque;

use super::inbox::Work;

/// The places of one handler, and who waits for one. Bounded, because all requests of a worker are.
#[derive(Default)]
pub(super) struct Lane {
    running: u32,
    waiting: VecDeque<Work>,
}

// === impl Lane ===

impl Lane {
    /// Gives the work back if it may run now; otherwise it waits.
    pub(super) fn admit(&mut self, work: Work, limit: u32) -> Option<Work> {
        if self.running < limit {
            self.running += 1;
            return Some(work);
        }
        self.waiting.push_back(work);
        None
    }

    /// One that ran has ended: what takes its place, if anything waits.
    pub(super) fn leave(&mut self) -> Option<Work> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running -= 1;
        }
        next
    }
}
