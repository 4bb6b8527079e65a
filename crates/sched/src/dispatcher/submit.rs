//! A request comes.

use std::time::Instant;

use anyserve_core::Code;

use super::decide::Entry;
use super::{Action, Dispatcher, Over, Refusal, Request, State, Submitted};
use crate::queue::{Lane, Line, Place, class_of};
use crate::sequence::Turn;
use crate::timers::Timer;
use crate::{Job, Payload, Ticket};

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// A request has arrived. It goes to a worker, or waits, or is refused.
    ///
    /// # Errors
    /// `DEADLINE` if its deadline has passed, `OVERLOADED` with the expected wait if the queue is full or the wait longer
    /// than the deadline allows, `STARTING` if no worker can be ready before it, `POISON` if its fingerprint is refused,
    /// `UNAVAILABLE` if the group is down, what its group was closed with, and what its sequence says.
    pub fn submit(&mut self, job: &Job<'_>, payload: T, now: Instant, out: &mut Vec<Action<T>>) -> Submitted<T> {
        let entry = match self.decide(job, now) {
            Ok(entry) => entry,
            Err(error) => {
                if let (Code::Poison, Some(print)) = (error.code, job.fingerprint) {
                    self.quarantine.refuse(print);
                }
                return Err(Box::new(Refusal { payload, error }));
            }
        };
        self.groups[job.group.0].budget.request(now);
        let ticket = self.enter(job, payload, now);
        match entry {
            Entry::Run(worker) => {
                self.join(ticket, job, now);
                self.send_one(ticket, worker, now, out);
            }
            Entry::Wait { lane, victim } => {
                self.push_out(victim, now, out);
                self.wait(ticket, job, lane, now, out);
            }
            Entry::Behind { victim } => {
                self.push_out(victim, now, out);
                self.join(ticket, job, now);
                let waiting = self.requests[ticket.index()].waiting();
                self.groups[job.group.0].queue.hold(&waiting);
                // The victim may have been what others of its sequence waited for.
                self.fill(job.group, now, out);
            }
        }
        Ok(ticket)
    }

    fn enter(&mut self, job: &Job<'_>, payload: T, now: Instant) -> Ticket {
        self.serial += 1;
        let entry = self.requests.vacant_entry();
        let ticket = Ticket::new(self.serial, entry.key());
        entry.insert(Request {
            ticket,
            group: job.group,
            handler: job.handler,
            deadline: job.deadline,
            arrived: now,
            bytes: job.bytes,
            level: job.priority.index(),
            tenant: (!job.tenant.is_empty()).then(|| job.tenant.into()),
            batch: job.batch,
            lane: Lane::Any,
            sequence: None,
            fingerprint: job.fingerprint,
            attempts: 0,
            deaths: 0,
            state: State::Behind(payload),
        });
        if let Some(deadline) = job.deadline {
            self.timers.add(deadline, Timer::Deadline(ticket));
            self.sweep_timers();
        }
        ticket
    }

    fn sweep_timers(&mut self) {
        let workers: usize = self.groups.iter().map(|group| group.workers.len() + 1).sum();
        let requests = &self.requests;
        let is_live = |ticket: Ticket| requests.get(ticket.index()).is_some_and(|request| request.ticket == ticket);
        self.timers.sweep(requests.len() + self.sequences.len() + workers, is_live);
    }

    /// The request waits in its lane.
    fn wait(&mut self, ticket: Ticket, job: &Job<'_>, lane: Lane, now: Instant, out: &mut Vec<Action<T>>) {
        self.requests[ticket.index()].lane = lane;
        self.join(ticket, job, now);
        self.queue(ticket, now);
        self.fill(job.group, now, out);
    }

    /// The request joins its sequence, if its handler keeps sequences: at its head, or behind others.
    fn join(&mut self, ticket: Ticket, job: &Job<'_>, now: Instant) {
        let keeps = self.groups[job.group.0].rows[job.handler].limits.sequence;
        let Some(call) = job.sequence.filter(|_| keeps) else { return };
        let joined = self.sequences.join((job.group, job.handler, call.id.clone()), call, ticket, now);
        if joined.new {
            self.timers.add(now + self.sequences.idle(), Timer::Idle(self.sequences.handle(joined.number)));
        }
        let request = &mut self.requests[ticket.index()];
        request.sequence = Some(joined.number);
        if let Turn::Now(Some(worker)) = joined.turn {
            request.lane = Lane::Bound(worker);
        }
    }

    /// Puts a request that is nowhere into the queue.
    pub(super) fn queue(&mut self, ticket: Ticket, now: Instant) {
        let request = &mut self.requests[ticket.index()];
        let group = &mut self.groups[request.group.0];
        let place = Place {
            level: request.level,
            tenant: group.queue.tenant(request.level, request.tenant()),
            line: Line { handler: request.handler, lane: request.lane },
            rank: request.rank(),
            // One that killed a worker, and one that was sent before, go by themselves.
            batch: request.batch.filter(|_| request.lane == Lane::Any && request.deaths == 0),
            work: group.rows[request.handler].request.average().unwrap_or_default(),
            class: class_of(request.deadline, now),
            bytes: request.bytes,
        };
        request.state = match std::mem::replace(&mut request.state, State::Between) {
            State::Behind(payload) | State::Queued(payload, _) | State::Sent(payload, _) => {
                group.queue.push(&place);
                State::Queued(payload, place)
            }
            other => other,
        };
    }

    /// A request that is worth less gives up its place in a full queue.
    fn push_out(&mut self, victim: Option<Ticket>, now: Instant, out: &mut Vec<Action<T>>) {
        let Some(ticket) = victim else { return };
        let Some(request) = self.known(ticket) else { return };
        let retry_after = self.groups[request.group.0].wait_behind(request.handler, request_work(request), now);
        let message = "the queue is full, and a request of a stricter priority or of a tenant with less took its place";
        let error = anyserve_core::Error::new(Code::Overloaded, message);
        let error = error.with_retry_after(retry_after.max(std::time::Duration::from_millis(1)));
        if let Some((payload, attempts)) = self.leave(ticket, now) {
            out.push(Action::Over(Over { ticket, payload, error, attempts }));
        }
    }
}

fn request_work<T>(request: &Request<T>) -> std::time::Duration {
    match &request.state {
        State::Queued(_, place) => place.work,
        _ => std::time::Duration::ZERO,
    }
}
