//! What the dispatcher knows of those who wait for a call.

use super::{Dispatcher, State};
use crate::worker::Worker;
use crate::{Calls, GroupId, Job, Line, Payload, Places, Progress, Ticket, WorkerId};

/// The dispatcher's requests and workers, with what only the shell knows.
struct Known<'a, T, F> {
    machine: &'a Dispatcher<T>,
    /// Whether a group may get another worker.
    grows: F,
}

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// Whether a job would wait for ever if it came now, as a call of this caller: everybody who could make room for it
    /// waits for it. Says how many requests hold the places then.
    ///
    /// `grows` tells whether a group may get a worker beside those that take requests.
    pub fn is_stuck(
        &self,
        job: &Job<'_>,
        caller: Ticket,
        calls: &Calls,
        grows: impl Fn(GroupId) -> bool,
    ) -> Option<usize> {
        let (line, known) = (Line { group: job.group, handler: job.handler }, Known { machine: self, grows });
        let ahead = self.ahead_in_sequence(job);
        if ahead.is_some_and(|ahead| calls.is_stuck_behind(caller, ahead, &known)) {
            return Some(1);
        }
        calls.is_stuck(caller, line, &known)
    }

    /// After a call of `caller` has ended: the call that has to be given up, if those that it still has open would wait
    /// for ever.
    pub fn stuck_since(&self, caller: Ticket, calls: &Calls, grows: impl Fn(GroupId) -> bool) -> Option<Ticket> {
        calls.stuck_since(caller, &Known { machine: self, grows })
    }

    /// The request of a job's sequence that has its turn.
    fn ahead_in_sequence(&self, job: &Job<'_>) -> Option<Ticket> {
        let keeps = self.groups[job.group.0].rows[job.handler].limits.sequence;
        let call = job.sequence.filter(|_| keeps)?;
        self.sequences.head(self.sequences.find(job.group, job.handler, call)?)
    }
}

// === impl Known ===

impl<T: Payload, F> Known<'_, T, F> {
    fn worker(&self, group: GroupId, id: WorkerId) -> Option<&Worker> {
        self.machine.groups[group.0].workers.iter().find(|worker| worker.id == id)
    }
}

impl<T: Payload, F: Fn(GroupId) -> bool> Places for Known<'_, T, F> {
    fn progress(&self, ticket: Ticket) -> Progress {
        let Some(request) = self.machine.known(ticket) else { return Progress::Over };
        let line = Line { group: request.group, handler: request.handler };
        match request.state {
            State::Behind(_) | State::Queued(..) | State::Between => Progress::Waits(line),
            State::Sent(_, worker) | State::Abandoned(worker) => match self.worker(request.group, worker) {
                Some(worker) if worker.is_run(ticket) => Progress::Runs,
                Some(_) => Progress::Waits(line),
                None => Progress::Over,
            },
        }
    }

    fn together(&self, ticket: Ticket) -> Vec<Ticket> {
        let at = self.machine.known(ticket).and_then(|request| match request.state {
            State::Sent(_, worker) | State::Abandoned(worker) => self.worker(request.group, worker),
            _ => None,
        });
        let mates = at.into_iter().flat_map(|worker| worker.mates_of(ticket));
        [ticket].into_iter().chain(mates).collect()
    }

    fn taken_by(&self, line: Line, waits: impl Fn(Ticket) -> bool) -> Option<Vec<Ticket>> {
        if (self.grows)(line.group) {
            return None;
        }
        let mut all = Vec::new();
        for worker in self.machine.groups[line.group.0].workers.iter().filter(|worker| !worker.draining) {
            all.extend(worker.taken_by(line.handler, &waits)?);
        }
        // Nobody is there, and nobody is said to come: whatever that means, the call is not what stands in the way.
        Some(all).filter(|all| !all.is_empty())
    }
}
