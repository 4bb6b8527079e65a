//! A dispatcher on a bench: events by name, and what it said in words.

#![allow(dead_code)] // Each test file uses a part of it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, Fingerprint, Priority, SequenceCall, SequenceId};
use anyserve_sched::{
    Action, Cause, Dispatcher, GroupId, HandlerLimits, Job, Payload, SchedConfig, Slots, Ticket, WorkerId,
};

pub(crate) const W1: WorkerId = WorkerId(1);
pub(crate) const W2: WorkerId = WorkerId(2);
pub(crate) const W3: WorkerId = WorkerId(3);
pub(crate) const SLOW: Duration = Duration::from_millis(50);
pub(crate) const QUICK: Duration = Duration::from_micros(100);

/// A request with a name; those of one letter do the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named(pub(crate) String, pub(crate) bool);

impl Payload for Named {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.0.bytes().next().unwrap_or(0).into())
    }

    fn has_emitted(&self) -> bool {
        self.1
    }
}

/// Which requests have started at their workers, as a slot table would tell.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) started: HashSet<Ticket>,
    pub(crate) recalled: RefCell<Vec<Ticket>>,
}

impl Slots for Table {
    fn has_started(&self, _: WorkerId, ticket: Ticket, _: u32) -> bool {
        self.started.contains(&ticket)
    }

    fn recall(&self, _: WorkerId, ticket: Ticket, _: u32) -> bool {
        let fresh = !self.started.contains(&ticket);
        if fresh {
            self.recalled.borrow_mut().push(ticket);
        }
        fresh
    }
}

pub(crate) struct Bench {
    pub(crate) machine: Dispatcher<Named>,
    pub(crate) group: GroupId,
    pub(crate) now: Instant,
    pub(crate) table: Table,
    pub(crate) out: Vec<Action<Named>>,
    /// Sent and not answered, in the order of sending.
    sent: Vec<Ticket>,
}

/// One call of this handler at a time, and ten that wait.
pub(crate) fn limits() -> HandlerLimits {
    HandlerLimits::new(1, 10)
}

pub(crate) fn level(number: u32) -> Priority {
    Priority::try_new(number).unwrap()
}

pub(crate) fn sequence(id: u64, start: bool, end: bool) -> SequenceCall {
    SequenceCall { id: SequenceId::Number(id), start, end }
}

impl Bench {
    pub(crate) fn new(handlers: &[HandlerLimits]) -> Self {
        Self::with(SchedConfig { max_queued_bytes: 1000, ..SchedConfig::default() }, handlers)
    }

    pub(crate) fn with(config: SchedConfig, handlers: &[HandlerLimits]) -> Self {
        let mut machine = Dispatcher::new(config);
        let group = machine.add_group(handlers.iter().copied());
        Self { machine, group, now: Instant::now(), table: Table::default(), out: Vec::new(), sent: Vec::new() }
    }

    pub(crate) fn job(&self) -> Job<'static> {
        Job { bytes: 10, ..Job::new(self.group, 0) }
    }

    pub(crate) fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.machine.expire(&self.table, self.now, &mut self.out);
        self.said()
    }

    pub(crate) fn ready(&mut self, worker: WorkerId, credits: u32) -> Vec<String> {
        self.machine.worker_ready(self.group, worker, credits, self.now, &mut self.out);
        self.said()
    }

    pub(crate) fn submit(&mut self, name: &str, job: &Job<'_>) -> Result<Ticket, Error> {
        self.machine.submit(job, Named(name.into(), false), self.now, &mut self.out).map_err(|refusal| refusal.error)
    }

    /// Submits a plain request.
    pub(crate) fn plain(&mut self, name: &str) -> Ticket {
        self.submit(name, &self.job()).unwrap()
    }

    /// Submits as many plain requests as the range is long.
    pub(crate) fn plain_times(&mut self, name: &str, times: std::ops::Range<u32>) {
        for _ in times {
            self.plain(name);
        }
    }

    pub(crate) fn due(&self, after: Duration) -> Job<'static> {
        Job { deadline: Some(self.now + after), ..self.job() }
    }

    /// The worker answers after its handler ran so long.
    pub(crate) fn finished(&mut self, worker: WorkerId, ticket: Ticket, took: Duration) -> Option<String> {
        let finished = self.machine.finished(self.group, worker, ticket, Some(took), self.now, &mut self.out);
        finished.unwrap().payload.map(|payload| payload.0)
    }

    /// The worker says that it has not run the request.
    pub(crate) fn untouched(&mut self, worker: WorkerId, ticket: Ticket) {
        self.machine.finished(self.group, worker, ticket, None, self.now, &mut self.out).unwrap();
    }

    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<String> {
        self.machine.cancel(ticket, self.now, &mut self.out).map(|payload| payload.0)
    }

    /// Nobody waits any longer.
    pub(crate) fn end_all(&mut self) -> Vec<String> {
        let [waiting, sent] = [Code::Draining, Code::WorkerLost].map(|code| Error::new(code, "it is over"));
        self.machine.end_all(&waiting, &sent, self.now, &mut self.out);
        self.said()
    }

    pub(crate) fn start(&mut self, ticket: Ticket) {
        self.table.started.insert(ticket);
    }

    pub(crate) fn dies(&mut self, worker: WorkerId, cause: Cause) -> Vec<String> {
        let started = &self.table.started;
        let had_started = |ticket, _| started.contains(&ticket);
        self.machine.worker_gone(self.group, worker, cause, had_started, self.now, &mut self.out);
        self.said()
    }

    /// The request that was sent last.
    pub(crate) fn running(&mut self) -> Ticket {
        self.said();
        *self.sent.last().unwrap()
    }

    /// Every request that was sent and is still alive.
    pub(crate) fn running_all(&mut self) -> Vec<Ticket> {
        self.said();
        let sent = std::mem::take(&mut self.sent);
        self.sent = sent.into_iter().filter(|ticket| self.machine.worker_of(*ticket).is_some()).collect();
        self.sent.clone()
    }

    /// The worker answers everything that was sent.
    pub(crate) fn answer_all(&mut self, worker: WorkerId, took: Duration) {
        for ticket in self.running_all() {
            self.finished(worker, ticket, took);
        }
    }

    fn name(&mut self, ticket: Ticket) -> String {
        self.machine.payload(ticket).map_or("nobody".into(), |payload| payload.0.clone())
    }

    /// What the machine asked for since the last time.
    pub(crate) fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for action in std::mem::take(&mut self.out) {
            said.push(match action {
                Action::Send(worker, sending) => {
                    self.sent.push(sending.ticket);
                    format!("send {} to {} attempt {}", self.name(sending.ticket), worker.0, sending.attempt)
                }
                Action::SendBatch(worker, members) => {
                    self.sent.extend(members.iter().map(|member| member.ticket));
                    let names: Vec<_> = members.iter().map(|member| self.name(member.ticket)).collect();
                    format!("send {} to {}", names.join("+"), worker.0)
                }
                Action::Withdraw { worker, .. } => format!("withdraw from {}", worker.0),
                Action::Over(over) => format!("{} over: {}", over.payload.0, over.error.code),
                Action::Replace(worker) => format!("replace {}", worker.0),
            });
        }
        said
    }
}
