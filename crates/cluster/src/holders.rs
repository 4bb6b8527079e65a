//! Who has a capability, by how fit they are to be sent a request for it.

use std::time::Duration;

use crate::index::wide;
use crate::list::List;

/// How fit a replica is to be sent a request for one of its capabilities. The first ones are taken first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// A worker can take it.
    Ready,
    /// A worker may be started for it.
    Cold,
    /// Its queue is full, as far as that is known.
    Saturated,
    /// It could not be reached lately. It is tried when there is nobody else.
    Ejected,
}

/// A replica that a request may go to. The numbers are those of its last message and of what was sent to it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Of its id: the same in every process, and at every start of the replica.
    pub hash: u64,
    /// Requests that wait or run.
    pub pending: u32,
    /// Requests that run at once; not 0.
    pub slots: u32,
    /// How long one more request would wait.
    pub wait: Duration,
    /// How much longer the next one would wait after it.
    pub step: Duration,
    /// The replica's place in the registry.
    pub(crate) slot: u32,
    /// The place among its offers.
    pub(crate) offer: u32,
}

/// Where a candidate is in the lists of its capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) standing: Standing,
    at: usize,
}

/// The candidates of every capability, by its number.
#[derive(Debug, Default)]
pub(crate) struct Holders(Vec<Lists>);

#[derive(Clone, Debug, Default)]
struct Lists {
    by_standing: [List; 4],
    /// How often somebody was chosen.
    turn: u64,
}

// === impl Candidate ===

impl Candidate {
    /// Whether another request would run at once.
    pub fn has_room(&self) -> bool {
        self.pending < self.slots
    }

    /// A request was sent to it.
    pub(crate) fn sent(&mut self) {
        self.pending = self.pending.saturating_add(1);
        self.wait = self.wait.saturating_add(self.step);
    }

    /// A request that was sent to it is over.
    pub(crate) fn finished(&mut self) {
        self.pending = self.pending.saturating_sub(1);
        self.wait = self.wait.saturating_sub(self.step);
    }
}

// === impl Holders ===

impl Holders {
    /// Puts a candidate on a list. Its place stays so until another one goes from the list.
    pub(crate) fn add(&mut self, number: u32, standing: Standing, candidate: Candidate) -> Place {
        if self.0.len() <= wide(number) {
            self.0.resize(wide(number) + 1, Lists::default());
        }
        let list = &mut self.0[wide(number)].by_standing[standing as usize];
        Place { standing, at: list.push(candidate) }
    }

    /// Takes one from its list. The one that has its place now, if any, is told as slot and offer.
    pub(crate) fn remove(&mut self, number: u32, place: Place) -> Option<(u32, u32)> {
        let list = &mut self.0[wide(number)].by_standing[place.standing as usize];
        list.remove(place.at).map(|moved| (moved.slot, moved.offer))
    }

    /// Changes what is told of one.
    pub(crate) fn change(&mut self, number: u32, place: Place, change: impl FnOnce(&mut Candidate)) {
        self.0[wide(number)].by_standing[place.standing as usize].change(place.at, change);
    }

    /// Those of a capability with a standing.
    pub(crate) fn list(&self, number: u32, standing: Standing) -> Option<&List> {
        let list = &self.0.get(wide(number))?.by_standing[standing as usize];
        (!list.candidates().is_empty()).then_some(list)
    }

    /// Counts a choice among the candidates of a capability. The count before it is returned.
    pub(crate) fn take_turn(&mut self, number: u32) -> u64 {
        let Some(lists) = self.0.get_mut(wide(number)) else { return 0 };
        lists.turn = lists.turn.wrapping_add(1);
        lists.turn
    }

    /// Nobody has it any more; the number may get another meaning.
    pub(crate) fn forget(&mut self, number: u32) {
        if let Some(lists) = self.0.get_mut(wide(number)) {
            *lists = Lists::default();
        }
    }
}
