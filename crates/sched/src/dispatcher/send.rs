//! Requests go to workers.

use std::time::Instant;

use anyserve_core::Fingerprint;

use super::clock::late;
use super::decide::poison;
use super::{Action, Dispatcher, Over, Sending, State};
use crate::quarantine::Standing;
use crate::queue::{Lane, Line, Opening};
use crate::timers::Timer;
use crate::worker::STALL;
use crate::{GroupId, Payload, Ticket, WorkerId};

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// Sends whatever a worker can take, in the order of the queue.
    pub(super) fn fill(&mut self, group: GroupId, now: Instant, out: &mut Vec<Action<T>>) {
        self.end_fallen(now, out);
        loop {
            self.groups[group.0].reserve();
            let Some((ticket, worker)) = self.next_send(group, now) else { return };
            if self.end_if_overdue(ticket, now, out) || self.set_apart(ticket, now, out) {
                continue;
            }
            match self.requests[ticket.index()].batch {
                Some(batch) if self.is_batched(ticket) => self.send_batch(ticket, batch, worker, now, out),
                _ => self.send_queued(ticket, worker, now, out),
            }
        }
    }

    /// Ends a request whose deadline has passed although its timer has not fired yet: it must not start.
    fn end_if_overdue(&mut self, ticket: Ticket, now: Instant, out: &mut Vec<Action<T>>) -> bool {
        let overdue = self.deadline(ticket).is_some_and(|deadline| deadline <= now);
        if overdue && let Some((payload, attempts)) = self.leave(ticket, now) {
            let error = late("in the queue");
            out.push(Action::Over(Over { ticket, payload, error, attempts }));
            self.end_fallen(now, out);
        }
        overdue
    }

    /// Judges a request that came before something was held against its like: it ends, or it will run alone.
    fn set_apart(&mut self, ticket: Ticket, now: Instant, out: &mut Vec<Action<T>>) -> bool {
        if self.quarantine.is_empty() {
            return false;
        }
        let request = &mut self.requests[ticket.index()];
        let State::Queued(payload, _) = &request.state else { return false };
        let print = *request.fingerprint.get_or_insert_with(|| payload.fingerprint());
        let alone = request.lane != Lane::Any || request.sequence.is_some();
        match self.quarantine.standing(print, now) {
            Standing::Refused => self.end_poisonous(ticket, print, now, out),
            Standing::Suspect if !alone => self.queue_alone(ticket, now),
            Standing::Clean | Standing::Suspect => return false,
        }
        true
    }

    fn end_poisonous(&mut self, ticket: Ticket, print: Fingerprint, now: Instant, out: &mut Vec<Action<T>>) {
        self.quarantine.refuse(print);
        if let Some((payload, attempts)) = self.leave(ticket, now) {
            out.push(Action::Over(Over { ticket, payload, error: poison(Some(print)), attempts }));
            self.end_fallen(now, out);
        }
    }

    fn queue_alone(&mut self, ticket: Ticket, now: Instant) {
        let request = &mut self.requests[ticket.index()];
        request.lane = Lane::Alone;
        if let State::Queued(_, place) = &request.state {
            self.groups[request.group.0].queue.remove(place);
        }
        self.queue(ticket, now);
    }

    fn is_batched(&self, ticket: Ticket) -> bool {
        matches!(&self.requests[ticket.index()].state, State::Queued(_, place) if place.batch.is_some())
    }

    fn next_send(&mut self, id: GroupId, now: Instant) -> Option<(Ticket, WorkerId)> {
        let group = &self.groups[id.0];
        if group.queue.total() == 0 {
            return None;
        }
        let mut held = None;
        let next = group.queue.next(|line, head| {
            let (opening, until) = self.opening(line, head, now);
            held = held.into_iter().chain(until).min();
            opening
        });
        if let Some(until) = held {
            self.wake_for_batch(id, until);
        }
        next
    }

    /// What there is for a line with this request at its head, and until when its batch may wait to grow.
    pub(super) fn opening(&self, line: Line, head: Ticket, now: Instant) -> (Opening, Option<Instant>) {
        let group = &self.groups[self.requests[head.index()].group.0];
        match self.batch_of(line, head, now) {
            (_, Some(until)) => (Opening::Shut, Some(until)),
            (size, None) => (group.opening(line, &group.call(line.handler, size)), None),
        }
    }

    /// The size of the batch that a request would go in, and until when it may wait to grow.
    fn batch_of(&self, line: Line, head: Ticket, now: Instant) -> (usize, Option<Instant>) {
        let request = &self.requests[head.index()];
        let group = &self.groups[request.group.0];
        let (State::Queued(_, place), row) = (&request.state, &group.rows[line.handler]) else { return (1, None) };
        let Some(batch) = place.batch else { return (1, None) };
        let waiting = group.queue.mates(line.handler, batch).min(row.limits.max_batch);
        (waiting, row.pace.hold_until(waiting, request.arrived, row.limits.max_delay, now))
    }

    fn wake_for_batch(&mut self, id: GroupId, until: Instant) {
        let timer = &mut self.groups[id.0].batch_timer;
        if timer.is_none_or(|set| until < set) {
            *timer = Some(until);
            self.timers.add(until, Timer::Batch(id));
        }
    }

    fn send_queued(&mut self, ticket: Ticket, worker: WorkerId, now: Instant, out: &mut Vec<Action<T>>) {
        self.take(ticket);
        self.send_one(ticket, worker, now, out);
    }

    /// Takes a request out of the queue, to be sent.
    fn take(&mut self, ticket: Ticket) {
        let request = &mut self.requests[ticket.index()];
        request.state = match std::mem::replace(&mut request.state, State::Between) {
            State::Queued(payload, place) => {
                let group = &mut self.groups[request.group.0];
                group.queue.take(&place, group.rows[request.handler].request.average().unwrap_or_default());
                State::Behind(payload)
            }
            other => other,
        };
    }

    /// Sends a request that is in no queue.
    pub(super) fn send_one(&mut self, ticket: Ticket, id: WorkerId, now: Instant, out: &mut Vec<Action<T>>) {
        let attempt = self.mark_sent(ticket, id);
        let request = &self.requests[ticket.index()];
        let (group, alone) = (&mut self.groups[request.group.0], request.lane == Lane::Alone);
        let call = group.call(request.handler, 1);
        if group.rows[request.handler].limits.max_batch > 1 {
            group.rows[request.handler].pace.sent(1, now);
        }
        // What is bound to a worker was not chosen among them.
        if !matches!(request.lane, Lane::Bound(_)) {
            group.turn();
        }
        let worker = group.worker(id).expect("chosen a moment ago");
        let slot = worker.take_one(ticket, &call, now);
        let prefetched = worker.has_prefetched();
        group.note_use(call.handler, now);
        if alone {
            group.isolate(id);
        }
        self.watch_prefetched(ticket, id, prefetched, now);
        out.push(Action::Send(id, Sending { ticket, slot, attempt }));
    }

    fn send_batch(&mut self, first: Ticket, batch: u64, id: WorkerId, now: Instant, out: &mut Vec<Action<T>>) {
        let tickets = self.gather(first, batch, now, out);
        if let [only] = tickets[..] {
            return self.send_one(only, id, now, out);
        }
        let attempts: Vec<_> = tickets.iter().map(|ticket| self.mark_sent(*ticket, id)).collect();
        let (group_id, handler) = (self.requests[first.index()].group, self.requests[first.index()].handler);
        let group = &mut self.groups[group_id.0];
        let call = group.call(handler, tickets.len());
        group.rows[handler].pace.sent(tickets.len(), now);
        group.turn();
        let worker = group.worker(id).expect("chosen a moment ago");
        let slots = worker.take(&tickets, &call, now);
        let prefetched = worker.has_prefetched();
        group.note_use(handler, now);
        self.watch_prefetched(first, id, prefetched, now);
        let sending = |((ticket, slot), attempt): ((&Ticket, u32), u32)| Sending { ticket: *ticket, slot, attempt };
        out.push(Action::SendBatch(id, tickets.iter().zip(slots).zip(attempts).map(sending).collect()));
    }

    /// Takes a batch out of the queue: the request whose turn it is, and those of its kind behind it.
    fn gather(&mut self, first: Ticket, batch: u64, now: Instant, out: &mut Vec<Action<T>>) -> Vec<Ticket> {
        let (id, handler) = (self.requests[first.index()].group, self.requests[first.index()].handler);
        let most = self.groups[id.0].rows[handler].limits.max_batch;
        let mut bytes = self.requests[first.index()].bytes;
        self.take(first);
        let mut tickets = vec![first];
        while tickets.len() < most
            && let Some(next) = self.groups[id.0].queue.next_mate(handler, batch)
        {
            if self.end_if_overdue(next, now, out) || self.set_apart(next, now, out) {
                continue;
            }
            bytes = bytes.saturating_add(self.requests[next.index()].bytes);
            if bytes > self.config.max_batch_bytes {
                break;
            }
            self.take(next);
            tickets.push(next);
        }
        tickets
    }

    fn mark_sent(&mut self, ticket: Ticket, worker: WorkerId) -> u32 {
        let request = &mut self.requests[ticket.index()];
        request.attempts += 1;
        if let Some(sequence) = request.sequence {
            self.sequences.sent(sequence, worker);
        }
        request.state = match std::mem::replace(&mut request.state, State::Between) {
            State::Behind(payload) | State::Queued(payload, _) | State::Sent(payload, _) => {
                State::Sent(payload, worker)
            }
            other => other,
        };
        request.attempts
    }

    /// What waits in a worker's socket is looked after, in case what runs before it takes longer than it used to.
    fn watch_prefetched(&mut self, ticket: Ticket, worker: WorkerId, prefetched: bool, now: Instant) {
        let group = self.requests[ticket.index()].group;
        if prefetched
            && self.groups[group.0].worker(worker).is_some_and(|worker| !std::mem::replace(&mut worker.watched, true))
        {
            self.timers.add(now + STALL, Timer::Stall(group, worker));
        }
    }
}
