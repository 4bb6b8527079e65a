//! What this API server tells the store, and what it makes of what the others tell it. It decides; the shell acts.
//!
//! ```text
//!                  Connected            Listed             Watched, Written, KeptAlive, Ponged
//!  Down ──Connect─► Opening ──List────► Listing ──Watch──► Watching ◄──┐
//!   ▲  ▲                                   ▲                 │ │ └─────┘
//!   │  └─ due                              └──── Compacted ──┘ │
//!   └──────────────────────────── Broken ──────────────────────┘
//! ```
//!
//! A replica that this server hears itself is its **own**: it writes what it heard, and believes nobody else about it but
//! that a later start of it is there. Every other one in the store is **seen**: for as long as its key is there, its
//! lease goes on here. A key that goes is not believed at once: what is known ends with the lease here, so that a store
//! that forgets everything and remembers it a second later takes nobody away. While the store cannot be reached, what
//! was seen is held for a while; connections that fail say who is gone.
//!
//! Whatever broke, everything is read again: what was missed, and what a store that lost its data does not have. A store
//! that breaks whatever is begun is tried ever more rarely, and so is one that compacts whatever it has just listed.
//!
//! Everything is noted per replica, the newest only: a store that is slow gets less, and nobody waits for it.

mod own;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_cluster::Heartbeat;

use super::Said;
use super::entry::Entry;
use own::Own;

/// A replica's name.
pub(crate) type Id = Arc<str>;

/// A lease in the store.
pub(crate) type LeaseId = i64;

/// The numbers that a mirror goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MirrorConfig {
    /// Time after its last message for which a replica is believed to be there.
    pub(crate) lease: Duration,
    /// Time between two writes about one replica, and between two looks at everything.
    pub(crate) pace: Duration,
    /// Time after a break until the store is tried again the first time; it doubles.
    pub(crate) first_back_off: Duration,
    /// The longest such time.
    pub(crate) longest_back_off: Duration,
    /// Time for which what others said is held while the store is away.
    pub(crate) hold: Duration,
    /// Writes that are under way at the same time.
    pub(crate) max_writes: usize,
    /// Replicas that are taken from the store.
    pub(crate) max_seen: usize,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// There is a session.
    Connected,
    /// Everything in the store, at this revision.
    Listed { revision: i64, entries: Vec<(Id, Arc<Entry>)> },
    /// What has changed since.
    Watched(Vec<Change>),
    /// What has changed since is not there any more.
    Compacted,
    /// An entry was written, and has this lease.
    Written { id: Id, lease: LeaseId },
    /// It was not, because the lease that it was to have is gone.
    Expired { id: Id },
    /// It was not, and will not be: the store does not take it.
    Refused { id: Id },
    /// An entry was taken away.
    Removed { id: Id },
    /// Leases were kept alive, but for these.
    KeptAlive { gone: Vec<LeaseId> },
    /// The store is there.
    Ponged,
    /// Something failed: the session is over.
    Broken,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// It has this value.
    Put(Id, Arc<Entry>),
    /// It is gone, or nobody can read it.
    Gone(Id),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Open a session.
    Connect,
    /// End the session, and everything that is under way in it.
    Disconnect,
    /// Read everything.
    List,
    /// Read every change from this revision on.
    Watch { from: i64 },
    /// Ask whether the store is there.
    Ping,
    /// Write an entry, with this lease or a new one.
    Write { id: Id, entry: Arc<Entry>, lease: Option<LeaseId> },
    /// Write that a replica goes, and take its entry away.
    Remove { id: Id, entry: Arc<Entry>, lease: Option<LeaseId> },
    /// Keep leases alive.
    KeepAlive(Vec<LeaseId>),
    /// The registry takes over what another one heard.
    Adopt(Arc<Entry>),
    /// The lease of a replica begins anew in the registry, because its entry is there.
    Renew(Arc<Entry>),
    /// A replica said to another one that it goes.
    Leave { id: Id, epoch: u64 },
}

/// What became of something that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Others are to be told at once.
    ForNow,
    /// They are told when it is time, if it is news to them.
    ForLater,
    /// It cannot be told: what the replica announced is not known.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { until: Instant },
    Opening,
    Listing,
    Watching { since: Instant, pinged: bool, keeping: bool },
}

