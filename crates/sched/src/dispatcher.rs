//! The dispatcher: which request goes to which worker, and which is refused, expired, cancelled or lost.

use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};
use slab::Slab;

use crate::deadlines::Deadlines;
use crate::group::Group;
use crate::{GroupId, GroupLoad, HandlerLimits, Ticket, WorkerId};

/// Attempts that a request gets when its workers die before its handler started.
const MAX_ATTEMPTS: u32 = 3;

/// A request as the dispatcher needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The group that serves it.
    pub group: GroupId,
    /// Its handler's place in the group's table.
    pub handler: usize,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// Bytes that it holds while it waits.
    pub bytes: usize,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action<T> {
    /// Send the request to the worker; its payload is in the dispatcher.
    Send {
        /// The request.
        ticket: Ticket,
        /// Where it goes.
        worker: WorkerId,
        /// Its place in the worker's slot table.
        slot: u32,
        /// 1 for the first time.
        attempt: u32,
    },
    /// Take the request back from the worker, or stop its handler. The caller is answered already.
    Withdraw {
        /// The request.
        ticket: Ticket,
        /// Where it is.
        worker: WorkerId,
        /// Its place in the worker's slot table.
        slot: u32,
    },
    /// The request is over without an answer: tell its caller.
    Over(Over<T>),
}

/// A request that ended without an answer.
#[derive(Debug)]
pub struct Over<T> {
    /// The request.
    pub ticket: Ticket,
    /// What was submitted with it.
    pub payload: T,
    /// Why.
    pub error: Error,
}

/// A request that was not accepted, with what was to be submitted.
#[derive(Debug)]
pub struct Refusal<T> {
    /// What was to be submitted.
    pub payload: T,
    /// Why it was not.
    pub error: Error,
}

/// A request that its worker has answered for.
#[derive(Debug)]
pub struct Finished<T> {
    /// What was submitted with it, unless its caller had left or was answered before.
    pub payload: Option<T>,
    /// The slot that is free again.
    pub slot: u32,
}

/// What [`Dispatcher::submit`] says.
pub type Submitted<T> = Result<Ticket, Box<Refusal<T>>>;

/// The state machine. `T` is whatever the shell keeps with a request until it is over.
#[derive(Debug)]
pub struct Dispatcher<T> {
    groups: Vec<Group>,
    requests: Slab<Request<T>>,
    deadlines: Deadlines,
    sequence: u64,
    max_queued_bytes: usize,
}

#[derive(Debug)]
struct Request<T> {
    ticket: Ticket,
    job: Job,
    state: State<T>,
    attempts: u32,
}

#[derive(Debug)]
enum State<T> {
    Queued(T),
    Sent(T, WorkerId),
    /// Its caller is answered or has left; its worker is still at it.
    Abandoned,
}

// === impl Dispatcher ===

impl<T> Dispatcher<T> {
    /// A dispatcher without groups; each group may hold so many bytes of waiting requests.
    pub fn new(max_queued_bytes: usize) -> Self {
        Self {
            groups: Vec::new(),
            requests: Slab::new(),
            deadlines: Deadlines::default(),
            sequence: 0,
            max_queued_bytes,
        }
    }

    /// Adds a group with these handlers.
    pub fn add_group(&mut self, handlers: impl IntoIterator<Item = HandlerLimits>) -> GroupId {
        self.groups.push(Group::new(handlers));
        GroupId(self.groups.len() - 1)
    }

    /// A request has arrived. It goes to a worker, or waits, or is refused.
    ///
    /// # Errors
    /// `DEADLINE` if its deadline has passed, `OVERLOADED` with the expected wait if the queue is full, `UNAVAILABLE` if
    /// the group is down.
    pub fn submit(&mut self, job: Job, payload: T, now: Instant, out: &mut Vec<Action<T>>) -> Submitted<T> {
        if let Err(error) = self.admit(&job, now) {
            return Err(Box::new(Refusal { payload, error }));
        }
        let ticket = self.enter(job, payload);
        let group = &mut self.groups[job.group.0];
        let first = group.handlers[job.handler].waiting.is_empty();
        if let Some(worker) = first.then(|| group.choose_worker(job.handler)).flatten() {
            self.send(ticket, worker, out);
            return Ok(ticket);
        }
        group.handlers[job.handler].waiting.push_back(ticket);
        group.queued_bytes += job.bytes;
        Ok(ticket)
    }

