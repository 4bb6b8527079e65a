//! The world's own books: every request and every worker, by what went into the dispatcher and what came out of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyserve_core::{Code, Fingerprint, SequenceId};
use anyserve_sched::{Slots, Ticket, WorkerId};

use super::clients::Ask;
use super::post::Post;
use super::scenario::{GroupPlan, Scenario};
use super::table::Phase;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not accepted yet.
    New,
    Waiting,
    With(WorkerId),
    /// Its caller is answered, or has left; the worker has yet to say that it is done with it.
    Left(WorkerId),
    Over,
}

/// A request and what became of it so far.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ask: Ask,
    pub(super) ticket: Option<Ticket>,
    pub(super) standing: Standing,
    pub(super) came: Instant,
    /// Its slot at its worker.
    pub(super) slot: u32,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// How often its handler was started.
    pub(super) runs: u32,
    pub(super) endings: u32,
    /// The error that it ended with.
    pub(super) ended: Option<Code>,
    /// Its caller has had a part of the answer.
    pub(super) emitted: bool,
    /// A worker died while it ran.
    pub(super) suspect: bool,
    /// The step in which it came back from a worker's socket.
    pub(super) returned: u64,
}

/// One handler of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Waiting, whatever for.
    pub(super) waiting: usize,
    /// Waiting before this step, and come back from workers in it.
    pub(super) before: usize,
    /// The shortest time that a call of it ever took.
    pub(super) shortest: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct GroupBooks {
    pub(super) shelves: Vec<Shelf>,
    pub(super) waiting: BTreeSet<usize>,
    /// Bytes that wait, and the same as for the shelves.
    pub(super) bytes: usize,
    pub(super) bytes_before: usize,
    /// When requests were accepted, and when some were sent again after a death; lately.
    pub(super) accepted: VecDeque<Instant>,
    pub(super) retried: VecDeque<Instant>,
    /// Requests that may have been counted as sent again although they never were.
    pub(super) vague: usize,
}

/// A sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// The worker that has its state.
    pub(super) worker: Option<WorkerId>,
    /// The last of its requests that was sent.
    pub(super) last: Option<Ticket>,
    /// The one that a worker has not answered for.
    pub(super) busy: Option<usize>,
    /// Its accepted requests that start it anew.
    pub(super) starts: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Books {
    pub(super) entries: Vec<Entry>,
    pub(super) posts: BTreeMap<WorkerId, Post>,
    pub(super) groups: Vec<GroupBooks>,
    pub(super) chains: BTreeMap<(usize, usize, u64), Chain>,
    /// Requests that are not over, and those that a worker has yet to answer for.
    pub(super) live: usize,
    pub(super) step: u64,
    /// Fingerprints of requests that were with a dying worker; the like of them may want a worker for themselves.
    pub(super) blamed: BTreeSet<Fingerprint>,
}

/// All slot tables, as the dispatcher asks for them.
pub(super) struct Tables<'a> {
    posts: &'a BTreeMap<WorkerId, Post>,
    recalled: RefCell<Vec<usize>>,
}

// === impl Books ===

