//! A replica that this server hears itself, and what of it is in the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_cluster::Heartbeat;

use super::{Action, Id, LeaseId};
use crate::store::entry::Entry;

/// What is to be written about it, and what was.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
pub(super) struct Own {
    entry: Entry,
    heard_at: Instant,
    written: Option<Arc<Entry>>,
    in_flight: Option<Arc<Entry>>,
    /// Others know less than what is known here.
    dirty: bool,
    /// What is under way may have been undone already.
    undone: bool,
    lease: Option<LeaseId>,
    kept_at: Instant,
    /// It was heard since the lease was kept alive last.
    fresh: bool,
    next_write: Instant,
    /// It stands in the queue of those that wait to be written.
    pub(super) waits: bool,
}

// === impl Own ===

impl Own {
    pub(super) fn new(entry: Entry, now: Instant) -> Self {
        Self {
            entry,
            heard_at: now,
            written: None,
            in_flight: None,
            dirty: true,
            undone: false,
            lease: None,
            kept_at: now,
            fresh: true,
            next_write: now,
            waits: false,
        }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// It announced itself anew, or goes.
    pub(super) fn heard(&mut self, entry: Entry, now: Instant) {
        if entry.left() {
            self.next_write = now;
        }
        (self.entry, self.heard_at, self.fresh, self.dirty) = (entry, now, true, true);
    }

    /// It is there. True if others are to be told more than that.
    pub(super) fn heard_beat(&mut self, beat: &Heartbeat, now: Instant) -> bool {
        (self.heard_at, self.fresh) = (now, true);
        if let Some(newer) = self.entry.with_beat(beat) {
            let told = self.in_flight.as_ref().or(self.written.as_ref());
            self.dirty |= told.is_none_or(|told| newer.says_more_than(told));
            self.entry = newer;
        }
        self.dirty
    }

    /// Whether it was not heard for this time.
    pub(super) fn is_silent(&self, now: Instant, time: Duration) -> bool {
        self.heard_at + time <= now
    }

    /// Whether it may be written now; what is under way comes first.
    pub(super) fn is_early(&self, now: Instant) -> bool {
        self.in_flight.is_none() && now < self.next_write
    }

    /// Begins to write what others do not know, if there is something. The next one is not begun before `next`.
    pub(super) fn write(&mut self, id: &Id, next: Instant) -> Option<Action> {
        if !self.dirty || self.in_flight.is_some() {
            return None;
        }
        let entry = Arc::new(self.entry.clone());
        (self.dirty, self.next_write, self.in_flight) = (false, next, Some(Arc::clone(&entry)));
        let (id, lease) = (Arc::clone(id), self.lease);
        Some(if entry.left() { Action::Remove { id, entry, lease } } else { Action::Write { id, entry, lease } })
    }

    /// It was written. True if there is more to write.
    pub(super) fn written(&mut self, lease: LeaseId, now: Instant) -> bool {
        let Some(written) = self.in_flight.take() else { return self.dirty };
        // A write does not make its lease last longer.
        if self.lease.replace(lease) != Some(lease) {
            self.kept_at = now;
        }
        self.dirty = self.entry.says_more_than(&written);
        self.written = Some(written).filter(|_| !std::mem::take(&mut self.undone));
        self.dirty
    }

    /// It was not written, for want of its lease.
    pub(super) fn expired(&mut self) -> bool {
        (self.lease, self.in_flight, self.dirty) = (None, None, true);
        true
    }

    /// It was not written, and would not be if it were tried again.
    pub(super) fn refused(&mut self) -> bool {
        (self.in_flight, self.dirty) = (None, false);
        false
    }

    /// It was taken away. True if it has announced itself since.
    pub(super) fn removed(&mut self) -> bool {
        (self.lease, self.in_flight, self.written) = (None, None, None);
        self.dirty = !self.entry.left();
        self.dirty
    }

    /// Whether it went, and everybody knows.
    pub(super) fn is_over(&self) -> bool {
        self.entry.left() && self.in_flight.is_none() && !self.dirty
    }

    /// What was under way is not known to have happened. True if there is something to write.
    pub(super) fn interrupted(&mut self) -> bool {
        self.dirty |= self.in_flight.take().is_some();
        self.dirty
    }

    /// Its key is gone. It is written again when the replica is heard again: who is not heard here any more, others
    /// may hear, who know more.
    pub(super) fn vanished(&mut self) {
        self.lease = None;
        self.overwritten();
    }

    /// Somebody who knows less wrote over it. It is written again when the replica is heard again.
    pub(super) fn overwritten(&mut self) {
        (self.written, self.undone) = (None, self.in_flight.is_some());
    }

    /// The same, if its lease is among those that are gone.
    pub(super) fn lapsed(&mut self, gone: &[LeaseId]) {
        if self.lease.is_some_and(|lease| gone.contains(&lease)) {
            self.vanished();
        }
    }

    /// Its lease, if it is time to keep it alive, and the replica was heard since the last time.
    pub(super) fn keep(&mut self, now: Instant, every: Duration) -> Option<LeaseId> {
        let lease = self.lease.filter(|_| self.fresh && self.kept_at + every <= now)?;
        (self.fresh, self.kept_at) = (false, now);
        Some(lease)
    }

    /// Whether this says no other thing than what was written here last.
    pub(super) fn wrote(&self, entry: &Entry) -> bool {
        self.written.as_ref().is_some_and(|written| !entry.says_more_than(written))
    }
}
