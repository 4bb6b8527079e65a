//! What a seed makes: what there is, who shares it, and how long everything takes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyserve_core::{Needs, Resources};
use anyserve_sched::{HandlerLimits, PoolGroup, PoolPolicy};

use super::Traffic;
use crate::Chance;

/// A world before its first event.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) traffic: Traffic,
    pub(super) resources: Resources,
    pub(super) policy: PoolPolicy,
    pub(super) apps: Vec<App>,
    /// All requests come within this time.
    pub(super) span: Duration,
    /// Percent of the starts that fail.
    pub(super) failures: u64,
    /// Times that a process is killed, and that an operator does something.
    pub(super) kills: u32,
    pub(super) orders: u32,
    pub(super) reloads: u32,
}

/// One capability, with its group.
#[derive(Debug)]
pub(super) struct App {
    pub(super) group: PoolGroup,
    pub(super) limits: HandlerLimits,
    pub(super) start: Duration,
    pub(super) wake: Duration,
    /// Longest time of a request.
    pub(super) service: Duration,
}

/// The most that a process takes to end or to fall asleep once nothing is in flight.
pub(super) const LEAVE: Duration = Duration::from_millis(40);
/// Requests of one group that are waiting at the same time in calm traffic, about.
pub(super) const CALM_QUEUE: u32 = 6;

const TOKENS: u32 = 2;
const GPUS: u32 = 2;

// === impl Plan ===

impl Plan {
    pub(super) fn of(traffic: Traffic, seed: u64) -> Self {
        let chance = &mut Chance::new(seed);
        let calm = traffic.is_calm();
        let apps = (0..5).map(|_| App::of(traffic, chance)).collect();
        let tokens = BTreeMap::from([("token".to_owned(), TOKENS)]);
        let random = |chance: &mut Chance, most| if traffic == Traffic::Random { number(chance, 0, most) } else { 0 };
        Self {
            traffic,
            resources: Resources { gpus: (0..GPUS).map(|gpu| format!("GPU-{gpu}")).collect(), tokens },
            policy: PoolPolicy::default(),
            apps,
            span: Duration::from_secs(if calm { 60 } else { 30 }),
            failures: if traffic == Traffic::Random { *chance.pick(&[0, 20, 50]) } else { 0 },
            kills: random(chance, 12),
            orders: random(chance, 15),
            reloads: if traffic == Traffic::Reload { number(chance, 2, 5) } else { random(chance, 2) },
        }
    }

    /// Longest start, of all groups.
    pub(super) fn longest_start(&self) -> Duration {
        self.apps.iter().map(|app| app.start).max().unwrap_or_default()
    }

    /// Longest time that a worker stays before it is taken away.
    pub(super) fn longest_residency(&self) -> Duration {
        self.policy.min_residency.max(2 * self.longest_start())
    }

    /// Longest time from the order to leave until what a worker has is free.
    pub(super) fn longest_drain(&self) -> Duration {
        self.apps.iter().map(|app| app.service).max().unwrap_or_default() + LEAVE
    }

    /// How long a group waits for a worker, with all others before it: the formula of the policy, and what looking costs.
    pub(super) fn starvation_bound(&self) -> Duration {
        let turn = self.longest_start() + self.longest_residency() + self.longest_drain() + 2 * self.policy.look;
        let others = u32::try_from(self.apps.len()).unwrap_or(u32::MAX);
        self.policy.starvation + others * turn + self.longest_start()
    }
}

// === impl App ===

impl App {
    fn of(traffic: Traffic, chance: &mut Chance) -> Self {
        let random = traffic == Traffic::Random;
        let needs = needs(traffic, chance);
        // In calm traffic what waits for one group is done within a worker's residency.
        let services: &[u64] = match traffic {
            Traffic::Random => &[5, 50, 200, 3_000],
            Traffic::Adversarial => &[60, 120],
            _ => &[5, 50, 100],
        };
        let service = Duration::from_millis(*chance.pick(services));
        let start = Duration::from_millis(if random { *chance.pick(&[50, 500, 500, 800]) } else { 500 });
        let mut limits = HandlerLimits::new(number(chance, 1, 2), 200);
        limits.idempotent = chance.percent(50);
        let idle = *chance.pick(&[None, None, Some(1), Some(3)]);
        let group = PoolGroup {
            needs,
            min: u32::from(random && chance.percent(15)),
            max: number(chance, 1, 3),
            idle_timeout: idle.map(Duration::from_secs),
            sleeps: chance.percent(40),
        };
        Self { group, limits, start, wake: Duration::from_millis(50), service }
    }
}

fn needs(traffic: Traffic, chance: &mut Chance) -> Needs {
    let (gpus, token) = match chance.below(100) {
        0..60 => (0, 1),
        60..75 => (0, 2),
        75..90 => (1, 1),
        _ if traffic == Traffic::Random => (*chance.pick(&[0, 1, 2]), 0),
        _ => (1, 1),
    };
    Needs { gpus, tokens: BTreeMap::from([("token".to_owned(), token)]) }
}

/// A number from `least` to `most`.
pub(super) fn number(chance: &mut Chance, least: u32, most: u32) -> u32 {
    least + u32::try_from(chance.below(u64::from(most - least) + 1)).unwrap_or(0)
}
