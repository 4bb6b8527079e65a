//! A worker group: workers with the same handlers, and the requests that wait for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};

use crate::pace::Pace;
use crate::queue::{Lane, Line, Opening, Queue};
use crate::usage::Usage;
use crate::worker::{Call, Keep, Worker};
use crate::{RetryBudget, ServiceTime, WorkerId};

/// A worker group, as the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub usize);

/// What the dispatcher must know of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerLimits {
    /// Calls of it that one worker runs at the same time, at least 1.
    pub concurrency: u32,
    /// Requests of it that may wait.
    pub max_queue: usize,
    /// Requests that one call takes at most, at least 1.
    pub max_batch: usize,
    /// Longest time that a request waits for others to share its batch.
    pub max_delay: Duration,
    /// Running a request twice does no harm.
    pub idempotent: bool,
    /// Its requests belong to sequences.
    pub sequence: bool,
}

/// The load of a group at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLoad {
    /// Requests that wait.
    pub queued: usize,
    /// Requests that wait for no worker in particular: one more would help.
    pub open: usize,
    /// Requests that are with a worker.
    pub in_flight: usize,
    /// Workers that take requests.
    pub workers: usize,
    /// Workers are dying, and nobody waits for them any more.
    pub down: bool,
    /// Arrival of the oldest request that waits.
    pub oldest: Option<Instant>,
    /// Soonest deadline of what waits.
    pub soonest: Option<Instant>,
    /// Time in handlers that what waits needs, as measured by now; divided by nothing.
    pub backlog: Duration,
    /// Calls of what waits that one worker makes at the same time, at least 1 where there are handlers.
    pub width: u32,
    /// Sequences that its workers keep. A group with any is not idle.
    pub sequences: usize,
    /// Workers that what runs now would fill.
    pub needed: usize,
    /// When the last request was sent or answered.
    pub used: Option<Instant>,
    /// When as many workers as take requests now, or more, were last filled: one less would not have done.
    pub full: Option<Instant>,
}

/// One handler's side of a group.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) limits: HandlerLimits,
    /// Time of one call.
    pub(crate) call: ServiceTime,
    /// Time of one request: of a call, divided by the requests in it.
    pub(crate) request: ServiceTime,
    pub(crate) pace: Pace,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) rows: Vec<Row>,
    pub(crate) queue: Queue,
    pub(crate) budget: RetryBudget,
    pub(crate) workers: Vec<Worker>,
    /// No worker is there and none is expected soon.
    pub(crate) down: bool,
    /// When the next batch need not wait any longer, as far as a timer is set for it.
    pub(crate) batch_timer: Option<Instant>,
    /// Where the search for a worker begins, so that equals take turns.
    turn: usize,
    /// Some worker is kept for a request that wants it for itself.
    keeps: bool,
    /// When the next worker is expected, while none takes requests.
    expected: Option<Instant>,
    /// Whatever comes is refused with this.
    pub(crate) closed: Option<Error>,
    /// It is replaced by another one; nothing new comes.
    pub(crate) retired: bool,
    /// Calls that a worker of this group makes at the same time.
    credits: u32,
    usage: Usage,
}

// === impl HandlerLimits ===

impl HandlerLimits {
    /// One request a call, one call at a time.
    pub fn new(concurrency: u32, max_queue: usize) -> Self {
        Self { concurrency, max_queue, max_batch: 1, max_delay: Duration::ZERO, idempotent: false, sequence: false }
    }
}

// === impl Group ===

impl Group {
    pub(crate) fn new(handlers: impl IntoIterator<Item = HandlerLimits>, weights: Arc<HashMap<String, u32>>) -> Self {
        let row = |limits| Row {
            limits,
            call: ServiceTime::default(),
            request: ServiceTime::default(),
            pace: Pace::default(),
        };
        let rows: Vec<_> = handlers.into_iter().map(row).collect();
        let queue = Queue::new(rows.len(), weights);
        let credits = rows.iter().map(|row: &Row| row.limits.concurrency).fold(0, u32::saturating_add);
        Self {
            credits,
            usage: Usage::default(),
            expected: None,
            closed: None,
            retired: false,
            rows,
            queue,
            budget: RetryBudget::default(),
            workers: Vec::new(),
            down: false,
            batch_timer: None,
            turn: 0,
            keeps: false,
        }
    }

