//! Who of the registered gets a request, and what the request taught about him.

use std::sync::Arc;

use anyserve_core::{Capability, Query};

use super::{Handle, Registry};
use crate::hash::place;
use crate::holders::Standing;
use crate::index::wide;
use crate::list::List;
use crate::policy::{Candidates, Keys, Policy};
use crate::replica::{Held, Replica};

/// Conditions that are left out one by one, at most, to find who comes near.
const RELAXED: usize = 8;
/// Equally specific capabilities, whose holders are all looked at, at most, unless the policy needs all of them.
const WINDOW: usize = 64;
/// Standings that requests go to without need, in the order in which they are looked at.
pub(super) const UP: [Standing; 3] = [Standing::Ready, Standing::Cold, Standing::Saturated];

/// A replica that was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) handle: Handle,
    pub(crate) id: Arc<str>,
    /// What it claims; `None` if it claims nothing that matches.
    pub(crate) claim: Option<Claim>,
}

/// A capability that a replica says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The message it is of.
    announced: u64,
    offer: u32,
    pub(crate) idempotent: bool,
    pub(crate) ejected: bool,
}

// === impl Registry ===

impl Registry {
    /// Who gets a request: the most specific capability that somebody has who may be chosen, and of those the one that
    /// the policy says. Who is ejected is chosen only if that is allowed and there is nobody else.
    pub(crate) fn choose(
        &mut self,
        query: &Query,
        avoid: &[Arc<str>],
        ejected: bool,
        policy: &dyn Policy,
        keys: &Keys,
    ) -> Option<Pick> {
        let excluded = self.slots_of(avoid);
        let best = self.index.best(query);
        if best.is_empty() {
            return None;
        }
        let known = self.among(&best, &UP, &excluded, policy, keys);
        known.or_else(|| self.less_specific(query, &UP, &excluded, policy, keys)).or_else(|| {
            let last = [Standing::Ejected];
            ejected.then(|| self.less_specific(query, &last, &excluded, policy, keys)).flatten()
        })
    }

    /// Who is the most likely to have served what nobody claims to serve. Where `rules` count, because it may hand the
    /// request back, one with a rule that applies, at best one that leads to somebody else; otherwise one that claims all
    /// but one condition, or else one that has little to do.
    pub(crate) fn promising(
        &mut self,
        query: &Query,
        avoid: &[Arc<str>],
        policy: &dyn Policy,
        keys: &Keys,
        rules: bool,
    ) -> Option<(Pick, Option<Query>)> {
        let excluded = self.slots_of(avoid);
        if let Some(led) = rules.then(|| self.led(query, &excluded)).flatten() {
            return Some((self.unclaimed(led.slot), Some(led.query)));
        }
        let near = relaxed(query).into_iter().find_map(|query| {
            let best = self.index.best(&query);
            self.among(&best, &UP, &excluded, policy, keys)
        });
        let near = near.map(|pick| pick.handle.slot);
        let slot = near.or_else(|| self.idle(None, &excluded))?;
        Some((self.unclaimed(slot), None))
    }

    /// A request was sent to a pick.
    pub(crate) fn sent(&mut self, pick: &Pick) {
        self.adjust(pick, crate::Candidate::sent);
    }

    /// A request that was sent to a pick is over, whatever its end.
    pub(crate) fn finished(&mut self, pick: &Pick) {
        self.adjust(pick, crate::Candidate::finished);
    }

    /// A pick answered: it can be reached.
    pub(crate) fn reached(&mut self, pick: &Pick) {
        if self.get(pick.handle).is_some_and(|known| !known.health.is_up()) {
            self.set_health(pick.handle.slot, crate::Health::Up);
        }
    }

    /// A pick does not serve what it claims to. The claim does not count until it is made again.
    pub(crate) fn deny(&mut self, pick: &Pick) {
        self.correct(pick, |held| held.denied = true);
    }

    /// A pick's queue is full, until it says another thing.
    pub(crate) fn saturate(&mut self, pick: &Pick) {
        self.correct(pick, |held| held.load.saturated = true);
    }

    /// A pick takes no more requests, until it says another thing.
    pub(crate) fn drain(&mut self, pick: &Pick) {
        if self.get(pick.handle).is_some() {
            self.replicas[wide(pick.handle.slot)].draining = true;
            self.stand(pick.handle.slot);
        }
    }

    /// Where a pick takes requests, if it is still there.
    pub(crate) fn endpoint(&self, pick: &Pick) -> Option<(u64, Arc<str>)> {
        self.get(pick.handle).map(|known| (known.epoch, Arc::clone(&known.endpoint)))
    }

