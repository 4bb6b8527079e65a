//! Workers come and go.

use std::time::Instant;

use anyserve_core::{Code, Error};

use super::decide::poison;
use super::{Action, Dispatcher, Over, State};
use crate::quarantine::Standing;
use crate::queue::Lane;
use crate::worker::Held;
use crate::{GroupId, Payload, Ticket, WorkerId};

/// Why a worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It died by itself, or somebody else killed it: what it ran is suspected.
    Died,
    /// The runtime ended it, because of one handler or for its silence; nothing is held against what else it ran.
    Replaced,
}

/// A request whose worker is gone.
struct Survivor {
    held: Held,
    started: bool,
    cause: Cause,
}

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// A worker takes requests from now on; it makes `credits` calls at the same time.
    pub fn worker_ready(
        &mut self,
        group: GroupId,
        worker: WorkerId,
        credits: u32,
        now: Instant,
        out: &mut Vec<Action<T>>,
    ) {
        self.groups[group.0].add_worker(worker, credits, self.config.slots);
        self.fill(group, now, out);
    }

    /// A worker takes no more requests but finishes what it has.
    pub fn worker_draining(&mut self, group: GroupId, worker: WorkerId) {
        if let Some(worker) = self.groups[group.0].worker(worker) {
            worker.draining = true;
        }
    }

    /// A worker is gone. What had not started there is sent again; what had is lost, unless running it twice does no harm
    /// and its caller has seen nothing of it. Both only within the retry budget.
    ///
    /// `started` tells of a request and its slot whether its handler had started.
    pub fn worker_gone(
        &mut self,
        group: GroupId,
        worker: WorkerId,
        cause: Cause,
        started: impl Fn(Ticket, u32) -> bool,
        now: Instant,
        out: &mut Vec<Action<T>>,
    ) {
        let Some(dead) = self.groups[group.0].remove_worker(worker) else { return };
        self.end_sequences(worker, now, out);
        for held in dead.requests().filter(|held| !held.recalled) {
            let started = started(held.ticket, held.slot);
            self.outlive(&Survivor { held, started, cause }, now, out);
        }
        self.fill(group, now, out);
        self.groups[group.0].free_if_over();
    }

    fn end_sequences(&mut self, worker: WorkerId, now: Instant, out: &mut Vec<Action<T>>) {
        for (ticket, error) in self.sequences.worker_gone(worker) {
            if let Some((payload, attempts)) = self.leave(ticket, now) {
                out.push(Action::Over(Over { ticket, payload, error, attempts }));
            }
        }
    }

    fn outlive(&mut self, survivor: &Survivor, now: Instant, out: &mut Vec<Action<T>>) {
        let ticket = survivor.held.ticket;
        let Some(request) = self.known(ticket) else { return };
        if !matches!(request.state, State::Sent(..)) {
            let request = self.requests.remove(ticket.index());
            return self.advance(request.sequence, ticket, true, now);
        }
        match self.judge(survivor, now) {
            Ok(()) => self.queue_again(ticket, now, out),
            Err(error) => self.end_sent(ticket, error, now, out),
        }
    }

    /// Nobody would send it in a group that is closed.
    fn queue_again(&mut self, ticket: Ticket, now: Instant, out: &mut Vec<Action<T>>) {
        match self.groups[self.requests[ticket.index()].group.0].closed.clone() {
            Some(error) => self.end_sent(ticket, error, now, out),
            None => self.queue(ticket, now),
        }
    }

    /// Whether a request is sent again after its worker's death.
    fn judge(&mut self, survivor: &Survivor, now: Instant) -> Result<(), Error> {
        let ticket = survivor.held.ticket;
        let poisonous = survivor.started && survivor.cause == Cause::Died && self.suspect(ticket, now);
        let request = &self.requests[ticket.index()];
        if poisonous {
            return Err(poison(request.fingerprint));
        }
        let group = &mut self.groups[request.group.0];
        let State::Sent(payload, _) = &request.state else { return Ok(()) };
        let harmless = group.rows[request.handler].limits.idempotent && !payload.has_emitted();
        if request.sequence.is_some() || survivor.started && !harmless {
            return Err(lost(survivor.started));
        }
        if !group.budget.spend(now) {
            return Err(Error::new(
                Code::WorkerLost,
                "the worker died, and too many requests were sent again lately to send this one again",
            ));
        }
        Ok(())
    }

    /// Notes that a worker died with this request. True if that makes it poison; otherwise it runs alone from now on.
    fn suspect(&mut self, ticket: Ticket, now: Instant) -> bool {
        let request = &mut self.requests[ticket.index()];
        let State::Sent(payload, _) = &request.state else { return false };
        let print = *request.fingerprint.get_or_insert_with(|| payload.fingerprint());
        let alone = request.lane == Lane::Alone || request.sequence.is_some();
        request.deaths += 1;
        if request.sequence.is_none() {
            request.lane = Lane::Alone;
        }
        self.quarantine.death(print, alone, (request.group, request.handler), now) == Standing::Refused
    }

    fn end_sent(&mut self, ticket: Ticket, error: Error, now: Instant, out: &mut Vec<Action<T>>) {
        let request = self.requests.remove(ticket.index());
        self.advance(request.sequence, ticket, true, now);
        if let State::Sent(payload, _) = request.state {
            out.push(Action::Over(Over { ticket, payload, error, attempts: request.attempts }));
        }
    }

    /// No worker of this group is there and none is expected soon: whatever waits is over, whatever comes is refused,
    /// until a worker is ready.
    pub fn group_down(&mut self, group: GroupId, error: &Error, now: Instant, out: &mut Vec<Action<T>>) {
        self.groups[group.0].down = true;
        self.end_waiting(group, error, now, out);
    }

    /// Ends whatever waits in a group.
    pub(super) fn end_waiting(&mut self, group: GroupId, error: &Error, now: Instant, out: &mut Vec<Action<T>>) {
        let waits = |state: &State<T>| matches!(state, State::Behind(_) | State::Queued(..));
        let own = self.requests.iter().filter(|(_, request)| request.group == group && waits(&request.state));
        let mut waiting: Vec<_> = own.map(|(_, request)| request.ticket).collect();
        waiting.sort_unstable();
        for ticket in waiting {
            if let Some((payload, attempts)) = self.leave(ticket, now) {
                out.push(Action::Over(Over { ticket, payload, error: error.clone(), attempts }));
            }
        }
    }
}

fn lost(started: bool) -> Error {
    let message = if started {
        "the worker died while it ran this request"
    } else {
        "the worker that kept this request's sequence died before it ran"
    };
    Error::new(Code::WorkerLost, message)
}
