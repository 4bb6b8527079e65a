//! One priority level: its tenants, and whose turn it is.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use slab::Slab;

use crate::queue::{Ahead, Line, Opening, Place, classes};
use crate::tenant::Tenant;
use crate::{Ticket, WorkerId};

/// Tenants without a request that are remembered; they are forgotten together.
const IDLE_TENANTS: usize = 64;

/// The requests of one priority.
#[derive(Debug, Default)]
pub(crate) struct Level {
    tenants: Slab<Tenant>,
    names: HashMap<Box<str>, usize>,
    /// Tenants with requests, by their tags.
    order: BTreeSet<(u64, usize)>,
    /// The tag of the tenant that was served last.
    clock: u64,
    /// How many requests there are of each line.
    lines: Vec<(Line, usize)>,
    /// Requests and their work.
    total: Ahead,
    /// The same by patience; empty until something comes.
    waiting: Vec<Ahead>,
    /// Sum of the weights of tenants with requests.
    weight: u32,
}

// === impl Level ===

impl Level {
    /// The tenant's number; it is known from now on.
    pub(crate) fn tenant(&mut self, name: &str, weight: impl FnOnce() -> u32) -> usize {
        if let Some(known) = self.names.get(name) {
            return *known;
        }
        self.forget_idle();
        let number = self.tenants.insert(Tenant::new(weight(), self.clock));
        self.names.insert(name.into(), number);
        number
    }

    /// In the order of their numbers, so that the numbers are used again in the same order in every run.
    fn forget_idle(&mut self) {
        if self.tenants.len() >= self.order.len() + IDLE_TENANTS {
            self.tenants.retain(|_, tenant| !tenant.is_empty());
            self.names.retain(|_, number| self.tenants.contains(*number));
        }
    }

    pub(crate) fn push(&mut self, place: &Place) {
        let tenant = &mut self.tenants[place.tenant];
        if tenant.is_empty() {
            tenant.tag = tenant.tag.max(self.clock);
            self.order.insert((tenant.tag, place.tenant));
            self.weight += tenant.weight;
        }
        tenant.push(place);
        match self.lines.iter_mut().find(|(line, _)| *line == place.line) {
            Some((_, count)) => *count += 1,
            None => self.lines.push((place.line, 1)),
        }
        self.waiting.resize(classes(), Ahead::default());
        for sum in [&mut self.total, &mut self.waiting[place.class]] {
            *sum = Ahead { requests: sum.requests + 1, work: sum.work + place.work };
        }
    }

    /// False if it was not there.
    pub(crate) fn remove(&mut self, place: &Place) -> bool {
        let Some(tenant) = self.tenants.get_mut(place.tenant).filter(|tenant| tenant.has(place)) else { return false };
        tenant.remove(place);
        if tenant.is_empty() {
            self.order.remove(&(tenant.tag, place.tenant));
            self.weight -= tenant.weight;
        }
        if let Some(at) = self.lines.iter().position(|(line, _)| *line == place.line) {
            self.lines[at].1 -= 1;
            if self.lines[at].1 == 0 {
                self.lines.swap_remove(at);
            }
        }
        for sum in [&mut self.total, &mut self.waiting[place.class]] {
            *sum = Ahead { requests: sum.requests - 1, work: sum.work.saturating_sub(place.work) };
        }
        true
    }

    /// A request of this tenant goes to a worker.
    pub(crate) fn charge(&mut self, number: usize, work: Duration) {
        let Some(tenant) = self.tenants.get_mut(number) else { return };
        self.clock = self.clock.max(tenant.tag);
        let before = tenant.tag;
        tenant.charge(work);
        if self.order.remove(&(before, number)) {
            self.order.insert((tenant.tag, number));
        }
    }

