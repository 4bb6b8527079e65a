//! A worker group: workers with the same handlers, and the requests that wait for them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::worker::Worker;
use crate::{ServiceTime, Ticket, WorkerId};

/// A worker group, as the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub usize);

/// What the dispatcher must know of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerLimits {
    /// Requests of it that one worker runs at the same time.
    pub concurrency: u32,
    /// Requests of it that may wait.
    pub max_queue: usize,
}

/// The load of a group at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLoad {
    /// Requests that wait.
    pub queued: usize,
    /// Requests that are with a worker.
    pub in_flight: usize,
    /// Workers that take requests.
    pub workers: usize,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) handlers: Vec<Queue>,
    workers: Vec<Worker>,
    /// Bytes of all requests that wait.
    pub(crate) queued_bytes: usize,
    /// No worker is there and none is expected soon.
    pub(crate) down: bool,
    /// Where the search for a worker begins, so that equals take turns.
    turn: usize,
}

/// One handler's requests that wait, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) limits: HandlerLimits,
    pub(crate) waiting: VecDeque<Ticket>,
    pub(crate) time: ServiceTime,
}

// === impl Group ===

impl Group {
    pub(crate) fn new(handlers: impl IntoIterator<Item = HandlerLimits>) -> Self {
        let queue = |limits| Queue { limits, waiting: VecDeque::new(), time: ServiceTime::default() };
        let handlers = handlers.into_iter().map(queue).collect();
        Self { handlers, workers: Vec::new(), queued_bytes: 0, down: false, turn: 0 }
    }

    pub(crate) fn load(&self) -> GroupLoad {
        GroupLoad {
            queued: self.queued(),
            in_flight: self.workers.iter().map(|worker| worker.held().len()).sum(),
            workers: self.workers.iter().filter(|worker| !worker.draining).count(),
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.handlers.iter().map(|queue| queue.waiting.len()).sum()
    }

    /// How long a request that arrives now will wait, as far as that is known.
    pub(crate) fn expected_wait(&self) -> Duration {
        let of = |queue: &Queue| {
            let len = u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX);
            queue.time.average().unwrap_or_default().saturating_mul(len)
        };
        let all: Duration = self.handlers.iter().map(of).sum();
        all / u32::try_from(self.workers.len().max(1)).unwrap_or(u32::MAX)
    }

    pub(crate) fn add_worker(&mut self, id: WorkerId, credits: u32) {
        self.down = false;
        self.workers.push(Worker::new(id, credits, self.handlers.len()));
    }

    pub(crate) fn remove_worker(&mut self, id: WorkerId) -> Option<Worker> {
        let place = self.workers.iter().position(|worker| worker.id == id)?;
        Some(self.workers.remove(place))
    }

    pub(crate) fn worker(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }

    /// The request that is to go next, and where: the one that waits longest among those that a worker can take.
    pub(crate) fn next_send(&mut self) -> Option<(Ticket, WorkerId)> {
        let mut waiting: Vec<_> =
            self.handlers.iter().enumerate().filter_map(|(at, queue)| Some((*queue.waiting.front()?, at))).collect();
        waiting.sort_unstable_by_key(|(ticket, _)| ticket.sequence());
        waiting.into_iter().find_map(|(ticket, handler)| Some((ticket, self.choose_worker(handler)?)))
    }

    /// The worker that a request of this handler goes to now: one that would run it at once, the least loaded first, or
    /// a busy one that will soon be free.
    pub(crate) fn choose_worker(&mut self, handler: usize) -> Option<WorkerId> {
        let Queue { limits, time, .. } = &self.handlers[handler];
        let rotated = self.workers[self.turn.min(self.workers.len())..]
            .iter()
            .chain(&self.workers[..self.turn.min(self.workers.len())]);
        let free = rotated.clone().filter(|worker| worker.has_room(handler, limits.concurrency));
        let chosen = free.min_by_key(|worker| worker.in_flight()).or_else(|| {
            let soon = rotated.filter(|worker| worker.may_prefetch(time.average()));
            soon.min_by_key(|worker| worker.backlog())
        })?;
        let id = chosen.id;
        self.turn = (self.turn + 1) % self.workers.len();
        Some(id)
    }
}