/// What one API server shares with the others.
#[derive(Debug)]
pub(crate) struct Mirror {
    config: MirrorConfig,
    link: Link,
    /// Since when the store is away.
    lost: Option<Instant>,
    failures: u32,
    /// When what was to be read was not there any more the last time.
    compacted: Option<Instant>,
    own: HashMap<Id, Own>,
    /// What is in the store, one's own too.
    seen: HashMap<Id, Arc<Entry>>,
    /// Own ones that wait to be written, each once.
    waiting: VecDeque<Id>,
    writing: usize,
    next_look: Instant,
}

// === impl Mirror ===

impl Mirror {
    pub(crate) fn new(config: MirrorConfig, now: Instant) -> Self {
        Self {
            config,
            link: Link::Down { until: now },
            lost: Some(now),
            failures: 0,
            compacted: None,
            own: HashMap::new(),
            seen: HashMap::new(),
            waiting: VecDeque::new(),
            writing: 0,
            next_look: now,
        }
    }

    /// Whether others see what is heard here.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.link, Link::Watching { .. })
    }

    /// Whether that has been so for a while: one that breaks as soon as it is there is as good as away.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        matches!(self.link, Link::Watching { since, .. } if since + self.config.longest_back_off <= now)
    }

    /// When there is something to do at the latest.
    pub(crate) fn due(&self) -> Instant {
        match self.link {
            Link::Down { until } => until.min(self.next_look),
            _ => self.next_look,
        }
    }

    /// A replica said something to this server.
    pub(crate) fn heard(&mut self, said: Said<'_>, now: Instant) -> Noted {
        match said {
            Said::Announced(announce) => self.note(Entry::new(announce.clone()), now),
            Said::Beat(beat) => self.heard_beat(beat, now),
            Said::Left { id, epoch } => self.heard_leave(id, epoch, now),
        }
    }

    /// What is to be done after an event. One that is late changes nothing.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match (self.link, event) {
            (_, Event::Broken) => self.broken(now),
            (Link::Opening, Event::Connected) => self.list(),
            (Link::Watching { .. }, Event::Compacted) => self.compacted(now),
            (Link::Listing, Event::Listed { revision, entries }) => {
                let mut actions = self.listed(entries);
                actions.push(self.watch(revision, now));
                actions
            }
            (Link::Watching { .. }, Event::Watched(changes)) => {
                changes.into_iter().filter_map(|change| self.changed(change)).collect()
            }
            (Link::Listing | Link::Watching { .. }, event) => {
                self.answered(event, now);
                Vec::new()
            }
            (link, event) => {
                tracing::debug!(?link, ?event, "an event of the store came late");
                Vec::new()
            }
        }
    }

    /// What is to be done by now.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Link::Down { until } = self.link
            && until <= now
        {
            self.link = Link::Opening;
            actions.push(Action::Connect);
        }
        if self.next_look <= now {
            self.next_look = now + self.config.pace;
            self.forget(now);
            actions.extend(self.renewals(now));
            actions.extend(self.asks(now));
        }
        actions.extend(self.writes(now));
        actions
    }

    fn heard_beat(&mut self, beat: &Heartbeat, now: Instant) -> Noted {
        let id = Id::from(beat.id.as_str());
        if let Some(own) = self.own.get_mut(&id) {
            if own.heard_beat(beat, now) {
                self.wait(id);
            }
            return Noted::ForLater;
        }
        // It announced itself to another server, and comes here since.
        match self.seen.get(&id).and_then(|seen| seen.with_beat(beat)) {
            Some(entry) => self.note(entry, now),
            None => Noted::Unknown,
        }
    }

    fn heard_leave(&mut self, id: &str, epoch: u64, now: Instant) -> Noted {
        let id = Id::from(id);
        let known = self.own.get(&id).map(|own| own.entry().clone());
        let known = known.or_else(|| self.seen.get(&id).map(|seen| Entry::clone(seen)));
        match known.filter(|entry| entry.epoch() <= epoch) {
            Some(entry) => self.note(entry.leaving(), now),
            None => Noted::ForLater,
        }
    }

    /// Notes what others are to be told, if there is room for another replica.
    fn note(&mut self, entry: Entry, now: Instant) -> Noted {
        let id = Id::from(entry.id());
        if let Some(own) = self.own.get_mut(&id) {
            own.heard(entry, now);
        } else if self.own.len() < self.config.max_seen {
            self.own.insert(Arc::clone(&id), Own::new(entry, now));
        } else {
            return Noted::ForLater;
        }
        self.wait(id);
        Noted::ForNow
    }

    fn list(&mut self) -> Vec<Action> {
        self.link = Link::Listing;
        vec![Action::List]
    }

    /// Everything is read again at once, but for a store that says so again and again: that one is tried as if it broke.
    fn compacted(&mut self, now: Instant) -> Vec<Action> {
        let last = self.compacted.replace(now);
        let again = last.is_some_and(|last| now < last + self.config.longest_back_off);
        if again { self.broken(now) } else { self.list() }
    }

    fn watch(&mut self, revision: i64, now: Instant) -> Action {
        self.link = Link::Watching { since: now, pinged: false, keeping: false };
        self.lost = None;
        // Nothing comes after the last number that there is.
        Action::Watch { from: revision.saturating_add(1) }
    }

    fn broken(&mut self, now: Instant) -> Vec<Action> {
        if self.is_settled(now) {
            self.failures = 0;
        }
        let config = &self.config;
        let time = config.first_back_off.saturating_mul(1 << self.failures.min(16)).min(config.longest_back_off);
        self.failures = self.failures.saturating_add(1);
        self.link = Link::Down { until: now + time };
        self.lost.get_or_insert(now);
        self.writing = 0;
        let again: Vec<Id> =
            self.own.iter_mut().filter_map(|(id, own)| own.interrupted().then(|| Arc::clone(id))).collect();
        self.wait_all(again);
        vec![Action::Disconnect]
    }

    /// What was asked for in this session has its answer.
    fn answered(&mut self, event: Event, now: Instant) {
        match event {
            Event::Written { id, lease } => self.ended(&id, |own| own.written(lease, now)),
            Event::Expired { id } => self.ended(&id, Own::expired),
            Event::Refused { id } => self.ended(&id, Own::refused),
            Event::Removed { id } => {
                self.ended(&id, Own::removed);
                if self.own.get(&id).is_some_and(Own::is_over) {
                    self.own.remove(&id);
                }
            }
            Event::KeptAlive { gone } => self.kept_alive(&gone),
            Event::Ponged => self.asked_again(|pinged, _| *pinged = false),
            _ => {}
        }
    }

    /// A write is over.
    fn ended(&mut self, id: &Id, end: impl FnOnce(&mut Own) -> bool) {
        self.writing = self.writing.saturating_sub(1);
        if self.own.get_mut(id).is_some_and(end) {
            self.wait(Arc::clone(id));
        }
    }

    fn kept_alive(&mut self, gone: &[LeaseId]) {
        self.asked_again(|_, keeping| *keeping = false);
        self.own.values_mut().for_each(|own| own.lapsed(gone));
    }

    /// The next question of a kind may be asked.
    fn asked_again(&mut self, allow: impl FnOnce(&mut bool, &mut bool)) {
        if let Link::Watching { pinged, keeping, .. } = &mut self.link {
            allow(pinged, keeping);
        }
    }

    /// What is in the store is what was listed, and nothing else.
    fn listed(&mut self, entries: Vec<(Id, Arc<Entry>)>) -> Vec<Action> {
        let there: HashSet<Id> = entries.iter().map(|(id, _)| Arc::clone(id)).collect();
        let known = self.seen.keys().chain(self.own.keys());
        let gone: HashSet<Id> = known.filter(|id| !there.contains(*id)).map(Arc::clone).collect();
        let gone = gone.into_iter().map(Change::Gone);
        let changes: Vec<_> = gone.chain(entries.into_iter().map(|(id, entry)| Change::Put(id, entry))).collect();
        changes.into_iter().filter_map(|change| self.changed(change)).collect()
    }

    fn changed(&mut self, change: Change) -> Option<Action> {
        match change {
            Change::Gone(id) => {
                self.seen.remove(&id);
                if let Some(own) = self.own.get_mut(&id) {
                    own.vanished();
                }
                None
            }
            Change::Put(id, entry) => self.put(id, entry),
        }
    }

    fn put(&mut self, id: Id, entry: Arc<Entry>) -> Option<Action> {
        if entry.left() {
            self.seen.remove(&id);
        } else if self.seen.len() < self.config.max_seen || self.seen.contains_key(&id) {
            self.seen.insert(Arc::clone(&id), Arc::clone(&entry));
        } else {
            return None;
        }
        if let Some(own) = self.own.get_mut(&id) {
            let (known, said) = (own.entry(), (entry.epoch(), entry.left()));
            if said.0 < known.epoch() {
                own.overwritten();
                return None;
            }
            // Nobody else is believed about it but that it goes, or that a later start of it is there.
            if said == (known.epoch(), false) || known.left() && said == (known.epoch(), true) {
                return None;
            }
            self.own.remove(&id);
        }
        let epoch = entry.epoch();
        Some(if entry.left() { Action::Leave { id, epoch } } else { Action::Adopt(entry) })
    }

    /// Own ones that were not heard for the time of a lease are none any more; nor are they seen if nobody else wrote
    /// about them since.
    fn forget(&mut self, now: Instant) {
        let lease = self.config.lease;
        let silent: Vec<Id> =
            self.own.iter().filter(|(_, own)| own.is_silent(now, lease)).map(|(id, _)| Arc::clone(id)).collect();
        for id in silent {
            let Some(own) = self.own.remove(&id) else { continue };
            if self.seen.get(&id).is_some_and(|seen| own.wrote(seen)) {
                self.seen.remove(&id);
            }
        }
    }

    /// Those that others hear are still there, for as long as that is believed.
    fn renewals(&self, now: Instant) -> Vec<Action> {
        if self.lost.is_some_and(|lost| lost + self.config.hold <= now) {
            return Vec::new();
        }
        let others = self.seen.iter().filter(|(id, _)| !self.own.contains_key(*id));
        others.map(|(_, entry)| Action::Renew(Arc::clone(entry))).collect()
    }

    /// The leases that are to be kept, and whether the store is there at all.
    fn asks(&mut self, now: Instant) -> Vec<Action> {
        let Link::Watching { pinged, keeping, .. } = &mut self.link else { return Vec::new() };
        let mut asks = Vec::new();
        if !std::mem::replace(pinged, true) {
            asks.push(Action::Ping);
        }
        if !*keeping {
            let due = self.config.lease / 3;
            let kept: Vec<LeaseId> = self.own.values_mut().filter_map(|own| own.keep(now, due)).collect();
            *keeping = !kept.is_empty();
            asks.extend((!kept.is_empty()).then_some(Action::KeepAlive(kept)));
        }
        asks
    }

    /// As many of the writes that wait as may be under way, each replica's not before its time.
    fn writes(&mut self, now: Instant) -> Vec<Action> {
        let mut writes = Vec::new();
        if !self.is_connected() {
            return writes;
        }
        let mut early = VecDeque::new();
        while self.writing < self.config.max_writes
            && let Some(id) = self.waiting.pop_front()
        {
            let Some(own) = self.own.get_mut(&id) else { continue };
            own.waits = own.is_early(now);
            if own.waits {
                early.push_back(id);
            } else if own.is_silent(now, self.config.lease / 2) {
                // Others may hear it by now, who know more. It waits again when it is heard again.
            } else if let Some(write) = own.write(&id, now + self.config.pace) {
                self.writing += 1;
                writes.push(write);
            }
        }
        early.append(&mut take(&mut self.waiting));
        self.waiting = early;
        writes
    }

    fn wait_all(&mut self, ids: Vec<Id>) {
        for id in ids {
            self.wait(id);
        }
    }

    fn wait(&mut self, id: Id) {
        if let Some(own) = self.own.get_mut(&id)
            && !std::mem::replace(&mut own.waits, true)
        {
            self.waiting.push_back(id);
        }
    }
}
