//! What is to become of a request that comes now. Nothing is changed here, so that `explain` says what `submit` does.

use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};

use super::Dispatcher;
use crate::group::Group;
use crate::quarantine::Standing;
use crate::queue::{Ahead, Lane, Line, Opening, class_of};
use crate::{GroupId, Job, Payload, Ticket, WorkerId};

/// What would be done with a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It goes to this worker at once.
    Run(WorkerId),
    /// It waits.
    Wait {
        /// Requests that go before it, about.
        ahead: usize,
        /// How long, as far as that is known.
        expected: Duration,
    },
    /// It is refused.
    Refuse(Error),
}

/// How it stands with a handler, for a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// Requests that wait for the handler, and those that may.
    pub queued: usize,
    /// Requests that may wait for the handler.
    pub max_queue: usize,
    /// How long the job would wait, as far as that is known.
    pub expected: Duration,
    /// What would be done with it.
    pub verdict: Verdict,
}

/// A request that is accepted.
pub(super) enum Entry {
    /// On this worker, at once.
    Run(WorkerId),
    /// In the queue, in this lane; the victim has to go for it.
    Wait { lane: Lane, victim: Option<Ticket> },
    /// Behind its sequence.
    Behind { victim: Option<Ticket> },
}

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// What would be done with a job now, and how it stands with its handler.
    pub fn outlook(&self, job: &Job<'_>, now: Instant) -> Outlook {
        let (queued, max_queue) = self.queued(job.group, job.handler);
        let (ahead, expected) = self.expected_wait(job, now);
        let verdict = match self.decide(job, now) {
            Ok(Entry::Run(worker)) => Verdict::Run(worker),
            Ok(Entry::Wait { .. } | Entry::Behind { .. }) => Verdict::Wait { ahead: ahead.requests, expected },
            Err(error) => Verdict::Refuse(error),
        };
        Outlook { queued, max_queue, expected, verdict }
    }

    /// The one of these handlers that a job waits least for; those that are equal take turns.
    pub fn shortest(&mut self, of: &[(GroupId, usize)], job: &Job<'_>, now: Instant) -> usize {
        let chosen = self.would_choose(of, job, now);
        self.turn = self.turn.wrapping_add(usize::from(of.len() > 1));
        chosen
    }

    /// The same, without taking a turn.
    pub fn would_choose(&self, of: &[(GroupId, usize)], job: &Job<'_>, now: Instant) -> usize {
        let wait = |at: usize| {
            let (group, handler) = of[at];
            let job = Job { group, handler, ..job.clone() };
            let runs = self.worker_now(&job, Lane::Any, now).is_some();
            let own = &self.groups[group.0];
            let known = own.takers() > 0 || own.awaited(now).is_some();
            let wait = if known { self.expected_wait(&job, now).1 } else { Duration::MAX };
            (own.refusal().is_some(), own.down, !runs, wait)
        };
        let turn = |offset: usize| (self.turn + offset) % of.len().max(1);
        (0..of.len()).map(turn).min_by_key(|at| wait(*at)).unwrap_or(0)
    }

    /// What becomes of a job.
    ///
    /// # Errors
    /// `DEADLINE` if its deadline has passed, `OVERLOADED` with the expected wait if the queue is full or the wait longer
    /// than the deadline allows, `STARTING` if no worker can be ready before it, `POISON` if its fingerprint is refused,
    /// `UNAVAILABLE` if the group is down, what its group was closed with, and what its sequence says.
    pub(super) fn decide(&self, job: &Job<'_>, now: Instant) -> Result<Entry, Error> {
        if job.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Error::new(Code::Deadline, "the deadline passed before the request was queued"));
        }
        let group = &self.groups[job.group.0];
        if let Some(error) = group.refusal() {
            return Err(error);
        }
        if group.down {
            let message = "no worker is running and those that were started died; see the log for why";
            return Err(Error::new(Code::Unavailable, message).with_retry_after(Duration::from_secs(1)));
        }
        let lane = self.lane(job, now)?;
        if group.rows[job.handler].limits.sequence {
            return self.decide_in_sequence(job, now);
        }
        match self.worker_now(job, lane, now) {
            Some(worker) => Ok(Entry::Run(worker)),
            None => self.may_wait(job, now).map(|victim| Entry::Wait { lane, victim }),
        }
    }

    fn decide_in_sequence(&self, job: &Job<'_>, now: Instant) -> Result<Entry, Error> {
        self.sequences.check(job.group, job.handler, job.sequence)?;
        let own = job.sequence.and_then(|call| self.sequences.find(job.group, job.handler, call));
        let busy = own.is_some_and(|number| self.sequences.is_busy(number));
        let lane = own.and_then(|number| self.sequences.worker_of(number)).map_or(Lane::Any, Lane::Bound);
        if let Some(worker) = (!busy).then(|| self.worker_now(job, lane, now)).flatten() {
            return Ok(Entry::Run(worker));
        }
        let victim = self.may_wait(job, now)?;
        if own.is_some() && victim.and_then(|victim| self.known(victim)?.sequence) == own {
            let message = "the queue is full, and only this request's own sequence has one that would give way to it";
            return Err(overloaded(message.to_owned(), self.expected_wait(job, now).1));
        }
        Ok(if busy { Entry::Behind { victim } } else { Entry::Wait { lane, victim } })
    }

    /// Where a job may run.
    fn lane(&self, job: &Job<'_>, now: Instant) -> Result<Lane, Error> {
        let standing = job.fingerprint.map_or(Standing::Clean, |print| self.quarantine.standing(print, now));
        match standing {
            Standing::Clean => Ok(Lane::Any),
            Standing::Suspect => Ok(Lane::Alone),
            Standing::Refused => Err(poison(job.fingerprint)),
        }
    }

    /// The worker that takes a job at once: only if nobody waits for the same.
    fn worker_now(&self, job: &Job<'_>, lane: Lane, now: Instant) -> Option<WorkerId> {
        let group = &self.groups[job.group.0];
        let others = lane == Lane::Any && group.queue.anywhere(job.handler) > 0;
        if others || lane == Lane::Alone {
            return None;
        }
        let row = &group.rows[job.handler];
        if job.batch.is_some() && row.pace.hold_until(1, now, row.limits.max_delay, now).is_some() {
            return None;
        }
        match group.opening(Line { handler: job.handler, lane }, &group.call(job.handler, 1)) {
            Opening::Now(worker) => Some(worker),
            Opening::Soon(worker) => (!self.is_awaited(job, now)).then_some(worker),
            Opening::Next | Opening::Shut => None,
        }
    }

    /// Whether a request that goes before a job, or beside it, waits for the next worker that is free.
    fn is_awaited(&self, job: &Job<'_>, now: Instant) -> bool {
        let group = &self.groups[job.group.0];
        group.queue.is_awaited(job.priority.index(), |line, head| self.opening(line, head, now).0)
    }

    /// Whether there is room for a job to wait, and time. Returns who has to go for it.
    fn may_wait(&self, job: &Job<'_>, now: Instant) -> Result<Option<Ticket>, Error> {
        if let Some(deadline) = job.deadline {
            self.check_time(job, deadline.saturating_duration_since(now), now)?;
        }
        let group = &self.groups[job.group.0];
        self.room(job, group).map_err(|message| overloaded(message, self.expected_wait(job, now).1))
    }

    fn check_time(&self, job: &Job<'_>, left: Duration, now: Instant) -> Result<(), Error> {
        let group = &self.groups[job.group.0];
        if group.takers() == 0 {
            match group.awaited(now) {
                None => return Ok(()),
                Some(start) if start > left => return Err(starting(start, left)),
                Some(_) => {}
            }
        }
        let (_, wait) = self.expected_wait(job, now);
        if wait <= left {
            return Ok(());
        }
        let message = format!("the expected wait of {wait:.1?} is longer than the {left:.1?} until the deadline");
        Err(overloaded(message, wait))
    }

    fn room(&self, job: &Job<'_>, group: &Group) -> Result<Option<Ticket>, String> {
        let (waiting, most) = self.queued(job.group, job.handler);
        let bytes = group.queue.bytes();
        let crowded = waiting >= most;
        let heavy = bytes > 0 && bytes.saturating_add(job.bytes) > self.config.max_queued_bytes;
        let full = || format!("the queue is full: {waiting} of {most} requests, {bytes} bytes");
        if self.requests.len() >= Ticket::MAX_LIVE {
            return Err(full());
        }
        if !crowded && !heavy {
            return Ok(None);
        }
        let handler = crowded.then_some(job.handler);
        let victim = group.queue.victim(job.priority.index(), job.tenant, handler);
        let enough = |victim: &Ticket| {
            let freed = self.known(*victim).map_or(0, |request| request.bytes);
            !heavy || (bytes - freed).saturating_add(job.bytes) <= self.config.max_queued_bytes
        };
        victim.filter(enough).map(Some).ok_or_else(full)
    }

    /// What goes before a job, and how long it waits, as far as that is known.
    pub(super) fn expected_wait(&self, job: &Job<'_>, now: Instant) -> (Ahead, Duration) {
        let group = &self.groups[job.group.0];
        if self.worker_now(job, Lane::Any, now).is_some() {
            return (Ahead::default(), Duration::ZERO);
        }
        let ahead = group.queue.ahead(job.priority.index(), job.tenant, class_of(job.deadline, now));
        (ahead, group.wait_behind(job.handler, ahead.work, now))
    }
}

fn starting(start: Duration, left: Duration) -> Error {
    let message = format!(
        "no worker is ready and the next one is expected in {start:.1?}, which is longer than the {left:.1?} until the \
         deadline; come back then, or allow more time"
    );
    Error::new(Code::Starting, message).with_retry_after(start.max(Duration::from_millis(1)))
}

fn overloaded(message: String, wait: Duration) -> Error {
    Error::new(Code::Overloaded, message).with_retry_after(wait.max(Duration::from_millis(1)))
}

/// The error of a request that is refused because its like killed workers.
pub(super) fn poison(fingerprint: Option<anyserve_core::Fingerprint>) -> Error {
    let name = fingerprint.map_or_else(String::new, |print| format!(" {print}"));
    let message = format!(
        "requests like this one killed 2 workers: its fingerprint{name} is quarantined; see `anyserve quarantine list`"
    );
    Error::new(Code::Poison, message)
}
