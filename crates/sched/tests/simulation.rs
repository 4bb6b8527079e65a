//! The dispatcher with simulated workers and clients, in simulated time, from a seed.
//!
//! Workers run requests in the order in which they got them, so many at a time as they have credits; they are killed,
//! replaced and drained; clients leave, and set deadlines that pass. After every step the invariants are checked.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};
use anyserve_sched::{Action, Dispatcher, GroupId, HandlerLimits, Job, Ticket, WorkerId};
use anyserve_testkit::{Chance, Timeline};

const HANDLERS: [HandlerLimits; 3] = [
    HandlerLimits { concurrency: 1, max_queue: 20 },
    HandlerLimits { concurrency: 3, max_queue: 40 },
    HandlerLimits { concurrency: 8, max_queue: 5 },
];
const CREDITS: u32 = 6;
const MAX_BYTES: usize = 10_000;
const ARRIVALS: usize = 400;

#[derive(Clone, Copy)]
enum Step {
    Arrive,
    Leave(Ticket),
    Expire,
    Done(WorkerId, Ticket),
    Kill,
    Drain,
    Start,
}

/// A simulated worker process.
#[derive(Default)]
struct Process {
    /// Received and not started, in order.
    inbox: Vec<(Ticket, usize)>,
    /// Started and not answered.
    running: Vec<(Ticket, usize)>,
    recalled: HashSet<Ticket>,
}

struct Client {
    deadline: Option<Instant>,
    handler: usize,
    endings: u32,
    starts: u32,
}

struct World {
    chance: Chance,
    time: Timeline<Step>,
    machine: Dispatcher<u64>,
    group: GroupId,
    processes: HashMap<WorkerId, Process>,
    clients: HashMap<u64, Client>,
    numbers: HashMap<Ticket, u64>,
    next_worker: u32,
    actions: Vec<Action<u64>>,
    lost_after_start: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut machine = Dispatcher::new(MAX_BYTES);
        let group = machine.add_group(HANDLERS);
        let mut world = Self {
            chance: Chance::new(seed),
            time: Timeline::new(),
            machine,
            group,
            processes: HashMap::new(),
            clients: HashMap::new(),
            numbers: HashMap::new(),
            next_worker: 1,
            actions: Vec::new(),
            lost_after_start: 0,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let span = Duration::from_millis(200);
        for _ in 0..ARRIVALS {
            let at = self.chance.time_below(span);
            self.time.plan(at, Step::Arrive);
        }
        for _ in 0..3 {
            let at = self.chance.time_below(span / 4);
            self.time.plan(at, Step::Start);
        }
        for step in [Step::Kill, Step::Kill, Step::Drain] {
            let at = self.chance.time_below(span);
            self.time.plan(at, step);
            self.time.plan(at + Duration::from_millis(5), Step::Start);
        }
        // One worker that lives to the end, so that everything can end.
        self.time.plan(span * 2, Step::Start);
    }