impl Books {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            entries: Vec::new(),
            posts: BTreeMap::new(),
            groups: scenario.groups.iter().map(GroupBooks::new).collect(),
            chains: BTreeMap::new(),
            live: 0,
            step: 0,
            blamed: BTreeSet::new(),
        }
    }

    /// A request is asked for. Returns its number.
    pub(super) fn open(&mut self, ask: Ask, now: Instant) -> usize {
        self.entries.push(Entry {
            ask,
            ticket: None,
            standing: Standing::New,
            came: now,
            slot: 0,
            attempts: 0,
            runs: 0,
            endings: 0,
            ended: None,
            emitted: false,
            suspect: false,
            returned: 0,
        });
        self.entries.len() - 1
    }

    /// A request goes from where it is to somewhere else.
    pub(super) fn put(&mut self, number: usize, to: Standing) {
        let from = std::mem::replace(&mut self.entries[number].standing, to);
        if from == Standing::Waiting {
            self.count_waiting(number, false);
        }
        if to == Standing::Waiting {
            self.count_waiting(number, true);
        }
        self.live += usize::from(from == Standing::New);
        self.live -= usize::from(to == Standing::Over);
    }

    fn count_waiting(&mut self, number: usize, comes: bool) {
        let ask = &self.entries[number].ask;
        let group = &mut self.groups[ask.group];
        let queue = &mut group.shelves[ask.handler].waiting;
        if comes {
            group.waiting.insert(number);
            *queue += 1;
            group.bytes += ask.bytes;
        } else {
            group.waiting.remove(&number);
            *queue -= 1;
            group.bytes -= ask.bytes;
        }
    }

    /// The next step begins.
    pub(super) fn turn(&mut self) {
        self.step += 1;
        for group in &mut self.groups {
            group.bytes_before = group.bytes;
            group.shelves.iter_mut().for_each(|shelf| shelf.before = shelf.waiting);
        }
    }

    /// A request comes back from a worker.
    pub(super) fn take_back(&mut self, number: usize) {
        let entry = &mut self.entries[number];
        entry.returned = self.step;
        let group = &mut self.groups[entry.ask.group];
        group.shelves[entry.ask.handler].before += 1;
        group.bytes_before += entry.ask.bytes;
        self.put(number, Standing::Waiting);
    }

    /// A worker died while it ran this.
    pub(super) fn suspect(&mut self, number: usize) {
        self.entries[number].suspect = true;
        self.blamed.insert(self.entries[number].ask.print);
    }

    /// The name of a request's sequence.
    pub(super) fn chain_of(ask: &Ask) -> Option<(usize, usize, u64)> {
        match &ask.sequence.as_ref()?.id {
            SequenceId::Number(number) => Some((ask.group, ask.handler, *number)),
            SequenceId::Text(_) => None,
        }
    }

    /// A worker has answered for a request of a sequence, or is gone.
    pub(super) fn unchain(&mut self, number: usize) {
        let ask = &self.entries[number].ask;
        let ends = ask.sequence.as_ref().is_some_and(|call| call.end);
        if let Some(chain) = Self::chain_of(ask).and_then(|name| self.chains.get_mut(&name)) {
            chain.busy = None;
            chain.worker = chain.worker.filter(|_| !ends);
        }
    }

    /// A call of this handler took so long.
    pub(super) fn observe(&mut self, group: usize, handler: usize, took: Duration) {
        let shortest = &mut self.groups[group].shelves[handler].shortest;
        *shortest = Some(shortest.map_or(took, |known| known.min(took)));
    }

    /// Whether the request of this frame's member is the worker's to run, and not a stale copy.
    pub(super) fn is_current(&self, worker: WorkerId, number: usize, slot: u32) -> bool {
        let entry = &self.entries[number];
        entry.slot == slot && matches!(entry.standing, Standing::With(at) | Standing::Left(at) if at == worker)
    }
}

// === impl GroupBooks ===

impl GroupBooks {
    fn new(plan: &GroupPlan) -> Self {
        Self {
            shelves: vec![Shelf::default(); plan.handlers.len()],
            waiting: BTreeSet::new(),
            bytes: 0,
            bytes_before: 0,
            accepted: VecDeque::new(),
            retried: VecDeque::new(),
            vague: 0,
        }
    }
}

// === impl Tables ===

impl<'a> Tables<'a> {
    pub(super) fn new(posts: &'a BTreeMap<WorkerId, Post>) -> Self {
        Self { posts, recalled: RefCell::default() }
    }

    /// The requests that were taken back, in order.
    pub(super) fn into_recalled(self) -> Vec<usize> {
        self.recalled.into_inner()
    }
}

impl Slots for Tables<'_> {
    fn has_started(&self, worker: WorkerId, ticket: Ticket, slot: u32) -> bool {
        self.posts.get(&worker).is_some_and(|post| post.table.is(slot, ticket, Phase::Started))
    }

    fn recall(&self, worker: WorkerId, ticket: Ticket, slot: u32) -> bool {
        let Some(post) = self.posts.get(&worker) else { return false };
        let recalled = post.table.recall(slot, ticket);
        if recalled {
            self.recalled.borrow_mut().extend(post.held.get(&slot).map(|held| held.number));
        }
        recalled
    }
}
