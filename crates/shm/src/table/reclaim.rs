//! How blocks become free again: leases that end, evictions, readers and writers that are gone.

use std::time::Instant;

use super::{Change, Pins, Table, taken};
use crate::entry::{Entry, State};
use crate::{Owner, Writer};

// === impl Table ===

impl Table {
    /// A worker is dead: what it was writing is free.
    pub fn writer_gone(&mut self, owner: Owner) {
        let writer = Writer::Worker(owner);
        let places = 0..u32::try_from(self.entries.len()).expect("there are at most max_entries");
        let theirs: Vec<_> =
            places.filter(|index| matches!(self.entry(*index).state, State::Granted(own) if own == writer)).collect();
        for index in theirs {
            self.vacate(index);
        }
    }

    /// Withdraws what has lived its time. Returns when the next one has.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some(&(at, index)) = self.expiries.first() {
            if at > now {
                return Some(at);
            }
            self.withdraw(index);
        }
        None
    }

    /// Frees what was withdrawn and nobody reads any more, looking at `most` blocks. Returns how many are left.
    pub fn sweep(&mut self, pins: &impl Pins, most: usize) -> usize {
        for _ in 0..most.min(self.withdrawn.len()) {
            let Some(index) = self.withdrawn.pop_front() else { break };
            if self.entry(index).holds == 0 && !pins.is_pinned(index) {
                self.vacate(index);
            } else {
                self.withdrawn.push_back(index);
            }
        }
        self.withdrawn.len()
    }

    /// Withdraws the object that may be evicted, is not read, and was not used for the longest time. False if there is
    /// none.
    pub fn evict(&mut self, pins: &impl Pins) -> bool {
        let mut busy = Vec::new();
        // Uses are what workers say. One that says another at every look gets no more looks than there are objects.
        let mut looks = self.evictable.len();
        let found = loop {
            let Some((queued, index)) = self.evictable.pop_first() else { break None };
            let entry = self.entry(index);
            let used = pins.last_used(index).map_or(entry.used, |used| used.max(entry.used));
            if entry.holds > 0 || pins.is_pinned(index) {
                busy.push((used, index));
            } else if used > queued && looks > 0 {
                looks -= 1;
                // It was used since it was queued: its turn is later.
                self.requeue(used, index);
            } else {
                break Some(index);
            }
        };
        for (used, index) in busy {
            self.requeue(used, index);
        }
        let Some(index) = found else { return false };
        self.withdraw(index);
        self.evicted += 1;
        true
    }

    pub(super) fn requeue(&mut self, used: u32, index: u32) {
        if let State::Object(object) = &mut self.entry_mut(index).state {
            object.queued = Some(used);
            self.evictable.insert((used, index));
        }
    }

    /// A readable block is found no more.
    pub(super) fn withdraw(&mut self, index: u32) {
        match std::mem::replace(&mut self.entry_mut(index).state, State::Withdrawn) {
            State::Object(object) => {
                self.objects -= 1;
                self.expiries.remove(&(object.expires, index));
                object.queued.into_iter().for_each(|queued| _ = self.evictable.remove(&(queued, index)));
                if let Some(key) = object.lease.key {
                    self.keys.remove(&key);
                }
            }
            State::Tensor => self.tensors -= 1,
            other => {
                self.entry_mut(index).state = other;
                return;
            }
        }
        self.withdrawn.push_back(index);
        self.changes.push(Change::Withdraw(index));
    }

    /// A block that nobody writes or reads any more is free.
    pub(super) fn vacate(&mut self, index: u32) {
        self.forget_ahead(index);
        let entry = self.entry_mut(index);
        entry.state = State::Free;
        let Entry { start, len, ingress, .. } = *entry;
        self.by_start.remove(&start);
        self.allocator.release(start, len);
        self.ingress -= if ingress { taken(len) } else { 0 };
        tracing::trace!(index, "freed");
        self.vacant.push(index);
    }
}
