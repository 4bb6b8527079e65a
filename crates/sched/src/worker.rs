//! What the dispatcher knows of one worker: its credits, and what is with it.

use std::time::Duration;

use crate::Ticket;

/// A worker, as the shell numbers them. A number belongs to one process and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// Work that may wait in a busy worker's socket, so that it never idles for want of a round trip.
const PREFETCH: Duration = Duration::from_micros(500);
/// Requests beyond its credits that a worker may hold.
pub(crate) const MAX_PREFETCH: u32 = 128;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    /// Requests that it runs at the same time.
    credits: u32,
    /// Sent and not yet answered, in the order of sending.
    held: Vec<Held>,
    /// Sent and not yet answered, by handler.
    by_handler: Vec<u32>,
    /// Expected time of everything it holds.
    backlog: Duration,
    pub(crate) draining: bool,
    /// Slots that were used before and are free again.
    free_slots: Vec<u32>,
    /// The lowest slot that was never used.
    fresh_slot: u32,
}

/// A request that is with a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) ticket: Ticket,
    /// Its place in the worker's slot table.
    pub(crate) slot: u32,
    handler: usize,
    expected: Duration,
}

// === impl Worker ===

impl Worker {
    pub(crate) fn new(id: WorkerId, credits: u32, handlers: usize) -> Self {
        let by_handler = vec![0; handlers];
        Self {
            id,
            credits,
            held: Vec::new(),
            by_handler,
            backlog: Duration::ZERO,
            draining: false,
            free_slots: Vec::new(),
            fresh_slot: 0,
        }
    }

    /// Whether a request of this handler would run at once.
    pub(crate) fn has_room(&self, handler: usize, concurrency: u32) -> bool {
        !self.draining && self.in_flight() < self.credits && self.by_handler[handler] < concurrency
    }

    /// Whether a request that is expected to take so long may wait in the worker's socket. Only where the time is known
    /// to be short: a request must not be bound to a busy worker while another might become free.
    pub(crate) fn may_prefetch(&self, expected: Option<Duration>) -> bool {
        let fits = |expected: Duration| self.backlog + expected <= PREFETCH;
        !self.draining && self.in_flight() < self.credits + MAX_PREFETCH && expected.is_some_and(fits)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn backlog(&self) -> Duration {
        self.backlog
    }

    /// The request is with the worker from now on, in the slot that is returned.
    pub(crate) fn take(&mut self, ticket: Ticket, handler: usize, expected: Duration) -> u32 {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.fresh_slot += 1;
            self.fresh_slot - 1
        });
        self.held.push(Held { ticket, slot, handler, expected });
        self.by_handler[handler] += 1;
        self.backlog += expected;
        slot
    }

    /// The worker has answered for this request: its slot, or `None` if it never had it.
    pub(crate) fn give_back(&mut self, ticket: Ticket) -> Option<u32> {
        let place = self.held.iter().position(|held| held.ticket == ticket)?;
        let held = self.held.remove(place);
        self.by_handler[held.handler] -= 1;
        self.backlog = self.backlog.saturating_sub(held.expected);
        self.free_slots.push(held.slot);
        Some(held.slot)
    }

    pub(crate) fn slot_of(&self, ticket: Ticket) -> Option<u32> {
        self.held.iter().find(|held| held.ticket == ticket).map(|held| held.slot)
    }

    pub(crate) fn held(&self) -> impl ExactSizeIterator<Item = Held> + DoubleEndedIterator {
        self.held.iter().copied()
    }
}
