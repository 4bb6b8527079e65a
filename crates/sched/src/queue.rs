//! Requests of one group that wait: strict levels, tenants that take turns, the earliest deadline first.
//!
//! ```text
//!   level 1 ─┬─ tenant a ─┬─ line (handler 0, anywhere)  deadline order
//!            │            └─ line (handler 0, worker 3)
//!            └─ tenant b ─── line (handler 1, anywhere)
//!   level 2 ─…
//! ```
//!
//! The first level with a line that a worker can take is served; of its tenants the one that has had least, by weight.
//! That is start-time fair queueing: a tenant's tag grows by the expected time of what it gets, divided by its weight,
//! and one that comes back starts at the level's clock, so that nobody saves up.
//!
//! Source: Goyal, Vin, Cheng, "Start-time fair queueing", 1996; within a tenant Liu and Layland's earliest deadline first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::Priority;

use crate::level::Level;
use crate::{Ticket, WorkerId};

/// Where a request may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// On any worker.
    Any,
    /// On this worker, which keeps its sequence.
    Bound(WorkerId),
    /// On any worker, with nothing beside it.
    Alone,
}

/// What a line can have now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A worker that is free.
    Now(WorkerId),
    /// A place in a busy worker's socket.
    Soon(WorkerId),
    /// The next worker that is free.
    Next,
    /// Nothing that comes free by itself.
    Shut,
}

/// Requests that can take each other's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) handler: usize,
    pub(crate) lane: Lane,
}

/// A request's rank in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) due: Due,
    pub(crate) ticket: Ticket,
}

/// A deadline; none is later than all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    At(Instant),
    Never,
}

/// Everything that decides where a request stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) level: usize,
    pub(crate) tenant: usize,
    pub(crate) line: Line,
    pub(crate) rank: Rank,
    /// What it shares with requests that may be in one batch with it.
    pub(crate) batch: Option<u64>,
    /// Expected time in its handler.
    pub(crate) work: Duration,
    /// Its patience when it came, in coarse steps.
    pub(crate) class: usize,
    pub(crate) bytes: usize,
}

/// A request that waits, with a turn or behind its sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) handler: usize,
    pub(crate) bytes: usize,
    pub(crate) rank: Rank,
}

/// What goes before a request that comes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) requests: usize,
    pub(crate) work: Duration,
}

