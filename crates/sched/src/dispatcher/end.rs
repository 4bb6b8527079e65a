//! A request is over, or its caller has left.

use std::time::{Duration, Instant};

use anyserve_core::Error;

use super::{Action, Dispatcher, Finished, Over, State, UnknownRequest};
use crate::queue::{Lane, Waiting};
use crate::sequence::Next;
use crate::worker::Returned;
use crate::{GroupId, Payload, Ticket, WorkerId};

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// The worker has answered for a request, with the time that its handler took if it ran. Its credit is free.
    ///
    /// # Errors
    /// [`UnknownRequest`] if the worker does not have this request: it lies.
    pub fn finished(
        &mut self,
        group: GroupId,
        worker: WorkerId,
        ticket: Ticket,
        took: Option<Duration>,
        now: Instant,
        out: &mut Vec<Action<T>>,
    ) -> Result<Finished<T>, UnknownRequest> {
        let unknown = UnknownRequest { ticket, worker };
        if let Some(handler) = self.known(ticket).map(|request| request.handler) {
            self.groups[group.0].note_use(handler, now);
        }
        let own = self.groups[group.0].worker(worker);
        let returned = own.and_then(|worker| worker.give_back(ticket, took, now)).ok_or(unknown)?;
        self.observe(group, &returned, now);
        // One that was taken back belongs to another worker by now, or is over.
        let (payload, attempts) = if returned.recalled { (None, 0) } else { self.settle(ticket, took.is_some(), now) };
        // As long as others of its batch are not answered, no credit is free.
        if returned.over.is_some() {
            self.fill(group, now, out);
        }
        Ok(Finished { payload, slot: returned.slot, attempts })
    }

    fn observe(&mut self, group: GroupId, returned: &Returned, now: Instant) {
        let row = &mut self.groups[group.0].rows[returned.handler];
        let Some((size, took)) = returned.over else { return };
        row.pace.over(now);
        if let Some(took) = took {
            row.call.observe(took);
            row.request.observe(took / size.max(1));
        }
    }

    /// Removes a request that its worker has answered for.
    fn settle(&mut self, ticket: Ticket, ran: bool, now: Instant) -> (Option<T>, u32) {
        if self.known(ticket).is_none() {
            return (None, 0);
        }
        let request = self.requests.remove(ticket.index());
        self.advance(request.sequence, ticket, ran, now);
        let payload = match request.state {
            State::Behind(payload) | State::Queued(payload, _) | State::Sent(payload, _) => Some(payload),
            State::Abandoned(_) | State::Between => None,
        };
        if ran && !self.quarantine.is_empty() {
            let print = request.fingerprint.or_else(|| payload.as_ref().map(Payload::fingerprint));
            if let Some(print) = print {
                self.quarantine.success(print);
            }
        }
        (payload, request.attempts)
    }

    /// The caller has left. A request that is with a worker is withdrawn from there.
    ///
    /// Returns the payload if the caller had not been answered yet.
    pub fn cancel(&mut self, ticket: Ticket, now: Instant, out: &mut Vec<Action<T>>) -> Option<T> {
        let group = self.known(ticket)?.group;
        if let State::Sent(..) = self.known(ticket)?.state {
            return self.abandon(ticket, out);
        }
        let (payload, _) = self.leave(ticket, now)?;
        self.fill(group, now, out);
        Some(payload)
    }

    /// Nobody waits any longer, because the process leaves: what waits ends with the first error, what is with a worker with
    /// the second, and the worker is told to stop. Nothing is sent in their place.
    pub fn end_all(&mut self, waiting: &Error, sent: &Error, now: Instant, out: &mut Vec<Action<T>>) {
        let mut all: Vec<_> = self.requests.iter().map(|(_, request)| (request.ticket, request.attempts)).collect();
        all.sort_unstable();
        for (ticket, attempts) in all {
            let ended = match self.leave(ticket, now) {
                Some((payload, _)) => Some((payload, waiting)),
                None => self.abandon(ticket, out).map(|payload| (payload, sent)),
            };
            let over =
                |(payload, error): (T, &Error)| Action::Over(Over { ticket, payload, error: error.clone(), attempts });
            out.extend(ended.map(over));
        }
    }

    /// Answers the caller of a request that is with a worker; the worker is told to stop.
    pub(super) fn abandon(&mut self, ticket: Ticket, out: &mut Vec<Action<T>>) -> Option<T> {
        let request = self.live(ticket)?;
        let (group, state) = (request.group, std::mem::replace(&mut request.state, State::Between));
        let State::Sent(payload, worker) = state else {
            request.state = state;
            return None;
        };
        request.state = State::Abandoned(worker);
        let slot = self.groups[group.0].worker(worker).and_then(|worker| worker.slot_of(ticket));
        out.extend(slot.map(|slot| Action::Withdraw { ticket, worker, slot }));
        Some(payload)
    }

    /// Removes a request that is with no worker. Returns its payload, and how often it was sent.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Instant) -> Option<(T, u32)> {
        let request = self.known(ticket)?;
        if !matches!(request.state, State::Behind(_) | State::Queued(..)) {
            return None;
        }
        let request = self.requests.remove(ticket.index());
        let (group, waiting) = (&mut self.groups[request.group.0], request.waiting());
        let payload = match request.state {
            State::Queued(payload, place) => {
                group.queue.remove(&place);
                payload
            }
            State::Behind(payload) => {
                group.queue.unhold(&waiting);
                payload
            }
            State::Sent(..) | State::Abandoned(_) | State::Between => return None,
        };
        group.free_if_over();
        self.advance(request.sequence, ticket, false, now);
        Some((payload, request.attempts))
    }

    /// A request of a sequence is over: the next one has its turn.
    pub(super) fn advance(&mut self, sequence: Option<usize>, ticket: Ticket, ran: bool, now: Instant) {
        let Some(number) = sequence else { return };
        let Next { turn, fallen } = self.sequences.over(number, ticket, ran, now);
        self.fallen.extend(fallen);
        if let Some((next, worker)) = turn {
            self.give_turn(next, worker, now);
        }
    }

    fn give_turn(&mut self, ticket: Ticket, worker: Option<WorkerId>, now: Instant) {
        let Some(request) = self.live(ticket) else { return };
        request.lane = worker.map_or(Lane::Any, Lane::Bound);
        let (group, waiting): (_, Waiting) = (request.group, request.waiting());
        self.groups[group.0].queue.unhold(&waiting);
        self.queue(ticket, now);
    }

    /// Ends those that waited behind a request that will never be sent.
    pub(super) fn end_fallen(&mut self, now: Instant, out: &mut Vec<Action<T>>) {
        while let Some((ticket, error)) = self.fallen.pop() {
            if let Some((payload, attempts)) = self.leave(ticket, now) {
                out.push(Action::Over(Over { ticket, payload, error, attempts }));
            }
        }
    }
}
