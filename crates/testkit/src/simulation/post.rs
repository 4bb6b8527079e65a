//! The runtime's end of one worker: what was sent there and is not answered, by the world's own books.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyserve_sched::{MAX_PREFETCH, Ticket};

use super::process::{Frame, Process};
use super::scenario::GroupPlan;
use super::table::Table;

/// Work that may wait in a busy worker's socket, as `docs/scheduling.md` has it.
pub(super) const PREFETCH: Duration = Duration::from_micros(500);

/// A request that the worker has not answered for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) number: usize,
    pub(super) ticket: Ticket,
    pub(super) call: u64,
}

/// A call with requests that are not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) handler: usize,
    left: u32,
    size: u32,
    /// It was sent although nothing was free, to wait in the socket.
    pub(super) prefetched: bool,
    pub(super) sent: Instant,
    /// The least that each of its requests could be expected to take when it was sent.
    least: Duration,
    /// The longest time that one of its requests took, if any ran.
    took: Option<Duration>,
}

/// A worker as the runtime sees it.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) group: usize,
    pub(super) process: Process,
    pub(super) table: Table,
    /// By slot.
    pub(super) held: BTreeMap<u32, Held>,
    pub(super) calls: BTreeMap<u64, Call>,
    limits: Vec<u32>,
    by_handler: Vec<u32>,
    credits: u32,
    pub(super) draining: bool,
    /// The request that has the worker for itself.
    pub(super) alone: Option<usize>,
    pub(super) last_answer: Option<Instant>,
    /// Something waits in its socket, since then.
    pub(super) waits_since: Option<Instant>,
}

// === impl Post ===

impl Post {
    pub(super) fn new(group: usize, plan: &GroupPlan) -> Self {
        let limits: Vec<_> = plan.handlers.iter().map(|handler| handler.limits.concurrency).collect();
        Self {
            group,
            process: Process::new(plan),
            table: Table::default(),
            held: BTreeMap::new(),
            calls: BTreeMap::new(),
            by_handler: vec![0; limits.len()],
            limits,
            credits: plan.credits(),
            draining: false,
            alone: None,
            last_answer: None,
            waits_since: None,
        }
    }

    /// Whether a call of this handler would run at once.
    pub(super) fn has_room(&self, handler: usize) -> bool {
        self.has_place(handler) && self.running() < self.credits
    }

    /// Whether the handler itself is below its limit here.
    pub(super) fn has_place(&self, handler: usize) -> bool {
        self.by_handler[handler] < self.limits[handler]
    }

    /// Whether one more call may wait in the socket, if every call takes at least as long as its handler ever took.
    pub(super) fn may_prefetch(&self, shortest: Option<Duration>) -> bool {
        let few = self.calls.len() < usize::try_from(self.credits + MAX_PREFETCH).unwrap_or(usize::MAX);
        let held: Duration = self.calls.values().map(|call| call.least * call.left).sum();
        few && shortest.is_some_and(|own| held + own <= PREFETCH)
    }

    /// Slots of all calls that are not over; those of a batch that is answered in part count in full.
    pub(super) fn slots(&self) -> u32 {
        self.calls.values().map(|call| call.size).sum()
    }

    /// Calls that run, if the worker starts what it can.
    fn running(&self) -> u32 {
        let busy = self.by_handler.iter().zip(&self.limits).map(|(busy, limit)| *busy.min(limit));
        busy.sum::<u32>().min(self.credits)
    }

    /// A frame goes to the worker. False if one of its slots was taken.
    pub(super) fn sent(&mut self, frame: &Frame, shortest: Option<Duration>, now: Instant) -> bool {
        let (handler, left) = (frame.handler, u32::try_from(frame.members.len()).unwrap_or(1));
        let least = shortest.unwrap_or_default() / left;
        let call =
            Call { handler, left, size: left, prefetched: !self.has_room(handler), least, sent: now, took: None };
        self.calls.insert(frame.call, call);
        self.by_handler[frame.handler] += 1;
        for member in &frame.members {
            self.held.insert(member.slot, Held { number: member.number, ticket: member.ticket, call: frame.call });
        }
        self.look_whether_something_waits(now);
        frame.members.iter().all(|member| self.table.offer(member.slot, member.ticket))
    }

    /// The worker has answered for what is in this slot. Returns the call's handler and time if the call is over and ran.
    pub(super) fn answered(&mut self, slot: u32, took: Option<Duration>, now: Instant) -> Option<(usize, Duration)> {
        let held = self.held.remove(&slot)?;
        self.table.release(slot);
        self.last_answer = Some(now);
        self.alone = self.alone.filter(|alone| *alone != held.number);
        let call = self.calls.get_mut(&held.call)?;
        call.left -= 1;
        call.took = call.took.max(took);
        let Call { left, handler, took, .. } = *call;
        if left == 0 {
            self.by_handler[handler] -= 1;
            self.calls.remove(&held.call);
        }
        self.look_whether_something_waits(now);
        took.filter(|_| left == 0).map(|took| (handler, took))
    }

    fn look_whether_something_waits(&mut self, now: Instant) {
        let waits = self.calls.len() > usize::try_from(self.running()).unwrap_or(usize::MAX);
        self.waits_since = waits.then(|| self.waits_since.unwrap_or(now));
    }
}
