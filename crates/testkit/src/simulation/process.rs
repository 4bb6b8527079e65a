//! A worker process, as Python workers are: frames wait in lanes, claim their requests, and run.
//!
//! A serial worker has one lane with one place, however many handlers it has. The others have a lane for each handler
//! with as many places as its concurrency.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyserve_sched::Ticket;

use super::scenario::GroupPlan;

/// One call on its way to a handler: a request, or a batch.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Tells it from all others.
    pub(super) call: u64,
    pub(super) handler: usize,
    pub(super) members: Vec<Member>,
}

/// One request of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) number: usize,
    pub(super) ticket: Ticket,
    pub(super) slot: u32,
}

/// A call whose handler runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) frame: Frame,
    pub(super) since: Instant,
    /// Time of one call of the handler.
    pub(super) takes: Duration,
    /// It ends only with its process.
    pub(super) hangs: bool,
    /// Its next call raises, and is made again in halves.
    pub(super) raises: bool,
    /// Calls that are still to be made.
    pub(super) parts: u32,
}

#[derive(Debug)]
struct Lane {
    places: u32,
    busy: u32,
    waiting: VecDeque<Frame>,
}

#[derive(Debug)]
pub(super) struct Process {
    lanes: Vec<Lane>,
    serial: bool,
    pub(super) calls: BTreeMap<u64, Running>,
    /// It does nothing until then.
    pub(super) frozen: Option<Instant>,
    pub(super) alive: bool,
}

// === impl Process ===

impl Process {
    pub(super) fn new(plan: &GroupPlan) -> Self {
        let lane = |places| Lane { places, busy: 0, waiting: VecDeque::new() };
        let lanes = if plan.serial {
            vec![lane(1)]
        } else {
            plan.handlers.iter().map(|handler| lane(handler.limits.concurrency)).collect()
        };
        Self { lanes, serial: plan.serial, calls: BTreeMap::new(), frozen: None, alive: true }
    }

    pub(super) fn receive(&mut self, frame: Frame) {
        self.lane(frame.handler).waiting.push_back(frame);
    }

    /// The next frame that has a place to run; the place is taken.
    pub(super) fn next(&mut self) -> Option<Frame> {
        if !self.alive || self.frozen.is_some() {
            return None;
        }
        let lane = self.lanes.iter_mut().find(|lane| lane.busy < lane.places && !lane.waiting.is_empty())?;
        lane.busy += 1;
        lane.waiting.pop_front()
    }

    /// A place of this handler is free again.
    pub(super) fn leave(&mut self, handler: usize) {
        self.lane(handler).busy -= 1;
    }

    /// The call is over.
    pub(super) fn end(&mut self, call: u64) -> Option<Running> {
        let running = self.calls.remove(&call)?;
        self.leave(running.frame.handler);
        Some(running)
    }

    /// Whether something runs that ends only with the process.
    pub(super) fn hangs(&self) -> bool {
        self.calls.values().any(|running| running.hangs)
    }

    fn lane(&mut self, handler: usize) -> &mut Lane {
        let place = if self.serial { 0 } else { handler };
        &mut self.lanes[place]
    }
}
