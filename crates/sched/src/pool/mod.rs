//! Which workers start, stop, sleep and wake: a pure planner beside the dispatcher.
//!
//! ```text
//!   Dispatcher::load ──► Pools::decide ──► Start, Wake, Sleep, Stop ──► supervisors ──► processes
//!                            ▲                                              │
//!                            └────── Ready, Asleep, Failing, Gone ◄─────────┘
//! ```
//!
//! Every worker has a *place*. A place is given all that its group needs of the replica's resources before it starts, and
//! has it until the shell says that it is over or asleep. One ledger gives them out, and it has no way of giving anything
//! twice. The states of a place are drawn in `place.rs`, the rules are in the table of `policy.rs`.
//!
//! Stop and Sleep mean: finish what is in flight, then go. The planner knows no process and no clock, restarts nothing
//! (a supervisor does, with its back-off), and never takes back an order.

mod error;
mod ledger;
mod member;
mod place;
mod plan;
mod policy;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyserve_core::{Needs, Resources};

pub use error::PoolError;
pub use place::PlaceEvent;

use crate::{GroupId, GroupLoad};
use ledger::Ledger;
use member::Member;
use place::Stage;
use plan::Plan;

/// A place for a worker: numbered here, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlaceId(pub u32);

/// Times that keep switching in bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPolicy {
    /// A worker stays at least so long before it is taken away for others.
    pub min_residency: Duration,
    /// A group waits about so long for a busy one, beyond drain and start.
    pub starvation: Duration,
    /// Time without a request after which a group is idle, and without a caller after which it no longer waits.
    pub lull: Duration,
    /// Time between two looks while somebody waits.
    pub look: Duration,
}

/// What the planner must know of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolGroup {
    /// What each of its workers needs while it is awake.
    pub needs: Needs,
    /// Workers that it always has.
    pub min: u32,
    /// Workers that it may have, those that sleep among them; at least 1. One that finishes its last requests is no longer
    /// counted.
    pub max: u32,
    /// A worker beyond the fewest goes when one less would have done for so long; `None` keeps it until others need room.
    pub idle_timeout: Option<Duration>,
    /// Its workers sleep instead of ending.
    pub sleeps: bool,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolAction {
    /// Start a worker of this group with these resources.
    Start {
        /// Its place.
        place: PlaceId,
        /// Its group.
        group: GroupId,
        /// What it has until its place is over or asleep.
        grant: Resources,
    },
    /// Wake the worker up; it has the same resources again.
    Wake(PlaceId),
    /// Let the worker finish what it has, then put it to sleep.
    Sleep(PlaceId),
    /// Let the worker finish what it has, then end it; or end it at once if it never was ready, or sleeps.
    Stop(PlaceId),
}

/// The planner of one replica.
#[derive(Debug)]
pub struct Pools {
    policy: PoolPolicy,
    ledger: Ledger,
    members: BTreeMap<GroupId, Member>,
    homes: BTreeMap<PlaceId, GroupId>,
    next_place: u32,
    next_look: Option<Instant>,
    /// Places that have to be stopped although nobody asked for room.
    astray: Vec<PlaceId>,
}

// === impl PoolPolicy ===

impl Default for PoolPolicy {
    /// A second of residency, five until a busy group gives way, 100 ms of lull, a look every 50 ms.
    fn default() -> Self {
        Self {
            min_residency: Duration::from_secs(1),
            starvation: Duration::from_secs(5),
            lull: Duration::from_millis(100),
            look: Duration::from_millis(50),
        }
    }
}

// === impl Pools ===

impl Pools {
    /// A planner without groups for what a replica has.
    pub fn new(resources: Resources, policy: PoolPolicy) -> Self {
        Self {
            policy,
            ledger: Ledger::new(resources),
            members: BTreeMap::new(),
            homes: BTreeMap::new(),
            next_place: 0,
            next_look: None,
            astray: Vec::new(),
        }
    }

    /// Adds a group, loaded and without places.
    ///
    /// # Errors
    /// [`PoolError::TooMuch`] if one worker needs more than there is, [`PoolError::Crowded`] if the fewest workers of all
    /// groups, or of all others and one of any, do not fit together; the retired do not count, the unloaded do.
    /// [`PoolError::Bounds`] and [`PoolError::Taken`] for what the caller got wrong.
    pub fn add_group(&mut self, id: GroupId, group: PoolGroup) -> Result<(), PoolError> {
        if self.members.contains_key(&id) {
            return Err(PoolError::Taken { group: id });
        }
        let amounts = self.ledger.amounts(&group.needs)?;
        check_bounds(group.min, group.max)?;
        let member = Member::new(group, amounts);
        self.check_room(id, &member)?;
        self.members.insert(id, member);
        Ok(())
    }

