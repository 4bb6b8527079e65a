//! What a registry tells of its replicas, and whom it would choose, without a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Capability, Query, Upgrades};

use super::choose::UP;
use super::{Handle, Registry};
use crate::index::wide;
use crate::list::List;
use crate::policy::{Keys, Policy};
use crate::{Health, Load, Standing};

/// Equally specific capabilities of which somebody is looked for who has one, at most.
const LOOKED_AT: usize = 64;

/// What is known of a replica at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// For what is seen of it.
    pub handle: Handle,
    /// Its name.
    pub id: Arc<str>,
    /// Its start.
    pub epoch: u64,
    /// Where it takes requests.
    pub endpoint: Arc<str>,
    /// It takes no more requests.
    pub draining: bool,
    /// How fit it is.
    pub health: Health,
    /// Why it could not be reached last, where that is known and it is not up.
    pub trouble: Option<Arc<str>>,
    /// Another API server hears it, and it is known through the store.
    pub adopted: bool,
    /// When it is believed to be gone.
    pub lease_until: Instant,
    /// How many capabilities it has.
    pub capabilities: usize,
}

/// One capability of a replica, as it is known now.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferView {
    /// What it serves.
    pub capability: Arc<Capability>,
    /// A request may be sent again although it may have begun.
    pub idempotent: bool,
    /// Requests that run at once.
    pub slots: u32,
    /// How busy it is, as it last said.
    pub load: Load,
    /// How fit it is to be sent a request; `None` if no request goes there.
    pub standing: Option<Standing>,
    /// The replica itself denied it since it announced it.
    pub denied: bool,
}

/// A capability, and how those are that offer it.
#[derive(Clone, Debug, PartialEq)]
pub struct CapabilityView {
    /// What is served.
    pub capability: Arc<Capability>,
    /// Replicas that offer it, with those that no request goes to: they leave, or denied it.
    pub replicas: usize,
    /// Replicas by standing: ready, cold, saturated, ejected.
    pub standings: [usize; 4],
    /// Requests that wait or run at all that requests go to.
    pub pending: u64,
    /// The shortest wait at those that are ready; `None` if nobody is.
    pub wait: Option<Duration>,
}

/// Who a request should go to.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The replica.
    pub replica: ReplicaView,
    /// What it says it serves; `None` if it is only the most promising one.
    pub capability: Option<Arc<Capability>>,
    /// What its own rules make of the query, as it announced them, if it says that it does not serve it.
    pub upgrade: Option<Query>,
}

// === impl Registry ===

impl Registry {
    /// What is known of a replica.
    pub fn view(&self, id: &str) -> Option<ReplicaView> {
        self.slots.get(id).map(|slot| self.view_of(*slot))
    }

    /// What is known of everybody, in no order.
    pub fn views(&self) -> impl Iterator<Item = ReplicaView> {
        self.slots.values().map(|slot| self.view_of(*slot))
    }

    /// The different capabilities that are registered, in no order, each with whether a worker somewhere can take a
    /// request for it.
    pub fn offered(&self) -> impl Iterator<Item = (&Arc<Capability>, bool)> {
        let warm = |number| {
            let somebody = |standing| self.holders.list(number, standing).is_some();
            somebody(Standing::Ready) || somebody(Standing::Saturated)
        };
        self.index.iter().map(move |(number, capability)| (capability, warm(number)))
    }

    /// The capabilities of a replica, in the order of its announcement; none of one that is not there.
    pub fn offers(&self, id: &str) -> Vec<OfferView> {
        let Some(slot) = self.slots.get(id) else { return Vec::new() };
        let known = &self.replicas[wide(*slot)];
        let view = |held: &crate::replica::Held| OfferView {
            capability: Arc::clone(self.index.capability(held.number)),
            idempotent: held.idempotent,
            slots: held.slots,
            load: held.load,
            standing: known.standing(held),
            denied: held.denied,
        };
        known.offers.iter().map(view).collect()
    }

    /// The capabilities that are registered, `max` at most, in no order.
    pub fn capability_views(&self, max: usize) -> Vec<CapabilityView> {
        self.index.iter().take(max).map(|(number, capability)| self.capability_view(number, capability)).collect()
    }

