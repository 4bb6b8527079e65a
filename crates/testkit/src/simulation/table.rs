//! A worker's slot table: the one word of each request that both processes may change.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyserve_sched::Ticket;

/// How far a request has come at its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Offered,
    Started,
    Recalled,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    ticket: Ticket,
    phase: Phase,
}

/// Behind a `RefCell`, since the dispatcher recalls through a shared reference, as it does in shared memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    words: RefCell<BTreeMap<u32, Word>>,
}

// === impl Table ===

impl Table {
    /// Runtime: the slot is this request's from now on. False if it was not free.
    pub(super) fn offer(&self, slot: u32, ticket: Ticket) -> bool {
        self.words.borrow_mut().insert(slot, Word { ticket, phase: Phase::Offered }).is_none()
    }

    /// Worker: claims the request before its handler runs. False if it was taken back.
    pub(super) fn start(&self, slot: u32, ticket: Ticket) -> bool {
        self.leave_offered(slot, ticket, Phase::Started)
    }

    /// Runtime: takes the request back. False if its handler has started.
    pub(super) fn recall(&self, slot: u32, ticket: Ticket) -> bool {
        self.leave_offered(slot, ticket, Phase::Recalled)
    }

    /// Readable after the worker's death.
    pub(super) fn is(&self, slot: u32, ticket: Ticket, phase: Phase) -> bool {
        self.words.borrow().get(&slot).is_some_and(|word| word.ticket == ticket && word.phase == phase)
    }

    /// Runtime: the slot is free again.
    pub(super) fn release(&self, slot: u32) {
        self.words.borrow_mut().remove(&slot);
    }

    fn leave_offered(&self, slot: u32, ticket: Ticket, phase: Phase) -> bool {
        let offered = self.is(slot, ticket, Phase::Offered);
        if offered {
            self.words.borrow_mut().insert(slot, Word { ticket, phase });
        }
        offered
    }
}