    /// What the group itself knows of its load.
    pub(crate) fn load(&self) -> GroupLoad {
        let workers = self.takers();
        GroupLoad {
            queued: self.queue.total(),
            open: self.queue.open(),
            in_flight: self.workers.iter().map(|worker| worker.requests().len()).sum(),
            workers,
            down: self.down,
            oldest: None,
            soonest: self.queue.soonest(),
            backlog: self.backlog(),
            width: self.width_of_one(),
            sequences: 0,
            needed: self.needed(),
            used: self.usage.since(1),
            full: self.usage.since(workers.max(1)),
        }
    }

    /// Workers that take requests.
    pub(crate) fn takers(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.draining).count()
    }

    fn backlog(&self) -> Duration {
        let work = |(handler, row): (usize, &Row)| {
            let waiting = u32::try_from(self.queue.len(handler)).unwrap_or(u32::MAX);
            row.request.average().unwrap_or_default().saturating_mul(waiting)
        };
        self.rows.iter().enumerate().map(work).fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Calls of what waits that one worker makes at the same time; of anything, if nothing waits.
    fn width_of_one(&self) -> u32 {
        let idle = self.queue.total() == 0;
        let rows = self.rows.iter().enumerate().filter(|(handler, _)| idle || self.queue.len(*handler) > 0);
        rows.map(|(_, row)| row.limits.concurrency).fold(0, u32::saturating_add).min(self.credits)
    }

    /// Workers that what runs now would fill.
    fn needed(&self) -> usize {
        (0..self.rows.len()).map(|handler| self.needed_by(handler)).max().unwrap_or(0)
    }

    /// Workers that what runs now would fill: by all calls together, or by this handler's own limit.
    fn needed_by(&self, handler: usize) -> usize {
        let all: u32 = self.workers.iter().map(Worker::running).sum();
        let own: u32 = self.workers.iter().map(|worker| worker.running_of(handler)).sum();
        let limit = self.rows[handler].limits.concurrency.max(1);
        let most = all.div_ceil(self.credits.max(1)).max(own.div_ceil(limit));
        usize::try_from(most).unwrap_or(usize::MAX).min(self.workers.len())
    }

    /// A request of this handler comes or goes: notes how many workers are filled.
    pub(crate) fn note_use(&mut self, handler: usize, now: Instant) {
        self.usage.note(self.needed_by(handler), now);
    }

    /// No worker takes requests; the next one is expected then.
    pub(crate) fn expect(&mut self, at: Option<Instant>) {
        self.expected = at;
    }

    /// Time until the next worker is expected, while none takes requests.
    pub(crate) fn awaited(&self, now: Instant) -> Option<Duration> {
        self.expected.filter(|_| self.takers() == 0).map(|at| at.saturating_duration_since(now))
    }

    /// What is said to a request that comes now, whatever it is.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let message = "the app was loaded again and serves this request with other workers by now; send it again";
        let retired = || Error::new(Code::Draining, message).with_retry_after(Duration::from_millis(1));
        self.closed.clone().or_else(|| self.retired.then(retired))
    }

    /// A retired group that is empty gives its memory back.
    pub(crate) fn free_if_over(&mut self) {
        if self.retired && self.workers.is_empty() && self.queue.total() == 0 {
            self.queue = Queue::new(self.rows.len(), Arc::default());
            (self.workers, self.usage) = (Vec::new(), Usage::default());
        }
    }

    pub(crate) fn add_worker(&mut self, id: WorkerId, credits: u32, slots: u32) {
        (self.down, self.expected, self.credits) = (false, None, credits);
        let limits = self.rows.iter().map(|row| row.limits.concurrency);
        self.workers.push(Worker::new(id, credits, slots, limits));
    }

    pub(crate) fn remove_worker(&mut self, id: WorkerId) -> Option<Worker> {
        let place = self.workers.iter().position(|worker| worker.id == id)?;
        Some(self.workers.remove(place))
    }

    pub(crate) fn worker(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }

    /// A call of this handler with so many requests.
    pub(crate) fn call(&self, handler: usize, size: usize) -> Call {
        let expected = self.rows[handler].call.cautious().unwrap_or_default();
        Call { handler, expected, size: u32::try_from(size).unwrap_or(u32::MAX) }
    }

    /// What there is for a call now: a worker that would run it at once, the least loaded first, or a busy one that will
    /// soon be free.
    pub(crate) fn opening(&self, line: Line, call: &Call) -> Opening {
        match line.lane {
            Lane::Any => self.opening_anywhere(call),
            Lane::Bound(id) => self.opening_at(id, call),
            Lane::Alone => self.empty().map_or(Opening::Shut, |worker| Opening::Now(worker.id)),
        }
    }

    fn opening_anywhere(&self, call: &Call) -> Opening {
        if let Some(free) = self.rotated().filter(|worker| worker.has_room(call)).min_by_key(|worker| worker.calls()) {
            return Opening::Now(free.id);
        }
        let awaited = || self.workers.iter().any(|worker| worker.has_place(call));
        match self.soon_free(call) {
            Some(worker) => Opening::Soon(worker.id),
            None if awaited() => Opening::Next,
            None => Opening::Shut,
        }
    }

    fn opening_at(&self, id: WorkerId, call: &Call) -> Opening {
        match self.workers.iter().find(|worker| worker.id == id) {
            Some(worker) if worker.has_room(call) => Opening::Now(id),
            Some(worker) if worker.may_prefetch(call) => Opening::Soon(id),
            Some(worker) if worker.has_place(call) => Opening::Next,
            _ => Opening::Shut,
        }
    }

    fn empty(&self) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.is_empty() && worker.keep != Keep::Exclusive)
    }

    /// A batch is worth its wait in a socket only if it is full: in the queue it would still grow.
    fn soon_free(&self, call: &Call) -> Option<&Worker> {
        let limits = &self.rows[call.handler].limits;
        if usize::try_from(call.size).is_ok_and(|size| size < limits.max_batch) {
            return None;
        }
        self.rotated().filter(|worker| worker.may_prefetch(call)).min_by_key(|worker| worker.backlog())
    }

    fn rotated(&self) -> impl Iterator<Item = &Worker> {
        let turn = self.turn.min(self.workers.len());
        self.workers[turn..].iter().chain(&self.workers[..turn])
    }

    /// A worker was chosen; the next search begins behind it.
    pub(crate) fn turn(&mut self) {
        self.turn = if self.workers.is_empty() { 0 } else { (self.turn + 1) % self.workers.len() };
    }

    /// Keeps one worker at a time free for the requests that want one for themselves, while there are any.
    pub(crate) fn reserve(&mut self) {
        let alone = self.queue.alone() > 0;
        if !alone && !self.keeps {
            return;
        }
        for worker in &mut self.workers {
            let over = match worker.keep {
                Keep::Exclusive => worker.held() == 0,
                Keep::Reserved => !alone || worker.draining,
                Keep::Open => false,
            };
            worker.keep = if over { Keep::Open } else { worker.keep };
        }
        self.keeps = self.workers.iter().any(|worker| worker.keep != Keep::Open);
        if alone && !self.keeps {
            let least = self.workers.iter_mut().filter(|worker| !worker.draining).min_by_key(|worker| worker.held());
            if let Some(worker) = least {
                (worker.keep, self.keeps) = (Keep::Reserved, true);
            }
        }
    }

    /// The worker has this request for itself.
    pub(crate) fn isolate(&mut self, id: WorkerId) {
        self.keeps = true;
        if let Some(worker) = self.worker(id) {
            worker.keep = Keep::Exclusive;
        }
    }

    /// Calls of a handler that all workers together run at the same time.
    fn width(&self, handler: usize) -> u32 {
        let concurrency = self.rows[handler].limits.concurrency;
        self.workers.iter().map(|worker| worker.width(concurrency)).fold(0, u32::saturating_add)
    }

    /// How long a request of this handler waits behind so much work, as far as that is known.
    pub(crate) fn wait_behind(&self, handler: usize, work: Duration, now: Instant) -> Duration {
        let width = self.width(handler);
        if width == 0 {
            let alone = self.rows[handler].limits.concurrency.min(self.credits).max(1);
            return self.awaited(now).map_or(Duration::ZERO, |start| start + work / alone);
        }
        let busy = self.workers.iter().filter(|worker| !worker.draining).filter_map(Worker::free_at).min();
        let busy = busy.map_or(Duration::ZERO, |free_at| free_at.saturating_duration_since(now));
        work / width + busy
    }
}
