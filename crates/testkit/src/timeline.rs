//! Simulated time: events in the order of their instants, and of their planning where those are equal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Planned events.
#[derive(Debug)]
pub struct Timeline<E> {
    now: Instant,
    planned: BTreeMap<(Instant, u64), E>,
    count: u64,
}

// === impl Timeline ===

impl<E> Timeline<E> {
    /// Starts at some instant; only differences to it mean anything.
    pub fn new() -> Self {
        Self { now: Instant::now(), planned: BTreeMap::new(), count: 0 }
    }

    /// The simulated instant.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Plans an event.
    pub fn plan(&mut self, after: Duration, event: E) {
        self.plan_at(self.now + after, event);
    }

    /// Plans an event at an instant; one that is over is now.
    pub fn plan_at(&mut self, at: Instant, event: E) {
        self.count += 1;
        self.planned.insert((at.max(self.now), self.count), event);
    }

    /// Goes on to the next event.
    pub fn next_event(&mut self) -> Option<E> {
        let ((at, _), event) = self.planned.pop_first()?;
        self.now = at;
        Some(event)
    }
}

impl<E> Default for Timeline<E> {
    fn default() -> Self {
        Self::new()
    }
}
