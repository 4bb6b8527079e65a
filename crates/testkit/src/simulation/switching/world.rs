//! The world: simulated time, and everybody in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyserve_core::Fingerprint;
use anyserve_sched::{Action, Dispatcher, GroupId, Payload, PlaceId, PoolAction, Pools, SchedConfig, Ticket};

use super::checks;
use super::plan::Plan;
use super::post::Post;
use crate::simulation::Run;
use crate::simulation::broken::{Broken, Checked, hold};
use crate::simulation::tally::Tally;
use crate::simulation::trace::Trace;
use crate::{Chance, Timeline};

/// Something that happens at its instant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A client asks this capability for something; with a turn, it asks the next one once it has its answer.
    Arrive(usize, Asks),
    /// A timer of the dispatcher is due, or was.
    Expire,
    /// The planner wants to look again.
    Look,
    /// A process is ready, or did not start.
    Begun(PlaceId, u32),
    /// A handler has ended.
    Done(PlaceId, Ticket),
    /// A worker sleeps.
    Slept(PlaceId, u32),
    /// A process has ended as it was told to.
    Ended(PlaceId, u32),
    Kill,
    Order,
    Reload,
    /// A model that was unloaded is loaded again.
    Load(GroupId),
}

/// Whether a client that has its answer asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Once,
    /// The same capability, until the end of the span.
    Again,
    /// The capability after this one, until the end of the span.
    Around,
}

/// A request, from its client's side.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) app: usize,
    pub(super) asks: Asks,
    pub(super) arrived: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) ended: bool,
}

/// What the dispatcher keeps of a request.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) number: usize,
}

/// Everything that there is.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    pub(super) time: Timeline<Step>,
    pub(super) began: Instant,
    pub(super) machine: Dispatcher<Parcel>,
    pub(super) pools: Pools,
    /// The group that serves each capability now.
    pub(super) routes: Vec<GroupId>,
    /// The capability of every group that ever was.
    pub(super) apps: BTreeMap<GroupId, usize>,
    pub(super) posts: BTreeMap<PlaceId, Post>,
    pub(super) entries: Vec<Entry>,
    pub(super) actions: Vec<Action<Parcel>>,
    orders: Vec<PoolAction>,
    /// Groups without a worker for what waits, and since when.
    pub(super) hungry: BTreeMap<GroupId, Instant>,
    /// Groups that an operator has unloaded.
    pub(super) unloaded: Vec<GroupId>,
    /// Workers that were started or woken with a share of what there is.
    pub(super) grants: u32,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
    pub(super) next_worker: u32,
    /// Something has happened that the planner has to see.
    pub(super) news: bool,
    timer: Option<Instant>,
    look: Option<Instant>,
}

/// Steps after which a world does not come to rest any more.
const MAX_STEPS: u32 = 400_000;

impl Payload for Parcel {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(u64::try_from(self.number).unwrap_or(u64::MAX))
    }

    fn has_emitted(&self) -> bool {
        false
    }
}

// === impl World ===

impl World {
    pub(super) fn new(plan: Plan, seed: u64, told: bool) -> Self {
        let time = Timeline::new();
        let mut world = Self {
            seed,
            // Another stream of numbers than the plan was made from.
            chance: Chance::new(!seed),
            trace: Trace::new(time.now(), told),
            began: time.now(),
            time,
            machine: Dispatcher::new(SchedConfig::default()),
            pools: Pools::new(plan.resources.clone(), plan.policy),
            routes: Vec::new(),
            apps: BTreeMap::new(),
            posts: BTreeMap::new(),
            entries: Vec::new(),
            actions: Vec::new(),
            orders: Vec::new(),
            hungry: BTreeMap::new(),
            unloaded: Vec::new(),
            grants: 0,
            tally: Tally::default(),
            next_worker: 1,
            news: true,
            timer: None,
            look: None,
            plan,
        };
        world.routes = (0..world.plan.apps.len()).map(|app| world.add_group(app)).collect();
        world
    }

    /// A group for a capability. Where its fewest do not fit beside the others', it has none.
    pub(super) fn add_group(&mut self, app: usize) -> GroupId {
        let id = self.machine.add_group([self.plan.apps[app].limits]);
        let group = self.plan.apps[app].group.clone();
        if self.pools.add_group(id, group.clone()).is_err() {
            let least = anyserve_sched::PoolGroup { min: 0, ..group };
            if self.pools.add_group(id, least).is_err() {
                self.tally.count("groups that do not fit");
                self.unload(id);
            }
        }
        self.apps.insert(id, app);
        id
    }

    pub(super) fn run(mut self) -> Run {
        self.trace.note(self.time.now(), format_args!("{:?}", self.plan));
        let broken: Option<Broken> = self.live().err();
        let (hash, lines) = self.trace.finish();
        Run { seed: self.seed, hash, lines, tally: self.tally, broken }
    }

    fn live(&mut self) -> Checked {
        self.plan_clients();
        self.plan_trouble();
        self.ask_planner()?;
        let mut steps = 0;
        while let Some(step) = self.time.next_event() {
            steps += 1;
            hold("a world comes to rest", steps < MAX_STEPS, || format!("{step:?}"))?;
            self.take(step)?;
            if std::mem::take(&mut self.news) {
                self.ask_planner()?;
            }
            self.arm();
            checks::after_step(self)?;
        }
        checks::at_rest(self)
    }

    fn take(&mut self, step: Step) -> Checked {
        match step {
            Step::Arrive(app, asks) => return self.arrive(app, asks),
            Step::Expire => return self.expire(),
            Step::Begun(place, epoch) => return self.begun(place, epoch),
            Step::Done(place, ticket) => return self.done(place, ticket),
            Step::Ended(place, epoch) => return self.ended(place, epoch),
            Step::Kill => return self.kill(),
            Step::Order => return self.operate(),
            Step::Reload => return self.reload(),
            // One that was planned before the planner changed its mind is none.
            Step::Look => self.news |= self.pools.next_look().is_some_and(|look| look <= self.time.now()),
            Step::Slept(place, epoch) => self.slept(place, epoch),
            Step::Load(group) => self.load_again(group),
        }
        Ok(())
    }

    /// The planner looks, and what it says is done.
    fn ask_planner(&mut self) -> Checked {
        let now = self.time.now();
        let mut orders = std::mem::take(&mut self.orders);
        self.pools.decide(|group| self.machine.load(group), now, &mut orders);
        for order in orders.drain(..) {
            self.trace.note(now, format_args!("{order:?}"));
            self.obey(order)?;
        }
        self.orders = orders;
        let groups: Vec<_> = self.apps.keys().copied().collect();
        for group in groups.into_iter().filter(|group| !self.pools.is_over(*group)) {
            let expected = self.pools.expected_start(group, now);
            self.machine.expect_worker(group, expected, now);
        }
        Ok(())
    }

    /// Sets the timers of the dispatcher and the planner.
    fn arm(&mut self) {
        let (timer, look) = (self.machine.next_deadline(), self.pools.next_look());
        if let Some(at) = timer.filter(|_| timer != self.timer) {
            self.time.plan_at(at, Step::Expire);
        }
        if let Some(at) = look.filter(|_| look != self.look) {
            self.time.plan_at(at, Step::Look);
        }
        (self.timer, self.look) = (timer, look);
    }

    /// Time since the beginning.
    pub(super) fn age(&self) -> Duration {
        self.time.now().saturating_duration_since(self.began)
    }
}
