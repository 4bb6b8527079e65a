//! A replica in simulated time: clients, the dispatcher, and worker processes that die, freeze and hang.
//!
//! ```text
//!   seed ─► Scenario ─► World ── submit, cancel, expire, finished, worker_* ─► anyserve_sched::Dispatcher
//!                         ▲                                                        │
//!            Books: what  │ ◄───────────────────────── Action ◄────────────────────┘
//!            has been seen └─► Process: slot table, lanes, calls ─► Step (an answer, a death, …)
//! ```
//!
//! The world is the shell that `anyserve_worker` is in earnest: it carries out the dispatcher's actions against processes
//! that behave as Python workers do. Beside that it keeps books of its own, from nothing but what went in and came out, and
//! every step is checked against them (`checks`). One seed is one run, to the last microsecond.

mod books;
mod broken;
mod checks;
mod clients;
mod post;
mod process;
mod scenario;
mod storm;
mod switching;
mod table;
mod tally;
mod trace;
mod world;

use std::fmt;

use scenario::Scenario;
use world::World;

pub use broken::Broken;
pub use storm::{Storm, storm};
pub use switching::Traffic;
pub use tally::Tally;

/// What kind of world a seed makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Handlers, limits, clients and faults of every kind.
    Storm,
    /// One handler, no faults, and tenants that always have something waiting: their shares are measured.
    Fair,
    /// Groups that share two tokens, and a planner that gives them out.
    Switching(Traffic),
}

/// How a run went.
#[derive(Debug)]
pub struct Run {
    /// The seed that makes it again.
    pub seed: u64,
    /// A hash of everything that happened, in order.
    pub hash: u64,
    /// Everything that happened, if it was to be told.
    pub lines: Vec<String>,
    /// How often what happened.
    pub tally: Tally,
    /// The check that did not hold.
    pub broken: Option<Broken>,
}

/// Runs the world of a seed until nothing is left to happen, or a check does not hold. Told, every event is a line.
pub fn run(weather: Weather, seed: u64, told: bool) -> Run {
    let scenario = match weather {
        Weather::Storm => Scenario::storm(seed),
        Weather::Fair => Scenario::fair(seed),
        Weather::Switching(traffic) => return switching::run(traffic, seed, told),
    };
    World::new(scenario, seed, told).run()
}

// === impl Run ===

impl fmt::Display for Run {
    /// What broke, and the last things that happened before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 60;
        if let Some(broken) = &self.broken {
            writeln!(f, "seed {}: {broken}", self.seed)?;
        }
        let skipped = self.lines.len().saturating_sub(SHOWN);
        self.lines[skipped..].iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