    fn run(mut self) -> Self {
        while let Some(step) = self.time.next_event() {
            self.step(step);
            self.perform();
            self.check();
        }
        self
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive => self.arrive(),
            Step::Leave(ticket) => {
                let left = self.machine.cancel(ticket, &mut self.actions);
                if let Some(number) = left {
                    self.ended(number);
                }
            }
            Step::Expire => self.machine.expire(self.time.now(), &mut self.actions),
            Step::Done(worker, ticket) => self.done(worker, ticket),
            Step::Kill => self.kill(),
            Step::Drain => {
                if let Some(worker) = self.any_worker() {
                    self.machine.worker_draining(self.group, worker);
                }
            }
            Step::Start => self.start(),
        }
    }

    fn arrive(&mut self) {
        let number = self.clients.len() as u64 + 1;
        let handler = usize::try_from(self.chance.below(HANDLERS.len() as u64)).unwrap();
        let patience = self.chance.time_below(Duration::from_millis(60));
        let deadline = self.chance.percent(50).then(|| self.time.now() + patience);
        let bytes = usize::try_from(self.chance.below(900)).unwrap();
        let job = Job { group: self.group, handler, deadline, bytes };
        self.clients.insert(number, Client { deadline, handler, endings: 0, starts: 0 });
        match self.machine.submit(job, number, self.time.now(), &mut self.actions) {
            Ok(ticket) => {
                self.numbers.insert(ticket, number);
                if let Some(at) = deadline {
                    self.time.plan_at(at, Step::Expire);
                }
                if self.chance.percent(15) {
                    let after = self.chance.time_below(Duration::from_millis(20));
                    self.time.plan(after, Step::Leave(ticket));
                }
            }
            Err(refusal) => {
                assert!(matches!(refusal.error.code, Code::Overloaded | Code::Deadline), "{}", refusal.error);
                self.ended(refusal.payload);
            }
        }
    }

    fn start(&mut self) {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.processes.insert(worker, Process::default());
        self.machine.worker_ready(self.group, worker, CREDITS, &mut self.actions);
    }

    fn any_worker(&mut self) -> Option<WorkerId> {
        let mut workers: Vec<_> = self.processes.keys().copied().collect();
        workers.sort_unstable();
        if workers.is_empty() { None } else { Some(*self.chance.pick(&workers)) }
    }

    fn kill(&mut self) {
        let Some(worker) = self.any_worker() else { return };
        let process = self.processes.remove(&worker).unwrap();
        let started: HashSet<_> = process.running.iter().map(|(ticket, _)| *ticket).collect();
        self.machine.worker_gone(self.group, worker, |ticket, _| started.contains(&ticket), &mut self.actions);
    }

    fn done(&mut self, worker: WorkerId, ticket: Ticket) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.running.retain(|(other, _)| *other != ticket);
        self.answer(worker, ticket, Some(Duration::from_micros(300)));
        self.work(worker);
    }

    fn answer(&mut self, worker: WorkerId, ticket: Ticket, took: Option<Duration>) {
        let finished = self.machine.finished(worker, ticket, took, &mut self.actions);
        let finished = finished.expect("the worker has this request");
        if let Some(number) = finished.payload {
            self.ended(number);
        }
    }

    /// Starts what the worker's lanes have room for.
    fn work(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let mut skipped = Vec::new();
        while process.running.len() < usize::try_from(CREDITS).unwrap() && !process.inbox.is_empty() {
            let (ticket, handler) = process.inbox.remove(0);
            if process.recalled.remove(&ticket) {
                skipped.push(ticket);
                continue;
            }
            process.running.push((ticket, handler));
            let client = self.clients.get_mut(&self.numbers[&ticket]).unwrap();
            client.starts += 1;
            assert!(client.deadline.is_none_or(|deadline| self.time.now() <= deadline), "started after its deadline");
            let takes = Duration::from_micros(50) + self.chance.time_below(Duration::from_millis(4));
            self.time.plan(takes, Step::Done(worker, ticket));
        }
        for ticket in skipped {
            self.answer(worker, ticket, None);
        }
    }

    fn perform(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Send { ticket, worker, .. } => {
                        let handler = self.clients[&self.numbers[&ticket]].handler;
                        self.processes.get_mut(&worker).expect("alive").inbox.push((ticket, handler));
                        self.work(worker);
                    }
                    Action::Withdraw { ticket, worker, .. } => self.withdraw(worker, ticket),
                    Action::Over(over) => {
                        self.count_loss(&over.error);
                        self.ended(over.payload);
                    }
                }
            }
        }
    }

    fn withdraw(&mut self, worker: WorkerId, ticket: Ticket) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if process.inbox.iter().any(|(other, _)| *other == ticket) {
            process.recalled.insert(ticket);
        }
    }

    fn count_loss(&mut self, error: &Error) {
        assert!(matches!(error.code, Code::WorkerLost | Code::Deadline | Code::Unavailable), "{error}");
        self.lost_after_start += u32::from(error.code == Code::WorkerLost);
    }

    fn ended(&mut self, number: u64) {
        let client = self.clients.get_mut(&number).unwrap();
        client.endings += 1;
        assert_eq!(client.endings, 1, "request {number} ended twice");
    }

    fn check(&self) {
        for (worker, process) in &self.processes {
            assert!(process.running.len() <= usize::try_from(CREDITS).unwrap(), "{worker:?} runs too many");
        }
        let most: usize = HANDLERS.iter().map(|handler| handler.max_queue).sum();
        // Requests that come back from a dead worker may stand beyond the limit for a while.
        assert!(self.machine.load(self.group).queued <= most + 200);
    }
}

#[test]
fn every_request_ends_exactly_once_whatever_dies() {
    let mut lost = 0;
    for seed in 0..300 {
        let world = World::new(seed).run();
        for (number, client) in &world.clients {
            assert_eq!(client.endings, 1, "seed {seed}: request {number} never ended");
            assert!(client.starts <= 1, "seed {seed}: request {number} ran {} times", client.starts);
        }
        assert_eq!(world.machine.live_requests(), 0, "seed {seed}: requests are left");
        assert_eq!(world.machine.load(world.group).queued, 0, "seed {seed}: the queue is not empty");
        lost += world.lost_after_start;
    }
    assert!(lost > 0, "the storm was none: no seed lost a started request");
}
