//! One place as the world sees it: a process that starts, works, sleeps and ends.

use anyserve_core::Resources;
use anyserve_sched::{GroupId, Ticket, WorkerId};

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Starting,
    Ready,
    /// It finishes what it has, and then sleeps.
    ToSleep,
    /// It finishes what it has, and then ends.
    ToEnd,
    Asleep,
    Waking,
    /// It has died and will be started again.
    Down,
}

#[derive(Debug)]
pub(super) struct Post {
    pub(super) group: GroupId,
    /// Its capability's place in the plan.
    pub(super) app: usize,
    pub(super) life: Life,
    pub(super) worker: Option<WorkerId>,
    /// What it was given, as the world counts it.
    pub(super) grant: Option<Resources>,
    pub(super) slept: Option<Resources>,
    /// Requests that it runs.
    pub(super) held: Vec<Ticket>,
    /// Tells what was planned for this process from what was planned for an earlier one, or before another order.
    pub(super) epoch: u32,
    pub(super) failures: u32,
}

// === impl Post ===

impl Post {
    pub(super) fn new(group: GroupId, app: usize, grant: Resources) -> Self {
        Self {
            group,
            app,
            life: Life::Starting,
            worker: None,
            grant: Some(grant),
            slept: None,
            held: Vec::new(),
            epoch: 0,
            failures: 0,
        }
    }

    /// What was planned for it before means nothing any more.
    pub(super) fn turn(&mut self, life: Life) -> u32 {
        self.life = life;
        self.epoch += 1;
        self.epoch
    }

    /// The state that the planner has to have for it.
    pub(super) fn state(&self) -> &'static str {
        match self.life {
            Life::Starting => "starting",
            Life::Ready => "ready",
            Life::ToSleep => "falling-asleep",
            Life::ToEnd => "stopping",
            Life::Asleep => "asleep",
            Life::Waking => "waking",
            Life::Down => "failing",
        }
    }

    /// It has a share of what there is.
    pub(super) fn has_something(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| !grant.gpus.is_empty() || !grant.tokens.is_empty())
    }

    /// It is a worker, or will be one.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.life, Life::Starting | Life::Ready | Life::Waking | Life::Down)
    }
}