    /// Adds a group of a newer load of the app, beside the groups whose place it is going to take: whether the fewest
    /// workers of all fit together is not asked, it has what they leave.
    ///
    /// # Errors
    /// As [`add_group`](Self::add_group), but never [`PoolError::Crowded`].
    pub fn add_beside(&mut self, id: GroupId, group: PoolGroup) -> Result<(), PoolError> {
        if self.members.contains_key(&id) {
            return Err(PoolError::Taken { group: id });
        }
        let amounts = self.ledger.amounts(&group.needs)?;
        check_bounds(group.min, group.max)?;
        self.members.insert(id, Member::new(group, amounts));
        Ok(())
    }

    /// Moves the bounds of a group.
    ///
    /// # Errors
    /// As [`add_group`](Self::add_group), and [`PoolError::Unknown`]; nothing is changed then.
    pub fn set_bounds(&mut self, id: GroupId, min: u32, max: u32) -> Result<(), PoolError> {
        check_bounds(min, max)?;
        let mut member = self.members.remove(&id).ok_or(PoolError::Unknown { group: id })?;
        let before = (member.group.min, member.group.max);
        (member.group.min, member.group.max) = (min, max);
        let fits = self.check_room(id, &member);
        if fits.is_err() {
            (member.group.min, member.group.max) = before;
        }
        self.members.insert(id, member);
        fits
    }

    /// Somebody waits for so many workers of a group, until 0 are wanted: they are started as if they were its fewest, but
    /// may be taken away like any others.
    ///
    /// # Errors
    /// [`PoolError::Unknown`], and [`PoolError::Crowded`] if they need more than there is.
    pub fn want(&mut self, id: GroupId, workers: u32) -> Result<(), PoolError> {
        let member = self.members.get_mut(&id).ok_or(PoolError::Unknown { group: id })?;
        let alone = [(workers, &member.amounts)];
        self.ledger.check_together(alone.into_iter(), std::iter::empty())?;
        member.wanted = workers;
        if workers > 0 {
            // Whoever asks wants to know whether it starts by now.
            member.trouble = None;
        }
        Ok(())
    }

    /// Whether the fewest workers of all groups fit, and one of each group beside the fewest of the others.
    fn check_room(&self, id: GroupId, member: &Member) -> Result<(), PoolError> {
        let others = self.members.iter().filter(|(other, _)| **other != id).map(|(_, other)| other);
        let all: Vec<_> = others.chain([member]).filter(|member| !member.retired).collect();
        let fewest = all.iter().map(|member| (member.group.min, &member.amounts));
        let singles = all.iter().filter(|member| member.group.min == 0).map(|member| &member.amounts);
        self.ledger.check_together(fewest, singles)
    }

    /// A group that is not loaded has no workers: those that it has are stopped, none is started.
    pub fn set_loaded(&mut self, id: GroupId, loaded: bool) {
        if let Some(member) = self.members.get_mut(&id) {
            member.loaded = loaded;
            member.trouble = None;
        }
    }

