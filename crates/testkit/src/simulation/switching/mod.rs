//! A replica whose groups share two tokens and two GPUs: the dispatcher, the planner, and workers that take their time.
//!
//! ```text
//!   seed ─► Plan ─► World ── submit, finished, worker_* ─► Dispatcher ── load ─┐
//!                     ▲                                                        ▼
//!                     └──────────── Start, Wake, Sleep, Stop ◄────────────── Pools
//! ```
//!
//! The world asks the planner only when its documentation says that it has to be asked, keeps its own account of who has
//! what, and looks after every step whether the promises hold.

mod checks;
mod crowd;
mod operate;
mod plan;
mod post;
mod requests;
mod workers;
mod world;

use super::Run;
use plan::Plan;
use world::World;

/// Who asks for what, and what else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One request at a time, to one group after the other.
    Alternating,
    /// Many requests at once, now for this group and now for that.
    Bursty,
    /// Two groups that always have something to do, and others that have little.
    Adversarial,
    /// Steady requests while the app is loaded again and again.
    Reload,
    /// Anything, with deadlines, crashes, starts that fail, and operators.
    Random,
}

/// Runs the world of a seed until nothing is left to happen, or a check does not hold.
pub(super) fn run(traffic: Traffic, seed: u64, told: bool) -> Run {
    World::new(Plan::of(traffic, seed), seed, told).run()
}

// === impl Traffic ===

impl Traffic {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Alternating, Self::Bursty, Self::Adversarial, Self::Reload, Self::Random].into_iter()
    }

    /// Nothing fails and nobody interferes: the bounds of the policy hold to the letter.
    fn is_calm(self) -> bool {
        matches!(self, Self::Alternating | Self::Bursty | Self::Adversarial)
    }
}