    /// See [`crate::queue::Queue::next`]. `awaited` says that a stricter level waits for a worker, or learns that this one
    /// does.
    pub(crate) fn next(
        &self,
        open: &mut impl FnMut(Line, Ticket) -> Opening,
        awaited: &mut bool,
    ) -> Option<(Ticket, WorkerId)> {
        // A worker for each line is looked for once, however many tenants wait in it.
        let openings: Vec<_> = self.openings(open).collect();
        *awaited |= openings.iter().any(|(_, opening)| *opening == Opening::Next);
        let worker = |(line, opening)| match opening {
            Opening::Now(worker) => Some((line, worker)),
            Opening::Soon(worker) => (!*awaited).then_some((line, worker)),
            Opening::Next | Opening::Shut => None,
        };
        let open: Vec<_> = openings.into_iter().filter_map(worker).collect();
        if open.is_empty() {
            return None;
        }
        self.in_order().find_map(|tenant| tenant.first_of(&open))
    }

    /// Whether a request waits for the next worker that is free.
    pub(crate) fn is_awaited(&self, open: &mut impl FnMut(Line, Ticket) -> Opening) -> bool {
        self.openings(open).any(|(_, opening)| opening == Opening::Next)
    }

    fn openings(&self, open: &mut impl FnMut(Line, Ticket) -> Opening) -> impl Iterator<Item = (Line, Opening)> {
        self.lines.iter().filter_map(|(line, _)| self.first_of(*line).map(|head| (*line, open(*line, head))))
    }

    fn first_of(&self, line: Line) -> Option<Ticket> {
        self.in_order().find_map(|tenant| tenant.head(line)).map(|rank| rank.ticket)
    }

    pub(crate) fn next_mate(&self, handler: usize, batch: u64) -> Option<Ticket> {
        self.in_order().find_map(|tenant| tenant.mate(handler, batch))
    }

    fn in_order(&self) -> impl Iterator<Item = &Tenant> {
        self.order.iter().map(|(_, number)| &self.tenants[*number])
    }

    pub(crate) fn all(&self) -> Ahead {
        self.total
    }

    /// What goes before a request of this tenant and patience: what is due sooner, and not more than the others' share
    /// beside the tenant's own.
    pub(crate) fn ahead(&self, tenant: &str, class: usize) -> Ahead {
        let sooner = sum(self.waiting.get(..=class).unwrap_or_default());
        let own = self.names.get(tenant).map(|number| &self.tenants[*number]);
        let (weight, waiting, new) = own.map_or((1, Ahead::default(), 1), |own| {
            (own.weight, own.waiting(), if own.is_empty() { own.weight } else { 0 })
        });
        let share = f64::from(self.weight + new) / f64::from(weight.max(1));
        let fair = waiting.work.mul_f64(share);
        let requests = waiting.requests.saturating_mul(usize::try_from(self.weight + new).unwrap_or(usize::MAX));
        let requests = requests.div_ceil(usize::try_from(weight.max(1)).unwrap_or(1));
        Ahead { requests: sooner.requests.min(requests), work: sooner.work.min(fair) }
    }

    /// The last request of the tenant that has most.
    pub(crate) fn last_of_most(&self, handler: Option<usize>) -> Option<Ticket> {
        let most = self.in_order().filter(|tenant| tenant.len(handler) > 0).max_by_key(|tenant| tenant.share(handler));
        most.and_then(|tenant| tenant.last(handler))
    }

    /// The last request of the tenant that has most, if that is more than `tenant` would have with one more.
    pub(crate) fn last_beyond_share(&self, tenant: &str, handler: Option<usize>) -> Option<Ticket> {
        let own = self.names.get(tenant).copied();
        let share = own.map_or(Tenant::SCALE, |number| self.tenants[number].share_with_one_more(handler));
        let others = self.order.iter().filter(|(_, number)| Some(*number) != own);
        let most = others.map(|(_, number)| &self.tenants[*number]).max_by_key(|tenant| tenant.share(handler))?;
        if most.share(handler) > share { most.last(handler) } else { None }
    }
}

fn sum(classes: &[Ahead]) -> Ahead {
    let add = |sum: Ahead, one: &Ahead| Ahead { requests: sum.requests + one.requests, work: sum.work + one.work };
    classes.iter().fold(Ahead::default(), add)
}