    /// Another group takes this one's place. It gets a worker only if something waits and none is there, and loses its
    /// workers once nothing waits or runs.
    pub fn retire(&mut self, id: GroupId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.retired = true;
        }
    }

    /// A group is retired, has no places and nothing waited for it when it was last looked at: it is forgotten. So is one
    /// that never was.
    pub fn is_over(&self, id: GroupId) -> bool {
        !self.members.contains_key(&id)
    }

    /// An operator stops this worker: it is going as if the planner had said so.
    pub fn stopping(&mut self, place: PlaceId) {
        let member = self.homes.get(&place).and_then(|group| self.members.get_mut(group));
        if let Some(own) = member.and_then(|member| member.places.get_mut(&place)) {
            (own.stage, own.slept) = (Stage::Stopping, None);
        }
    }

    /// Something has happened to a place. One that is not known is over already.
    pub fn on(&mut self, place: PlaceId, event: PlaceEvent, now: Instant) {
        let Some(member) = self.homes.get(&place).and_then(|group| self.members.get_mut(group)) else { return };
        if event == PlaceEvent::Gone {
            return self.gone(place, now);
        }
        let Some(own) = member.places.get_mut(&place) else { return };
        let lasted = now.saturating_duration_since(own.since) >= self.policy.min_residency;
        let (before, (moved, measured)) = (own.stage, own.on(event, now));
        if !moved {
            return;
        }
        match own.stage {
            Stage::Asleep => own.slept = self.ledger.give_back(place),
            Stage::Stopping => self.astray.push(place),
            Stage::Failing if before == Stage::Ready && lasted => member.trouble = None,
            _ => {}
        }
        if let Some(measured) = measured {
            member.measure(measured);
        }
    }

    fn gone(&mut self, place: PlaceId, now: Instant) {
        self.ledger.give_back(place);
        let Some(member) = self.homes.remove(&place).and_then(|group| self.members.get_mut(&group)) else { return };
        let Some(own) = member.places.remove(&place) else { return };
        if matches!(own.stage, Stage::Starting | Stage::Waking | Stage::Failing) {
            member.fail(now);
        }
    }

    /// A request has to wait in this group. True if it is the first one of a group without a worker: decide at once.
    /// Otherwise the next look is soon, and this costs next to nothing.
    pub fn waits(&mut self, id: GroupId, now: Instant) -> bool {
        let soon = now.checked_add(self.policy.look);
        self.next_look = self.next_look.into_iter().chain(soon).min();
        self.members.get(&id).is_some_and(|member| member.hunger.is_none() && member.census().up() == 0)
    }

    /// Looks at all groups, and says what is to be done. To be called after every event of a place, after a change made
    /// here, when [`waits`](Self::waits) says so, and at [`next_look`](Self::next_look).
    ///
    /// It costs a step for each group and place, and a sort of the places that could give way if somebody waits.
    pub fn decide(&mut self, load: impl Fn(GroupId) -> GroupLoad, now: Instant, out: &mut Vec<PoolAction>) {
        for (id, member) in &mut self.members {
            member.look(load(*id), self.policy.lull, now);
            member.forgive(self.policy.min_residency, now);
        }
        self.members.retain(|_, member| !(member.retired && member.places.is_empty() && member.load.queued == 0));
        out.extend(self.astray.drain(..).map(PoolAction::Stop));
        let mut plan = Plan {
            policy: &self.policy,
            ledger: &mut self.ledger,
            members: &mut self.members,
            homes: &mut self.homes,
            next_place: &mut self.next_place,
            now,
            out,
            waits: false,
        };
        plan.end_what_must_go();
        plan.end_what_is_idle();
        plan.serve();
        let waits = plan.waits;
        self.next_look = self.look_again(waits, now);
    }

    fn look_again(&self, waits: bool, now: Instant) -> Option<Instant> {
        let soon = now.checked_add(self.policy.look);
        let restless = |member: &Member| member.loaded && member.load.queued > 0 || member.retired;
        if waits || self.members.values().any(restless) {
            return soon;
        }
        // What is due and was not done waits for something that nobody tells the planner of.
        let idle = self.members.values().filter_map(policy::too_many_at).map(|at| soon.map_or(at, |soon| at.max(soon)));
        let troubled = self.members.values().filter(|member| {
            let census = member.census();
            member.loaded && (census.up() < member.fewest() || census.up() == 0 && member.load.down)
        });
        idle.chain(troubled.filter_map(|member| Some(member.trouble?.until))).min()
    }

    /// When to `decide` although nothing happens; `None` for a pool that is content. [`waits`](Self::waits) may bring it
    /// forward.
    pub fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Time until a worker of this group may be ready, as measured: nothing while one is, what remains of a start or waking
    /// that is under way, else the whole of one. `None` if nobody knows: never measured, failing, or not loaded.
    pub fn expected_start(&self, id: GroupId, now: Instant) -> Option<Duration> {
        let member = self.members.get(&id)?;
        let census = member.census();
        if census.ready > 0 {
            return Some(Duration::ZERO);
        }
        if census.coming == 0 {
            let starts =
                member.loaded && census.failing == 0 && member.trouble.is_none_or(|trouble| trouble.until <= now);
            return if starts { member.cost() } else { None };
        }
        let remains = |place: &place::Place| {
            let whole = match place.stage {
                Stage::Starting => member.start.average(),
                Stage::Waking => member.wake.average(),
                _ => None,
            };
            Some(whole?.saturating_sub(place.underway(now)?))
        };
        member.places.values().filter_map(remains).min()
    }

    /// Every resource, how much there is of it, and how much workers have.
    pub fn used(&self) -> Vec<(String, u64, u64)> {
        self.ledger.used()
    }

    /// What a place has. `None` for one that is over or asleep.
    pub fn grant(&self, place: PlaceId) -> Option<&Resources> {
        self.ledger.grant(place).map(|grant| &grant.resources)
    }

    /// Time that a start takes in this group, as measured.
    pub fn start_time(&self, id: GroupId) -> Option<Duration> {
        self.members.get(&id).and_then(|member| member.start.average())
    }

    /// Time that waking takes in this group, as measured.
    pub fn wake_time(&self, id: GroupId) -> Option<Duration> {
        self.members.get(&id).and_then(|member| member.wake.average())
    }

    /// The places of a group, the oldest first.
    pub fn places(&self, id: GroupId) -> impl Iterator<Item = PlaceId> {
        self.members.get(&id).into_iter().flat_map(|member| member.places.keys().copied())
    }

    /// The group that a place belongs to, until it is over.
    pub fn group_of(&self, place: PlaceId) -> Option<GroupId> {
        self.homes.get(&place).copied()
    }

    /// The fewest and the most workers of a group.
    pub fn bounds(&self, id: GroupId) -> Option<(u32, u32)> {
        self.members.get(&id).map(|member| (member.group.min, member.group.max))
    }

    /// What a place is doing: `starting`, `ready`, `falling-asleep`, `asleep`, `waking`, `failing` or `stopping`.
    pub fn state(&self, place: PlaceId) -> Option<&'static str> {
        let member = self.homes.get(&place).and_then(|group| self.members.get(group))?;
        member.places.get(&place).map(|own| own.stage.name())
    }
}

fn check_bounds(min: u32, max: u32) -> Result<(), PoolError> {
    if max == 0 || min > max { Err(PoolError::Bounds { min, max }) } else { Ok(()) }
}
