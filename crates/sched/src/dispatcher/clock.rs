//! Time passes.

use std::collections::BTreeSet;
use std::time::Instant;

use anyserve_core::{Code, Error};

use super::{Action, Dispatcher, Over, State};
use crate::timers::Timer;
use crate::worker::STALL;
use crate::{GroupId, Payload, Ticket, WorkerId};

/// What the shell can say of a request that is with a worker, by the worker's slot table.
pub trait Slots {
    /// Whether the request's handler has started.
    fn has_started(&self, worker: WorkerId, ticket: Ticket, slot: u32) -> bool;

    /// Takes a request back whose handler has not started. False if it has.
    fn recall(&self, worker: WorkerId, ticket: Ticket, slot: u32) -> bool;
}

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// The soonest instant at which [`expire`](Self::expire) may have something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.soonest()
    }

    /// Does whatever is due. Nothing is sent before all of it is done, so that nothing is both sent and taken back.
    pub fn expire(&mut self, slots: &impl Slots, now: Instant, out: &mut Vec<Action<T>>) {
        let mut touched = BTreeSet::new();
        while let Some(timer) = self.timers.pop_due(now) {
            touched.extend(self.is_due(timer, slots, now, out));
        }
        for group in touched {
            self.fill(group, now, out);
        }
    }

    /// Does what a timer was for. Returns the group in which something may be sent now.
    fn is_due(&mut self, timer: Timer, slots: &impl Slots, now: Instant, out: &mut Vec<Action<T>>) -> Option<GroupId> {
        match timer {
            Timer::Deadline(ticket) => self.deadline_passed(ticket, slots, now, out),
            Timer::Overrun(ticket) => {
                self.overran(ticket, slots, now, out);
                None
            }
            Timer::Batch(group) => {
                self.groups[group.0].batch_timer = None;
                Some(group)
            }
            Timer::Stall(group, worker) => {
                self.look_after(group, worker, slots, now);
                Some(group)
            }
            Timer::Idle(handle) => {
                if let Some(again) = self.sequences.expire(handle, now) {
                    self.timers.add(again, Timer::Idle(handle));
                }
                None
            }
        }
    }

    fn deadline_passed(
        &mut self,
        ticket: Ticket,
        slots: &impl Slots,
        now: Instant,
        out: &mut Vec<Action<T>>,
    ) -> Option<GroupId> {
        let request = self.known(ticket)?;
        let (group, attempts) = (request.group, request.attempts);
        let place = self.where_is(ticket, slots);
        let over = |payload| Action::Over(Over { ticket, payload, error: late(place), attempts });
        if let Some((payload, _)) = self.leave(ticket, now) {
            out.push(over(payload));
            return Some(group);
        }
        let payload = self.abandon(ticket, out);
        out.extend(payload.map(over));
        // Its handler has been told to stop; also one whose caller left before.
        self.timers.add(now + self.config.overrun_grace, Timer::Overrun(ticket));
        None
    }

    fn where_is(&self, ticket: Ticket, slots: &impl Slots) -> &'static str {
        match self.known(ticket).map(|request| &request.state) {
            Some(State::Sent(payload, _)) if payload.has_emitted() => "while its handler streamed",
            Some(State::Sent(..)) if self.started_at(ticket, slots).is_some() => "while its handler ran",
            Some(State::Sent(..)) => "before its handler started",
            _ => "in the queue",
        }
    }

    /// The worker where a request's handler has started.
    fn started_at(&self, ticket: Ticket, slots: &impl Slots) -> Option<WorkerId> {
        let request = self.known(ticket)?;
        let (State::Sent(_, id) | State::Abandoned(id)) = request.state else { return None };
        let worker = self.groups[request.group.0].workers.iter().find(|worker| worker.id == id)?;
        slots.has_started(id, ticket, worker.slot_of(ticket)?).then_some(id)
    }

    /// A handler has not stopped although it was told to: its worker is replaced. One that never started harms nobody, and
    /// a call that somebody else in the batch may still wait for goes on.
    fn overran(&mut self, ticket: Ticket, slots: &impl Slots, now: Instant, out: &mut Vec<Action<T>>) {
        let Some(id) = self.started_at(ticket, slots) else { return };
        if self.is_shared(ticket, id, now) {
            self.timers.add(now + self.config.overrun_grace, Timer::Overrun(ticket));
        } else {
            out.push(Action::Replace(id));
        }
    }

    /// Whether another request of the same call is within its own time.
    fn is_shared(&self, ticket: Ticket, id: WorkerId, now: Instant) -> bool {
        let group = self.known(ticket).map(|request| &self.groups[request.group.0]);
        let worker = group.and_then(|group| group.workers.iter().find(|worker| worker.id == id));
        let in_time = |ticket| {
            let Some(request) = self.known(ticket) else { return false };
            let waits = matches!(request.state, State::Sent(..));
            request.deadline.map_or(waits, |deadline| deadline + self.config.overrun_grace > now)
        };
        worker.is_some_and(|worker| worker.mates_of(ticket).any(in_time))
    }

    /// Takes back what waits in a stuck worker's socket.
    fn look_after(&mut self, id: GroupId, worker: WorkerId, slots: &impl Slots, now: Instant) {
        let Some(own) = self.groups[id.0].worker(worker) else { return };
        own.watched = false;
        if !own.has_prefetched() {
            return;
        }
        let moved = own.last_answer.is_some_and(|last| now.saturating_duration_since(last) < STALL);
        if !moved {
            own.stalled = true;
            self.take_back(id, worker, slots, now);
        }
        if let Some(own) = self.groups[id.0].worker(worker).filter(|own| own.has_prefetched() && !own.stalled) {
            own.watched = true;
            self.timers.add(now + STALL, Timer::Stall(id, worker));
        }
    }

    fn take_back(&mut self, id: GroupId, worker: WorkerId, slots: &impl Slots, now: Instant) {
        // Nobody else takes it in a group that is closed.
        let open = self.groups[id.0].closed.is_none();
        let Some(own) = self.groups[id.0].worker(worker).filter(|_| open) else { return };
        let held: Vec<_> = own.requests().filter(|held| !held.recalled).collect();
        for held in held {
            let movable = self.known(held.ticket).is_some_and(|request| {
                request.sequence.is_none() && matches!(request.state, State::Sent(_, at) if at == worker)
            });
            if movable && slots.recall(worker, held.ticket, held.slot) {
                if let Some(own) = self.groups[id.0].worker(worker) {
                    own.recall(held.ticket);
                }
                self.queue(held.ticket, now);
            }
        }
    }
}

/// The error of a request whose deadline passed in this place.
pub(super) fn late(place: &str) -> Error {
    Error::new(Code::Deadline, format!("the deadline passed {place}"))
}