    /// What a pick claims, if it still does.
    pub(crate) fn claimed(&self, pick: &Pick) -> Option<Arc<Capability>> {
        let (known, claim) = (self.get(pick.handle)?, pick.claim?);
        claimed(known, claim).map(|held| Arc::clone(self.index.capability(held.number)))
    }

    pub(super) fn slots_of(&self, ids: &[Arc<str>]) -> Vec<u32> {
        ids.iter().filter_map(|id| self.slots.get(id).copied()).collect()
    }

    /// The policy's choice among those who have one of these capabilities, of the first standing where somebody is.
    fn among(
        &mut self,
        numbers: &[u32],
        standings: &[Standing],
        excluded: &[u32],
        policy: &dyn Policy,
        keys: &Keys,
    ) -> Option<Pick> {
        let turn = self.holders.take_turn(*numbers.first()?);
        let choose = |numbers: &[u32]| {
            standings.iter().find_map(|standing| {
                let lists = numbers.iter().filter_map(|number| self.holders.list(*number, *standing)).collect();
                policy.choose(&Candidates::new(lists, excluded), keys, turn)
            })
        };
        let window = if policy.needs_all(keys) { None } else { window(numbers, turn) };
        let chosen = window.and_then(choose).or_else(|| choose(numbers))?;
        Some(self.pick(chosen.slot, chosen.offer))
    }

    /// The same among the most specific capabilities that somebody has who may be chosen.
    fn less_specific(
        &mut self,
        query: &Query,
        standings: &[Standing],
        excluded: &[u32],
        policy: &dyn Policy,
        keys: &Keys,
    ) -> Option<Pick> {
        let numbers = self.index.best_where(query, |number| {
            let lists = standings.iter().filter_map(|standing| self.holders.list(number, *standing));
            lists.flat_map(List::candidates).any(|one| !excluded.contains(&one.slot))
        });
        self.among(&numbers, standings, excluded, policy, keys)
    }

    fn unclaimed(&self, slot: u32) -> Pick {
        Pick { handle: self.handle(slot), id: Arc::clone(&self.replicas[wide(slot)].id), claim: None }
    }

    fn pick(&self, slot: u32, offer: u32) -> Pick {
        let known = &self.replicas[wide(slot)];
        let held = &known.offers[wide(offer)];
        let (announced, idempotent, ejected) = (known.announced, held.idempotent, !known.health.is_up());
        let claim = Some(Claim { announced, offer, idempotent, ejected });
        Pick { handle: self.handle(slot), id: Arc::clone(&known.id), claim }
    }

    fn adjust(&mut self, pick: &Pick, change: impl FnOnce(&mut crate::Candidate)) {
        let (Some(known), Some(claim)) = (self.get(pick.handle), pick.claim) else { return };
        let Some(held) = claimed(known, claim) else { return };
        if let (number, Some(place)) = (held.number, held.place) {
            self.holders.change(number, place, change);
        }
    }

    fn correct(&mut self, pick: &Pick, change: impl FnOnce(&mut Held)) {
        let (Some(known), Some(claim)) = (self.get(pick.handle), pick.claim) else { return };
        if claimed(known, claim).is_some() {
            let (slot, offer) = (pick.handle.slot, wide(claim.offer));
            change(&mut self.replicas[wide(slot)].offers[offer]);
            self.stand_one(slot, offer);
        }
    }
}

/// The offer that a claim is of, unless another announcement came since.
fn claimed(known: &Replica, claim: Claim) -> Option<&Held> {
    (known.announced == claim.announced).then(|| known.offers.get(wide(claim.offer))).flatten()
}

/// A part of very many capabilities, another one at every turn; `None` if there are not so many.
fn window(numbers: &[u32], turn: u64) -> Option<&[u32]> {
    (numbers.len() > WINDOW).then(|| {
        let start = place(turn, numbers.len() - WINDOW + 1);
        &numbers[start..start + WINDOW]
    })
}

/// The queries with one condition fewer, each one that there is in its turn.
fn relaxed(query: &Query) -> Vec<Query> {
    let Query::All(conditions) = query else { return Vec::new() };
    let without = |left_out: usize| {
        let rest = conditions.iter().enumerate().filter(|(place, _)| *place != left_out);
        Query::all(rest.map(|(_, one)| one.clone()).collect())
    };
    // With only one condition nothing would be left of the query.
    if conditions.len() < 2 { Vec::new() } else { (0..conditions.len().min(RELAXED)).map(without).collect() }
}
