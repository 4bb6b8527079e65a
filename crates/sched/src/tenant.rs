//! One tenant's waiting requests in one level.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::queue::{Ahead, Lane, Line, Place, Rank};
use crate::{Ticket, WorkerId};

/// Whose requests take turns with others'.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) weight: u32,
    /// Where it stands among the tenants: the lowest is next.
    pub(crate) tag: u64,
    lines: Vec<(Line, BTreeSet<Rank>)>,
    /// The requests that may be in a batch, by handler and kind.
    mates: BTreeMap<(usize, u64), BTreeSet<Rank>>,
    waiting: Ahead,
}

/// A request costs at least this much of its tenant's share, so that requests that take no time have a cost, too.
const LEAST_COST_NS: u64 = 1_000;

// === impl Tenant ===

impl Tenant {
    /// The share of a tenant of weight 1 with one request.
    pub(crate) const SCALE: u64 = 1 << 20;

    pub(crate) fn new(weight: u32, tag: u64) -> Self {
        Self { weight, tag, lines: Vec::new(), mates: BTreeMap::new(), waiting: Ahead::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.requests == 0
    }

    pub(crate) fn waiting(&self) -> Ahead {
        self.waiting
    }

    pub(crate) fn has(&self, place: &Place) -> bool {
        self.line(place.line).is_some_and(|ranks| ranks.contains(&place.rank))
    }

    pub(crate) fn push(&mut self, place: &Place) {
        match self.lines.iter_mut().find(|(line, _)| *line == place.line) {
            Some((_, ranks)) => drop(ranks.insert(place.rank)),
            None => self.lines.push((place.line, BTreeSet::from([place.rank]))),
        }
        if let Some(batch) = place.batch {
            self.mates.entry((place.line.handler, batch)).or_default().insert(place.rank);
        }
        self.waiting.requests += 1;
        self.waiting.work += place.work;
    }

    pub(crate) fn remove(&mut self, place: &Place) {
        if let Some(at) = self.lines.iter().position(|(line, _)| *line == place.line) {
            self.lines[at].1.remove(&place.rank);
            if self.lines[at].1.is_empty() {
                self.lines.swap_remove(at);
            }
        }
        if let Some(batch) = place.batch {
            self.leave_mates((place.line.handler, batch), place.rank);
        }
        self.waiting.requests -= 1;
        self.waiting.work = self.waiting.work.saturating_sub(place.work);
    }

    fn leave_mates(&mut self, kind: (usize, u64), rank: Rank) {
        if let Some(ranks) = self.mates.get_mut(&kind) {
            ranks.remove(&rank);
            if ranks.is_empty() {
                self.mates.remove(&kind);
            }
        }
    }

    /// It gets so much of the workers' time.
    pub(crate) fn charge(&mut self, work: Duration) {
        let cost = u64::try_from(work.as_nanos()).unwrap_or(u64::MAX).max(LEAST_COST_NS);
        self.tag = self.tag.saturating_add((cost / u64::from(self.weight.max(1))).max(1));
    }

    /// The first request of a line.
    pub(crate) fn head(&self, line: Line) -> Option<Rank> {
        self.line(line).and_then(|ranks| ranks.first().copied())
    }

    /// The most urgent request of these lines, with its line's worker.
    pub(crate) fn first_of(&self, open: &[(Line, WorkerId)]) -> Option<(Ticket, WorkerId)> {
        let heads = open.iter().filter_map(|(line, worker)| Some((self.head(*line)?, *worker)));
        heads.min_by_key(|(rank, _)| *rank).map(|(rank, worker)| (rank.ticket, worker))
    }

    /// The most urgent request that may be in a batch of this kind.
    pub(crate) fn mate(&self, handler: usize, batch: u64) -> Option<Ticket> {
        self.mates.get(&(handler, batch)).and_then(BTreeSet::first).map(|rank| rank.ticket)
    }

    /// Requests, of one handler or of all.
    pub(crate) fn len(&self, handler: Option<usize>) -> usize {
        self.of(handler).map(BTreeSet::len).sum()
    }

    /// Requests by weight.
    pub(crate) fn share(&self, handler: Option<usize>) -> u64 {
        self.scaled(self.len(handler))
    }

    pub(crate) fn share_with_one_more(&self, handler: Option<usize>) -> u64 {
        self.scaled(self.len(handler) + 1)
    }

    fn scaled(&self, len: usize) -> u64 {
        len as u64 * Self::SCALE / u64::from(self.weight.max(1))
    }

    /// The request that can wait longest. One that keeps a sequence in its order stays.
    pub(crate) fn last(&self, handler: Option<usize>) -> Option<Ticket> {
        let movable = self.lines.iter().filter(|(line, _)| {
            handler.is_none_or(|handler| line.handler == handler) && !matches!(line.lane, Lane::Bound(_))
        });
        movable.filter_map(|(_, ranks)| ranks.last()).max().map(|rank| rank.ticket)
    }

    fn of(&self, handler: Option<usize>) -> impl Iterator<Item = &BTreeSet<Rank>> {
        let wanted = move |line: &Line| handler.is_none_or(|handler| line.handler == handler);
        self.lines.iter().filter(move |(line, _)| wanted(line)).map(|(_, ranks)| ranks)
    }

    fn line(&self, line: Line) -> Option<&BTreeSet<Rank>> {
        self.lines.iter().find(|(other, _)| *other == line).map(|(_, ranks)| ranks)
    }
}
