//! One look at all groups: what has to go, what can go, and who gets what is free.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::ledger::{Amounts, Ledger};
use super::member::Member;
use super::place::{Place, Stage};
use super::policy::{self, Claim, Kind, Worth};
use super::{PlaceId, PoolAction, PoolPolicy};
use crate::GroupId;

/// What one look works on.
pub(super) struct Plan<'a> {
    pub(super) policy: &'a PoolPolicy,
    pub(super) ledger: &'a mut Ledger,
    pub(super) members: &'a mut BTreeMap<GroupId, Member>,
    pub(super) homes: &'a mut BTreeMap<PlaceId, GroupId>,
    pub(super) next_place: &'a mut u32,
    pub(super) now: Instant,
    pub(super) out: &'a mut Vec<PoolAction>,
    /// Somebody waits for something that time alone brings.
    pub(super) waits: bool,
}

/// What nobody has been promised.
struct Room {
    free: Amounts,
    /// Of places that are going.
    coming: Amounts,
    victims: Vec<Victim>,
}

/// A place that may be taken away.
#[derive(Clone, Debug)]
struct Victim {
    worth: (Worth, Instant),
    group: GroupId,
    place: PlaceId,
    amounts: Amounts,
}

// === impl Plan ===

impl Plan<'_> {
    /// Ends the places of groups that are unloaded, retired and done, or above their most.
    pub(super) fn end_what_must_go(&mut self) {
        let groups: Vec<_> = self.members.keys().copied().collect();
        for group in groups {
            let member = &self.members[&group];
            let census = member.census();
            let goes: usize = if !member.loaded || member.retired && !member.is_busy() {
                member.places.len()
            } else if member.retired {
                usize::try_from(census.asleep).unwrap_or(usize::MAX)
            } else {
                usize::try_from((census.up() + census.asleep).saturating_sub(member.group.max)).unwrap_or(usize::MAX)
            };
            let doomed: Vec<_> = cheapest_first(member).take(goes).collect();
            for place in doomed {
                self.stop(group, place);
            }
        }
    }

    /// Lets one worker go of each group that has had too many for its idle timeout.
    pub(super) fn end_what_is_idle(&mut self) {
        let now = self.now;
        let due =
            |member: &Member| policy::too_many_at(member).is_some_and(|at| at <= now) && policy::may_spare(member);
        let spare = |(group, member): (&GroupId, &Member)| {
            let place = due(member).then(|| awake_cheapest_first(member).next()).flatten();
            place.map(|place| (*group, place))
        };
        let spares: Vec<_> = self.members.iter().filter_map(spare).collect();
        for (group, place) in spares {
            self.let_go(group, place);
        }
    }

    /// Starts and wakes what groups want, the longest waiting first, and makes room for what does not fit.
    pub(super) fn serve(&mut self) {
        let mut room = None;
        for kind in [Kind::Need, Kind::Wish] {
            for group in self.claimants(kind) {
                while let Some(claim) = self.claim(group).filter(|claim| claim.kind == kind) {
                    let room = room.get_or_insert_with(|| self.room());
                    if !self.serve_one(group, claim, room) {
                        self.waits = true;
                        break;
                    }
                }
            }
        }
    }

    fn claim(&self, group: GroupId) -> Option<Claim> {
        policy::claim(&self.members[&group], self.policy, self.now)
    }

    /// Groups that want a worker for this, the longest waiting first.
    fn claimants(&self, kind: Kind) -> Vec<GroupId> {
        let claims = self.members.iter().filter_map(|(group, member)| {
            let claim = policy::claim(member, self.policy, self.now).filter(|claim| claim.kind == kind)?;
            Some((claim.since, *group))
        });
        let mut claims: Vec<_> = claims.collect();
        claims.sort_unstable();
        claims.into_iter().map(|(_, group)| group).collect()
    }

    fn room(&self) -> Room {
        let free = self.ledger.free().clone();
        let (mut coming, mut victims) = (Amounts::nothing(&free), Vec::new());
        for (group, member) in self.members.iter().filter(|(_, member)| !member.amounts.is_nothing()) {
            for (id, place) in &member.places {
                if matches!(place.stage, Stage::Stopping | Stage::FallingAsleep) && self.ledger.grant(*id).is_some() {
                    coming.add(&member.amounts);
                }
                if let Some(worth) = policy::worth(member, place, self.policy, self.now) {
                    victims.push(Victim { worth, group: *group, place: *id, amounts: member.amounts.clone() });
                }
            }
        }
        victims.sort_by_key(|victim| (victim.worth, victim.place));
        Room { free, coming, victims }
    }

    /// True if a worker is on its way; otherwise what there is is kept for it.
    fn serve_one(&mut self, group: GroupId, claim: Claim, room: &mut Room) -> bool {
        let amounts = self.members[&group].amounts.clone();
        if room.free.covers(&amounts) {
            room.free.take(&amounts);
            return self.wake_or_start(group);
        }
        let short = room.free.take(&amounts);
        let short = room.coming.take(&short);
        if !short.is_nothing() {
            let reach = policy::reach(claim, &self.members[&group], self.policy, self.now);
            for victim in self.victims(group, &short, reach, room) {
                room.victims.retain(|other| other.place != victim.place);
                room.coming.add(&victim.amounts);
                self.let_go(victim.group, victim.place);
            }
            // What the victims have is promised to this group, too.
            room.coming.take(&short);
        }
        false
    }

    /// The least valuable places that have what is short; none if all together are not enough.
    fn victims(&self, group: GroupId, short: &Amounts, reach: Worth, room: &Room) -> Vec<Victim> {
        let (mut left, mut picked, mut taken) = (short.clone(), Vec::<Victim>::new(), BTreeMap::new());
        for victim in room.victims.iter().filter(|victim| victim.worth.0 <= reach && victim.group != group) {
            let member = &self.members[&victim.group];
            let count = taken.entry(victim.group).or_insert(0);
            let kept = policy::kept_from(&self.members[&group], member);
            let spare = member.census().up().saturating_sub(kept);
            if *count < spare && victim.amounts.overlaps(&left) {
                *count += 1;
                left = victim.amounts.clone().take(&left);
                picked.push(victim.clone());
            }
        }
        if !left.is_nothing() {
            return Vec::new();
        }
        drop_needless(&mut picked, short);
        picked
    }

    /// False if that has to wait for a worker of the group itself that falls asleep.
    fn wake_or_start(&mut self, group: GroupId) -> bool {
        let Some(member) = self.members.get_mut(&group) else { return false };
        let asleep = |(id, place): (&PlaceId, &Place)| Some((*id, place.slept.clone()?));
        let same = member.places.iter().filter_map(asleep).find(|(_, grant)| self.ledger.has_same(grant));
        let Some((id, grant)) = same else { return self.start(group) };
        let (Some(_), Some(place)) = (self.ledger.take_same(id, &grant), member.places.get_mut(&id)) else {
            return false;
        };
        place.slept = None;
        place.order(Stage::Waking, self.now);
        self.out.push(PoolAction::Wake(id));
        true
    }

    fn start(&mut self, group: GroupId) -> bool {
        let member = &self.members[&group];
        let census = member.census();
        if census.up() + census.asleep >= member.group.max {
            let asleep = member.places.iter().find(|(_, place)| place.slept.is_some()).map(|(id, _)| *id);
            let Some(asleep) = asleep else { return false };
            self.stop(group, asleep);
        }
        let (place, wanted) = (PlaceId(*self.next_place), self.slept_gpus());
        let Some(member) = self.members.get_mut(&group) else { return false };
        let Some(grant) = self.ledger.take(place, &member.amounts, &wanted) else { return false };
        *self.next_place += 1;
        self.out.push(PoolAction::Start { place, group, grant: grant.resources.clone() });
        member.places.insert(place, Place::starting(self.now));
        self.homes.insert(place, group);
        true
    }

    /// GPUs that somebody who sleeps would want back.
    fn slept_gpus(&self) -> BTreeSet<usize> {
        let places = self.members.values().flat_map(|member| member.places.values());
        places.filter_map(|place| place.slept.as_ref()).flat_map(|grant| grant.gpus().iter().copied()).collect()
    }

    /// A worker gives its resources back: it sleeps where it can, otherwise it ends.
    fn let_go(&mut self, group: GroupId, id: PlaceId) {
        let Some(member) = self.members.get_mut(&group) else { return };
        let (sleeps, whole) = (member.group.sleeps && !member.retired, member.load.sequences == 0);
        let Some(place) = member.places.get_mut(&id) else { return };
        if !(sleeps && whole && place.stage == Stage::Ready) {
            return self.stop(group, id);
        }
        place.order(Stage::FallingAsleep, self.now);
        self.out.push(PoolAction::Sleep(id));
    }

    fn stop(&mut self, group: GroupId, id: PlaceId) {
        let Some(member) = self.members.get_mut(&group) else { return };
        let Some(place) = member.places.get_mut(&id).filter(|place| place.stage != Stage::Stopping) else { return };
        let failed = place.stage == Stage::Failing;
        place.order(Stage::Stopping, self.now);
        place.slept = None;
        if failed {
            member.fail(self.now);
        }
        self.out.push(PoolAction::Stop(id));
    }
}

/// Takes out what the others do not need, the most valuable first.
fn drop_needless(picked: &mut Vec<Victim>, short: &Amounts) {
    for at in (0..picked.len()).rev() {
        let mut rest = Amounts::nothing(short);
        let others = picked.iter().enumerate().filter(|(other, _)| *other != at);
        others.for_each(|(_, victim)| rest.add(&victim.amounts));
        if rest.covers(short) {
            picked.remove(at);
        }
    }
}

/// The places of a group that are not going already, those that are missed least first.
fn cheapest_first(member: &Member) -> impl Iterator<Item = PlaceId> {
    let rank = |place: &Place| match place.stage {
        Stage::Asleep => Some(0),
        Stage::FallingAsleep => Some(1),
        Stage::Failing => Some(2),
        Stage::Starting | Stage::Waking => Some(3),
        Stage::Ready => Some(4),
        Stage::Stopping => None,
    };
    let ranked =
        member.places.iter().filter_map(|(id, place)| Some((rank(place)?, std::cmp::Reverse((place.since, *id)))));
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, youngest)| youngest.0.1)
}

fn awake_cheapest_first(member: &Member) -> impl Iterator<Item = PlaceId> {
    cheapest_first(member).filter(|id| member.places[id].is_up())
}