    fn admit(&self, job: &Job, now: Instant) -> Result<(), Error> {
        if job.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Error::new(Code::Deadline, "the deadline passed before the request was queued"));
        }
        let group = &self.groups[job.group.0];
        if group.down {
            let message = "no worker is running and those that were started died; see the log for why";
            return Err(Error::new(Code::Unavailable, message).with_retry_after(Duration::from_secs(1)));
        }
        let (waiting, most) = (group.handlers[job.handler].waiting.len(), group.handlers[job.handler].limits.max_queue);
        let bytes = group.queued_bytes.saturating_add(job.bytes);
        let full = waiting >= most || self.requests.len() >= Ticket::MAX_LIVE;
        if full || (waiting > 0 && bytes > self.max_queued_bytes) {
            let message = format!("the queue is full: {waiting} of {most} requests, {} bytes", group.queued_bytes);
            let wait = group.expected_wait().max(Duration::from_millis(1));
            return Err(Error::new(Code::Overloaded, message).with_retry_after(wait));
        }
        Ok(())
    }

    fn enter(&mut self, job: Job, payload: T) -> Ticket {
        self.sequence += 1;
        let entry = self.requests.vacant_entry();
        let ticket = Ticket::new(self.sequence, entry.key());
        entry.insert(Request { ticket, job, state: State::Queued(payload), attempts: 0 });
        if let Some(deadline) = job.deadline {
            self.deadlines.add(deadline, ticket);
            let requests = &self.requests;
            self.deadlines.sweep(requests.len(), |ticket| is_live(requests, ticket));
        }
        ticket
    }

    /// The payload of a request whose caller still waits.
    pub fn payload(&mut self, ticket: Ticket) -> Option<&mut T> {
        match &mut self.live(ticket)?.state {
            State::Queued(payload) | State::Sent(payload, _) => Some(payload),
            State::Abandoned => None,
        }
    }

    /// The worker that a request is with, while its caller waits.
    pub fn worker_of(&self, ticket: Ticket) -> Option<WorkerId> {
        let request = self.requests.get(ticket.index()).filter(|request| request.ticket == ticket)?;
        match request.state {
            State::Sent(_, worker) => Some(worker),
            State::Queued(_) | State::Abandoned => None,
        }
    }

    /// When the request's caller stops waiting.
    pub fn deadline(&self, ticket: Ticket) -> Option<Instant> {
        let request = self.requests.get(ticket.index()).filter(|request| request.ticket == ticket);
        request.and_then(|request| request.job.deadline)
    }

    /// The worker has answered for a request, with the time that its handler took if it ran. Its credit is free.
    ///
    /// # Errors
    /// [`UnknownRequest`] if the worker does not have this request: it lies.
    pub fn finished(
        &mut self,
        worker: WorkerId,
        ticket: Ticket,
        took: Option<Duration>,
        out: &mut Vec<Action<T>>,
    ) -> Result<Finished<T>, UnknownRequest> {
        let unknown = UnknownRequest { ticket, worker };
        let job = self.live(ticket).ok_or(unknown)?.job;
        let group = &mut self.groups[job.group.0];
        let slot = group.worker(worker).and_then(|worker| worker.give_back(ticket)).ok_or(unknown)?;
        if let Some(took) = took {
            group.handlers[job.handler].time.observe(took);
        }
        let payload = match self.requests.remove(ticket.index()).state {
            State::Queued(payload) | State::Sent(payload, _) => Some(payload),
            State::Abandoned => None,
        };
        self.fill(job.group, out);
        Ok(Finished { payload, slot })
    }

    /// The caller has left. A request that is with a worker is withdrawn from there.
    ///
    /// Returns the payload if the caller had not been answered yet.
    pub fn cancel(&mut self, ticket: Ticket, out: &mut Vec<Action<T>>) -> Option<T> {
        let request = self.live(ticket)?;
        let group = request.job.group;
        match std::mem::replace(&mut request.state, State::Abandoned) {
            State::Queued(payload) => {
                self.leave_queue(ticket);
                Some(payload)
            }
            State::Sent(payload, id) => {
                let slot = self.groups[group.0].worker(id).and_then(|worker| worker.slot_of(ticket));
                let withdraw = |slot| Action::Withdraw { ticket, worker: id, slot };
                out.extend(slot.map(withdraw));
                Some(payload)
            }
            State::Abandoned => None,
        }
    }

    fn leave_queue(&mut self, ticket: Ticket) {
        let job = self.requests.remove(ticket.index()).job;
        let group = &mut self.groups[job.group.0];
        let waiting = &mut group.handlers[job.handler].waiting;
        if let Ok(place) = waiting.binary_search_by_key(&ticket.sequence(), |other| other.sequence()) {
            waiting.remove(place);
            group.queued_bytes -= job.bytes;
        }
    }

    /// The soonest instant at which [`expire`](Self::expire) may have something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.soonest()
    }

    /// Ends every request whose deadline has come.
    pub fn expire(&mut self, now: Instant, out: &mut Vec<Action<T>>) {
        while let Some(ticket) = self.deadlines.pop_due(now) {
            let queued = matches!(self.live(ticket).map(|request| &request.state), Some(State::Queued(_)));
            let Some(payload) = self.cancel(ticket, out) else { continue };
            let place = if queued { "in the queue" } else { "at its worker" };
            let error = Error::new(Code::Deadline, format!("the deadline passed {place}"));
            out.push(Action::Over(Over { ticket, payload, error }));
        }
    }

    /// A worker takes requests from now on; it runs `credits` at the same time.
    pub fn worker_ready(&mut self, group: GroupId, worker: WorkerId, credits: u32, out: &mut Vec<Action<T>>) {
        self.groups[group.0].add_worker(worker, credits);
        self.fill(group, out);
    }

    /// A worker takes no more requests but finishes what it has.
    pub fn worker_draining(&mut self, group: GroupId, worker: WorkerId) {
        if let Some(worker) = self.groups[group.0].worker(worker) {
            worker.draining = true;
        }
    }

    /// A worker is dead. What had started there is lost; what had not is queued again, before all others.
    ///
    /// `started` tells of a request and its slot whether its handler had started.
    pub fn worker_gone(
        &mut self,
        group: GroupId,
        worker: WorkerId,
        started: impl Fn(Ticket, u32) -> bool,
        out: &mut Vec<Action<T>>,
    ) {
        let Some(dead) = self.groups[group.0].remove_worker(worker) else { return };
        let held: Vec<_> = dead.held().collect();
        for held in held {
            self.outlive(held.ticket, started(held.ticket, held.slot), out);
        }
        self.fill(group, out);
    }

    fn outlive(&mut self, ticket: Ticket, started: bool, out: &mut Vec<Action<T>>) {
        let Some(request) = self.live(ticket) else { return };
        let (job, again) = (request.job, !started && request.attempts < MAX_ATTEMPTS);
        match std::mem::replace(&mut request.state, State::Abandoned) {
            State::Sent(payload, _) if again => {
                request.state = State::Queued(payload);
                let group = &mut self.groups[job.group.0];
                let waiting = &mut group.handlers[job.handler].waiting;
                let place = waiting.partition_point(|other| other.sequence() < ticket.sequence());
                waiting.insert(place, ticket);
                group.queued_bytes += job.bytes;
            }
            State::Sent(payload, _) | State::Queued(payload) => {
                self.requests.remove(ticket.index());
                out.push(Action::Over(Over { ticket, payload, error: lost(started) }));
            }
            State::Abandoned => {
                self.requests.remove(ticket.index());
            }
        }
    }

    /// No worker of this group is there and none is expected soon: whatever waits is over, whatever comes is refused,
    /// until a worker is ready.
    pub fn group_down(&mut self, group: GroupId, error: &Error, out: &mut Vec<Action<T>>) {
        self.groups[group.0].down = true;
        self.groups[group.0].queued_bytes = 0;
        let waiting: Vec<_> =
            self.groups[group.0].handlers.iter_mut().flat_map(|queue| queue.waiting.drain(..)).collect();
        for ticket in waiting {
            if let State::Queued(payload) = self.requests.remove(ticket.index()).state {
                out.push(Action::Over(Over { ticket, payload, error: error.clone() }));
            }
        }
    }

    /// The load of a group.
    pub fn load(&self, group: GroupId) -> GroupLoad {
        self.groups[group.0].load()
    }

    /// Requests that are not over, and those that still hold a worker's credit.
    pub fn live_requests(&self) -> usize {
        self.requests.len()
    }

    fn fill(&mut self, group: GroupId, out: &mut Vec<Action<T>>) {
        while let Some((ticket, worker)) = self.groups[group.0].next_send() {
            let job = self.requests[ticket.index()].job;
            let group = &mut self.groups[group.0];
            group.handlers[job.handler].waiting.pop_front();
            group.queued_bytes -= job.bytes;
            self.send(ticket, worker, out);
        }
    }

    fn send(&mut self, ticket: Ticket, worker: WorkerId, out: &mut Vec<Action<T>>) {
        let request = &mut self.requests[ticket.index()];
        request.attempts += 1;
        let (job, attempt) = (request.job, request.attempts);
        request.state = match std::mem::replace(&mut request.state, State::Abandoned) {
            State::Queued(payload) | State::Sent(payload, _) => State::Sent(payload, worker),
            State::Abandoned => State::Abandoned,
        };
        let group = &mut self.groups[job.group.0];
        let expected = group.handlers[job.handler].time.average().unwrap_or_default();
        let chosen = group.worker(worker).expect("chosen a moment ago");
        let slot = chosen.take(ticket, job.handler, expected);
        out.push(Action::Send { ticket, worker, slot, attempt });
    }

    fn live(&mut self, ticket: Ticket) -> Option<&mut Request<T>> {
        self.requests.get_mut(ticket.index()).filter(|request| request.ticket == ticket)
    }
}

/// A worker answered for a request that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRequest {
    /// What it answered for.
    pub ticket: Ticket,
    /// Who it was.
    pub worker: WorkerId,
}

fn is_live<T>(requests: &Slab<Request<T>>, ticket: Ticket) -> bool {
    requests.get(ticket.index()).is_some_and(|request| request.ticket == ticket)
}

fn lost(started: bool) -> Error {
    let message = if started {
        "the worker died while it ran this request"
    } else {
        "every worker that got this request died before it ran"
    };
    Error::new(Code::WorkerLost, message)
}