/// The waiting requests of one group.
#[derive(Debug)]
pub(crate) struct Queue {
    levels: [Level; Priority::LEVELS],
    weights: Arc<HashMap<String, u32>>,
    /// Waiting requests by handler, those that wait behind their sequence too.
    lens: Vec<usize>,
    total: usize,
    /// Requests by handler that could run anywhere.
    anywhere: Vec<usize>,
    /// Requests that want a worker for themselves.
    alone: usize,
    mates: BTreeMap<(usize, u64), usize>,
    bytes: usize,
    /// Everything that waits, in the order of coming.
    arrivals: BTreeSet<Ticket>,
    /// What waits and has a deadline, the soonest first.
    deadlines: BTreeSet<(Instant, Ticket)>,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn new(handlers: usize, weights: Arc<HashMap<String, u32>>) -> Self {
        Self {
            levels: std::array::from_fn(|_| Level::default()),
            weights,
            lens: vec![0; handlers],
            total: 0,
            anywhere: vec![0; handlers],
            alone: 0,
            mates: BTreeMap::new(),
            bytes: 0,
            arrivals: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waiting requests of a handler.
    pub(crate) fn len(&self, handler: usize) -> usize {
        self.lens[handler]
    }

    /// Waiting requests of a handler that could run anywhere.
    pub(crate) fn anywhere(&self, handler: usize) -> usize {
        self.anywhere[handler]
    }

    /// Waiting requests that want a worker for themselves.
    pub(crate) fn alone(&self) -> usize {
        self.alone
    }

    /// Waiting requests that could run on a worker that is not there yet.
    pub(crate) fn open(&self) -> usize {
        self.anywhere.iter().sum::<usize>() + self.alone
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Waiting requests that may be in one batch.
    pub(crate) fn mates(&self, handler: usize, batch: u64) -> usize {
        self.mates.get(&(handler, batch)).copied().unwrap_or(0)
    }

    /// The request that came first of all that wait.
    pub(crate) fn oldest(&self) -> Option<Ticket> {
        self.arrivals.first().copied()
    }

    /// The soonest deadline of all that wait.
    pub(crate) fn soonest(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A request waits behind its sequence: it counts, but has no turn yet.
    pub(crate) fn hold(&mut self, waiting: &Waiting) {
        self.lens[waiting.handler] += 1;
        self.total += 1;
        self.bytes += waiting.bytes;
        self.arrivals.insert(waiting.rank.ticket);
        if let Due::At(deadline) = waiting.rank.due {
            self.deadlines.insert((deadline, waiting.rank.ticket));
        }
    }

    /// A request no longer waits behind its sequence.
    pub(crate) fn unhold(&mut self, waiting: &Waiting) {
        self.lens[waiting.handler] -= 1;
        self.total -= 1;
        self.bytes -= waiting.bytes;
        self.arrivals.remove(&waiting.rank.ticket);
        if let Due::At(deadline) = waiting.rank.due {
            self.deadlines.remove(&(deadline, waiting.rank.ticket));
        }
    }

    /// The number by which a tenant is known in its level.
    pub(crate) fn tenant(&mut self, level: usize, name: &str) -> usize {
        let weights = &self.weights;
        self.levels[level].tenant(name, || weights.get(name).copied().unwrap_or(1).max(1))
    }

    pub(crate) fn push(&mut self, place: &Place) {
        self.hold(&place.waiting());
        self.count(place, true);
        self.levels[place.level].push(place);
    }

    /// Takes a request out that does not go to a worker.
    pub(crate) fn remove(&mut self, place: &Place) {
        if self.levels[place.level].remove(place) {
            self.unhold(&place.waiting());
            self.count(place, false);
        }
    }

    /// Takes a request out that goes to a worker; its tenant pays for the work, as far as that is known by now.
    pub(crate) fn take(&mut self, place: &Place, work: Duration) {
        self.remove(place);
        self.levels[place.level].charge(place.tenant, work);
    }

    fn count(&mut self, place: &Place, comes: bool) {
        let step = |count: &mut usize| *count = if comes { *count + 1 } else { *count - 1 };
        match place.line.lane {
            Lane::Any => step(&mut self.anywhere[place.line.handler]),
            Lane::Alone => step(&mut self.alone),
            Lane::Bound(_) => {}
        }
        if let Some(batch) = place.batch {
            let mates = self.mates.entry((place.line.handler, batch)).or_default();
            step(mates);
            if *mates == 0 {
                self.mates.remove(&(place.line.handler, batch));
            }
        }
    }

    /// The request whose turn it is, by what there is for each line and the request at its head.
    ///
    /// A place in a socket is given only where nobody of this level or a stricter one waits for the worker itself: what
    /// is short would go before it for ever.
    pub(crate) fn next(&self, mut open: impl FnMut(Line, Ticket) -> Opening) -> Option<(Ticket, WorkerId)> {
        let mut awaited = false;
        self.levels.iter().find_map(|level| level.next(&mut open, &mut awaited))
    }

    /// Whether a request of this level or a stricter one waits for the next worker that is free.
    pub(crate) fn is_awaited(&self, level: usize, mut open: impl FnMut(Line, Ticket) -> Opening) -> bool {
        self.total > 0 && self.levels[..=level].iter().any(|level| level.is_awaited(&mut open))
    }

    /// The request that joins a batch next, in the same order.
    pub(crate) fn next_mate(&self, handler: usize, batch: u64) -> Option<Ticket> {
        if self.mates(handler, batch) == 0 {
            return None;
        }
        self.levels.iter().find_map(|level| level.next_mate(handler, batch))
    }

    /// What goes before a request with this level, tenant and patience.
    pub(crate) fn ahead(&self, level: usize, tenant: &str, class: usize) -> Ahead {
        let stricter = self.levels[..level].iter().map(Level::all);
        stricter.fold(self.levels[level].ahead(tenant, class), |sum, all| Ahead {
            requests: sum.requests + all.requests,
            work: sum.work + all.work,
        })
    }

    /// Who has to go so that a request of this level and tenant can wait: the last of a later level, or of the tenant
    /// that has most in its own level if that is more than its share.
    ///
    /// With a handler, only requests of that handler are looked at.
    pub(crate) fn victim(&self, level: usize, tenant: &str, handler: Option<usize>) -> Option<Ticket> {
        let mut later = self.levels[level + 1..].iter().rev();
        let last = later.find_map(|level| level.last_of_most(handler));
        last.or_else(|| self.levels[level].last_beyond_share(tenant, handler))
    }
}

// === impl Place ===

impl Place {
    fn waiting(&self) -> Waiting {
        Waiting { handler: self.line.handler, bytes: self.bytes, rank: self.rank }
    }
}

/// Steps of patience: below a millisecond, two, four, …
const CLASSES: usize = 24;

/// The number of classes of patience.
pub(crate) const fn classes() -> usize {
    CLASSES
}

/// The class of a request that comes now: each doubles the patience of the one before it.
pub(crate) fn class_of(deadline: Option<Instant>, now: Instant) -> usize {
    let Some(deadline) = deadline else { return CLASSES - 1 };
    let millis = deadline.saturating_duration_since(now).as_millis();
    let doublings = u128::BITS - millis.leading_zeros();
    usize::try_from(doublings).unwrap_or(CLASSES).min(CLASSES - 2)
}
