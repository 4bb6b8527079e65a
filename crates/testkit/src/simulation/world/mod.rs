//! The world: simulated time, and everybody in it.

mod callers;
mod faults;
mod shell;
mod workers;

use std::time::{Duration, Instant};

use anyserve_sched::{Action, Cause, Dispatcher, GroupId, Ticket, WorkerId};

use super::books::Books;
use super::broken::{Checked, hold};
use super::checks::{self, Shares};
use super::clients::{Clients, Parcel};
use super::process::Frame;
use super::scenario::Scenario;
use super::tally::Tally;
use super::trace::Trace;
use super::{Broken, Run};
use crate::{Chance, Timeline};

/// Something that happens at its instant.
#[derive(Debug)]
pub(super) enum Step {
    /// A client asks.
    Arrive,
    /// A caller leaves.
    Leave(usize),
    /// A timer of the dispatcher is due, or was.
    Expire,
    /// A process is ready to be a worker of this group.
    Ready(usize),
    /// A frame reaches the worker.
    Receive(WorkerId, Frame),
    /// The worker is told that a caller left.
    Tell(WorkerId, u64, usize),
    /// A handler has sent a part of its answer.
    Chunk(WorkerId, u64),
    /// The part reaches the runtime.
    Emitted(WorkerId, usize, Ticket),
    /// A handler has ended.
    Done(WorkerId, u64),
    /// The worker's answer reaches the runtime.
    Answer(WorkerId, Reply),
    /// A process ends.
    Crash(WorkerId, Cause),
    /// The runtime sees that it did.
    Gone(WorkerId, Cause),
    /// A process goes on.
    Thaw(WorkerId),
    /// By now a handler that ran beyond its deadline is stopped, or its worker is.
    Audit(WorkerId, u64),
    Kill,
    Outage,
    Freeze,
    Drain,
    /// Whatever hangs is ended, as an operator would.
    Sweep,
}

/// What a worker says of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) number: usize,
    pub(super) ticket: Ticket,
    pub(super) slot: u32,
    /// Time in the handler, if it ran.
    pub(super) took: Option<Duration>,
}

/// What the dispatcher was told when it asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Submit,
    Cancel,
    Expire,
    Answer,
    Ready,
    Gone,
    Down,
}

/// Everything that there is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) scenario: Scenario,
    pub(super) chance: Chance,
    pub(super) time: Timeline<Step>,
    pub(super) machine: Dispatcher<Parcel>,
    pub(super) groups: Vec<GroupId>,
    pub(super) clients: Clients,
    pub(super) books: Books,
    pub(super) shares: Option<Shares>,
    pub(super) actions: Vec<Action<Parcel>>,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
    /// The timer that is set for the dispatcher.
    armed: Option<Instant>,
    next_worker: u32,
    next_call: u64,
}

/// Steps after which a world does not come to rest any more.
const MAX_STEPS: u64 = 400_000;

// === impl World ===

impl World {
    pub(super) fn new(scenario: Scenario, seed: u64, told: bool) -> Self {
        let mut machine = Dispatcher::new(scenario.config.clone());
        let limits = |group: usize| scenario.groups[group].handlers.iter().map(|handler| handler.limits);
        let groups = (0..scenario.groups.len()).map(|group| machine.add_group(limits(group))).collect();
        let time = Timeline::new();
        Self {
            seed,
            // Another stream of numbers than the scenario was made from.
            chance: Chance::new(!seed),
            trace: Trace::new(time.now(), told),
            time,
            machine,
            groups,
            clients: Clients::default(),
            books: Books::new(&scenario),
            shares: scenario.fair.then(|| Shares::new(&scenario)),
            actions: Vec::new(),
            tally: Tally::default(),
            armed: None,
            next_worker: 1,
            next_call: 1,
            scenario,
        }
    }

    /// Lives until nothing is left to happen, or a check does not hold.
    pub(super) fn run(mut self) -> Run {
        self.trace.note(self.time.now(), format_args!("{}", self.scenario));
        let broken: Option<Broken> = self.live().err();
        let (hash, lines) = self.trace.finish();
        Run { seed: self.seed, hash, lines, tally: self.tally, broken }
    }

    fn live(&mut self) -> Checked {
        self.plan();
        while let Some(step) = self.time.next_event() {
            self.books.turn();
            hold("a world comes to rest", self.books.step < MAX_STEPS, || format!("{step:?}"))?;
            let expired = matches!(step, Step::Expire);
            self.take(step)?;
            self.arm();
            checks::after_step(self, expired)?;
        }
        if self.shares.as_ref().is_some_and(Shares::is_telling) {
            self.tally.count("shares judged");
        }
        let refused = self.machine.retries().refused;
        (0..refused).for_each(|_| self.tally.count("retries refused"));
        checks::at_rest(self)
    }

    fn plan(&mut self) {
        for number in 0..self.scenario.crowd.arrivals {
            let at = self.arrival(number);
            self.time.plan(at, Step::Arrive);
        }
        for group in 0..self.groups.len() {
            for _ in 0..self.scenario.groups[group].workers {
                let at = self.chance.time_below(Duration::from_millis(2));
                self.time.plan(at, Step::Ready(group));
            }
        }
        self.plan_faults();
    }

    fn arrival(&mut self, number: u32) -> Duration {
        let span = self.scenario.crowd.span;
        if let Some(shares) = &self.shares {
            return shares.offset(number, span);
        }
        if self.chance.percent(self.scenario.crowd.bursts) {
            return span / 6 * u32::try_from(self.chance.below(6)).unwrap_or(0);
        }
        self.chance.time_below(span)
    }

    fn take(&mut self, step: Step) -> Checked {
        match step {
            Step::Arrive => self.arrive(),
            Step::Leave(number) => self.leave(number),
            Step::Expire => self.expire(),
            Step::Ready(group) => self.ready(group),
            Step::Receive(worker, frame) => self.receive(worker, frame),
            Step::Done(worker, call) => self.done(worker, call),
            Step::Answer(worker, reply) => self.answer(worker, reply),
            Step::Gone(worker, cause) => self.gone(worker, cause),
            Step::Thaw(worker) => self.thaw(worker),
            Step::Audit(worker, call) => checks::overrun(self, worker, call),
            quiet => {
                self.take_quietly(&quiet);
                Ok(())
            }
        }
    }

    /// The dispatcher hears nothing of these, or has nothing to say to them.
    fn take_quietly(&mut self, step: &Step) {
        match *step {
            Step::Tell(worker, call, number) => self.tell(worker, call, number),
            Step::Chunk(worker, call) => self.chunk(worker, call),
            Step::Emitted(worker, number, ticket) => self.emitted(worker, number, ticket),
            Step::Crash(worker, cause) => self.crash(worker, cause),
            Step::Kill => self.kill(),
            Step::Outage => self.outage(),
            Step::Freeze => self.freeze(),
            Step::Drain => self.drain(),
            Step::Sweep => self.sweep(),
            _ => {}
        }
    }

    /// Sets a timer for the dispatcher; it may fire late.
    fn arm(&mut self) {
        let next = self.machine.next_deadline();
        if next == self.armed {
            return;
        }
        self.armed = next;
        if let Some(at) = next {
            let late = self.chance.time_below(self.scenario.lateness);
            self.time.plan_at(at + late, Step::Expire);
        }
    }
}