    fn capability_view(&self, number: u32, capability: &Arc<Capability>) -> CapabilityView {
        let lists = [Standing::Ready, Standing::Cold, Standing::Saturated, Standing::Ejected]
            .map(|standing| self.holders.list(number, standing));
        let waits = lists[0].into_iter().flat_map(List::candidates).map(|one| one.wait);
        CapabilityView {
            capability: Arc::clone(capability),
            replicas: self.index.users(number),
            standings: lists.map(|list| list.map_or(0, |list| list.candidates().len())),
            pending: lists.iter().flatten().map(|list| list.pending()).sum(),
            wait: waits.min(),
        }
    }

    /// The upgrade rules of a replica, as it announced them; none of one that is not there.
    pub fn upgrades(&self, id: &str) -> Upgrades {
        let book = self.slots.get(id).and_then(|slot| self.replicas[wide(*slot)].book);
        book.map_or_else(Upgrades::default, |book| self.rules.rules(book).clone())
    }

    /// Who a request should go to that somebody else sends: the policy's choice among those who say they serve it, and
    /// somebody who is ejected only if there is nobody else. What nobody says goes to one with a [rule](Self::upgrades) that leads to
    /// somebody who does.
    ///
    /// Nothing is counted as sent: the replica's next heartbeat tells what came of it.
    pub fn resolve(
        &mut self,
        query: &Query,
        avoid: &[Arc<str>],
        policy: &dyn Policy,
        keys: &Keys,
        now: Instant,
    ) -> Option<Resolved> {
        self.expire(now);
        let Some(pick) = self.choose(query, avoid, true, policy, keys) else {
            return self.resolve_by_rule(query, avoid);
        };
        let capability = self.claimed(&pick);
        Some(Resolved { replica: self.view_of(pick.handle.slot), capability, upgrade: None })
    }

    /// One whose rule makes of a query what somebody else claims to serve, and who has that forwarded.
    fn resolve_by_rule(&mut self, query: &Query, avoid: &[Arc<str>]) -> Option<Resolved> {
        let excluded = self.slots_of(avoid);
        let led = self.led(query, &excluded).filter(|led| led.claimed)?;
        Some(Resolved { replica: self.view_of(led.slot), capability: None, upgrade: Some(led.query) })
    }

    /// Somebody who says that he serves it and is not known to be out of reach, for a question about it. It is no choice:
    /// the policy is not asked, and nobody's turn is over.
    pub fn anybody(&mut self, query: &Query, now: Instant) -> Option<Resolved> {
        self.expire(now);
        let numbers = self.index.best(query);
        let lists = UP.iter().flat_map(|standing| {
            let some = numbers.iter().take(LOOKED_AT);
            some.filter_map(|number| self.holders.list(*number, *standing))
        });
        let first = lists.flat_map(List::candidates).next()?;
        let held = &self.replicas[wide(first.slot)].offers[wide(first.offer)];
        let capability = Some(Arc::clone(self.index.capability(held.number)));
        Some(Resolved { replica: self.view_of(first.slot), capability, upgrade: None })
    }

    /// Who a request would be sent to that nobody says they serve: the most promising one.
    pub fn promises(&mut self, query: &Query, policy: &dyn Policy, keys: &Keys, now: Instant) -> Option<Resolved> {
        self.expire(now);
        let (pick, upgrade) = self.promising(query, &[], policy, keys, true)?;
        Some(Resolved { replica: self.view_of(pick.handle.slot), capability: None, upgrade })
    }

    pub(super) fn view_of(&self, slot: u32) -> ReplicaView {
        let known = &self.replicas[wide(slot)];
        ReplicaView {
            handle: self.handle(slot),
            id: Arc::clone(&known.id),
            epoch: known.epoch,
            endpoint: Arc::clone(&known.endpoint),
            draining: known.draining,
            health: known.health,
            trouble: known.trouble.clone(),
            adopted: known.adopted,
            lease_until: known.lease_until,
            capabilities: known.offers.len(),
        }
    }
}
