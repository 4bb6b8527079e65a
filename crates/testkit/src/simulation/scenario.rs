//! What a seed makes: handlers and their limits, who asks for what, and what goes wrong.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use anyserve_core::Priority;
use anyserve_sched::{HandlerLimits, MAX_PREFETCH, SchedConfig};

use crate::Chance;

/// A world before its first event.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) config: SchedConfig,
    pub(super) groups: Vec<GroupPlan>,
    pub(super) tenants: Vec<String>,
    pub(super) levels: Vec<Priority>,
    pub(super) crowd: Crowd,
    pub(super) faults: Faults,
    /// From one end of a socket to the other.
    pub(super) latency: Duration,
    /// How late a timer may fire.
    pub(super) lateness: Duration,
    /// Every tenant has something waiting from its coming to the end.
    pub(super) fair: bool,
}

/// Workers with the same handlers.
#[derive(Debug)]
pub(super) struct GroupPlan {
    pub(super) handlers: Vec<HandlerPlan>,
    pub(super) workers: u32,
    /// They run one call at a time, whatever their handlers allow.
    pub(super) serial: bool,
}

#[derive(Debug)]
pub(super) struct HandlerPlan {
    pub(super) limits: HandlerLimits,
    /// A usual time of one call.
    pub(super) service: Duration,
}

/// What clients do.
#[derive(Debug)]
pub(super) struct Crowd {
    pub(super) arrivals: u32,
    /// All arrivals are within this time.
    pub(super) span: Duration,
    /// Percent of the arrivals that come at one of a few instants.
    pub(super) bursts: u64,
    /// Percent of the requests with a deadline, and the longest.
    pub(super) deadlines: u64,
    pub(super) patience: Duration,
    /// Percent of the callers that leave.
    pub(super) leavers: u64,
    /// Percent of the requests that kill their worker.
    pub(super) poison: u64,
    /// Percent of the requests that never end by themselves the first time they run.
    pub(super) hangs: u64,
    /// Percent of the batches whose handler raises.
    pub(super) raises: u64,
    /// Percent of the requests that take much longer than usual.
    pub(super) surprises: u64,
}

/// What goes wrong from outside.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) kills: u32,
    /// Kills of all workers at once.
    pub(super) outages: u32,
    pub(super) freezes: u32,
    pub(super) drains: u32,
    /// Percent of the times without a worker that nobody waits for the next one.
    pub(super) downs: u64,
}

/// Usual times of handlers, in microseconds.
const SERVICES: [u64; 5] = [40, 200, 1_000, 5_000, 30_000];

// === impl Scenario ===

impl Scenario {
    /// Handlers, limits, clients and faults of every kind.
    pub(super) fn storm(seed: u64) -> Self {
        let chance = &mut Chance::new(seed);
        let groups: Vec<_> = (0..=u32::from(chance.percent(20))).map(|_| group(chance)).collect();
        let count = *chance.pick(&[1, 1, 3, 8, 300, 300]);
        let tenants: Vec<_> = (0..count).map(|number| format!("t{number}")).collect();
        let levels = chance.pick(&[&[4_u32] as &[u32], &[1, 4, 8], &[1, 2, 3, 4, 5, 6, 7, 8]]).iter();
        let levels = levels.filter_map(|level| Priority::try_new(*level)).collect();
        let crowd = crowd(chance, &groups);
        Self {
            config: config(chance, &groups, &tenants),
            tenants,
            levels,
            faults: faults(chance, crowd.span),
            crowd,
            groups,
            latency: micros(chance, 0, 300),
            lateness: if chance.percent(50) { Duration::ZERO } else { micros(chance, 1, 2_000) },
            fair: false,
        }
    }

    /// One handler, no faults, tenants of different weights that always have something waiting.
    pub(super) fn fair(seed: u64) -> Self {
        let chance = &mut Chance::new(seed);
        let mut handler = HandlerPlan { limits: HandlerLimits::new(1, 1 << 20), service: service(chance) };
        handler.limits.concurrency = number(chance, 1, 4);
        if chance.percent(40) {
            handler.limits.max_batch = size(chance, 2, 4);
        }
        let serial = handler.limits.concurrency == 1;
        let groups = vec![GroupPlan { handlers: vec![handler], workers: number(chance, 1, 3), serial }];
        let tenants: Vec<_> = (0..chance.below(4) + 2).map(|number| format!("t{number}")).collect();
        let config = SchedConfig { max_queued_bytes: usize::MAX, ..config(chance, &groups, &tenants) };
        let crowd = Crowd { arrivals: 400 * u32::try_from(tenants.len()).unwrap_or(1), ..Crowd::quiet(chance) };
        Self {
            config,
            groups,
            tenants,
            levels: vec![Priority::MIDDLE],
            crowd,
            faults: Faults { kills: 0, outages: 0, freezes: 0, drains: 0, downs: 0 },
            latency: micros(chance, 0, 300),
            lateness: Duration::ZERO,
            fair: true,
        }
    }

    pub(super) fn limits(&self, group: usize, handler: usize) -> &HandlerLimits {
        &self.groups[group].handlers[handler].limits
    }

    /// Nobody kills a worker but the requests themselves, and nobody shares a worker with a suspect.
    pub(super) fn only_poison_kills(&self) -> bool {
        let sequences = self.groups.iter().flat_map(|group| &group.handlers).any(|handler| handler.limits.sequence);
        self.faults.kills + self.faults.outages == 0 && !sequences
    }
}

impl fmt::Display for Scenario {
    /// Without the map of weights, whose order is another in every run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = |name| self.config.tenant_weights.get(name).copied().unwrap_or(1);
        let weights: Vec<_> = self.tenants.iter().map(weight).collect();
        let config = SchedConfig { tenant_weights: HashMap::new(), ..self.config.clone() };
        let Self { groups, levels, crowd, faults, latency, lateness, .. } = self;
        write!(f, "{groups:?}, {levels:?}, tenants {weights:?}, {crowd:?}, {faults:?}, {config:?}, ")?;
        write!(f, "latency {latency:?}, lateness {lateness:?}")
    }
}

fn config(chance: &mut Chance, groups: &[GroupPlan], tenants: &[String]) -> SchedConfig {
    let least = groups.iter().map(GroupPlan::credits).max().unwrap_or(1) + MAX_PREFETCH;
    let batch = groups.iter().flat_map(|group| &group.handlers).map(|handler| handler.limits.max_batch).max();
    let scarce = u32::try_from(batch.unwrap_or(1)).unwrap_or(1) + number(chance, 0, 8);
    let weights = tenants.iter().filter(|_| chance.percent(70)).cloned().collect::<Vec<_>>();
    SchedConfig {
        max_queued_bytes: size(chance, 3_000, 20_000),
        max_batch_bytes: size(chance, 1_000, 8_000),
        slots: if chance.percent(85) { least } else { scarce },
        overrun_grace: millis(chance, 1, 20),
        quarantine_ttl: millis(chance, 20, 5_000),
        sequence_idle: millis(chance, 10, 1_000),
        tenant_weights: weights.into_iter().map(|name| (name, number(chance, 1, 5))).collect::<HashMap<_, _>>(),
    }
}

fn crowd(chance: &mut Chance, groups: &[GroupPlan]) -> Crowd {
    let arrivals = number(chance, 30, 180);
    let total: Duration = groups.iter().map(GroupPlan::pace).sum();
    let even = total * arrivals / u32::try_from(groups.len()).unwrap_or(1);
    let load = number(chance, 30, 400);
    let span = (even * 100 / load).max(Duration::from_millis(2));
    Crowd {
        arrivals,
        span: if chance.percent(8) { span.max(millis(chance, 5_000, 40_000)) } else { span },
        bursts: *chance.pick(&[0, 30, 80]),
        deadlines: *chance.pick(&[0, 40, 90]),
        patience: total * number(chance, 2, 40) + micros(chance, 0, 3_000),
        leavers: *chance.pick(&[0, 10, 40]),
        poison: *chance.pick(&[0, 0, 2, 10]),
        hangs: *chance.pick(&[0, 0, 3]),
        raises: *chance.pick(&[0, 20]),
        surprises: 3,
    }
}

fn faults(chance: &mut Chance, span: Duration) -> Faults {
    if chance.percent(25) {
        return Faults { kills: 0, outages: 0, freezes: 0, drains: 0, downs: 0 };
    }
    let more = if span > Duration::from_secs(4) { 30 } else { 0 };
    Faults {
        kills: number(chance, 0, 6) + more,
        outages: u32::from(chance.percent(20)),
        freezes: number(chance, 0, 6),
        drains: number(chance, 0, 2),
        downs: *chance.pick(&[0, 50]),
    }
}

fn group(chance: &mut Chance) -> GroupPlan {
    let serial = chance.percent(45);
    let handlers = (0..=chance.below(3)).map(|_| handler(chance, serial)).collect();
    GroupPlan { handlers, workers: number(chance, 1, 4), serial }
}

fn handler(chance: &mut Chance, serial: bool) -> HandlerPlan {
    let concurrency = if serial { 1 } else { number(chance, 1, 5) };
    let mut limits = HandlerLimits::new(concurrency, size(chance, 1, 40));
    limits.idempotent = chance.percent(40);
    match chance.below(100) {
        0..30 => {
            limits.max_batch = size(chance, 2, 8);
            limits.max_delay = if chance.percent(50) { micros(chance, 100, 5_000) } else { Duration::ZERO };
        }
        30..45 => limits.sequence = true,
        _ => {}
    }
    HandlerPlan { limits, service: service(chance) }
}

fn service(chance: &mut Chance) -> Duration {
    Duration::from_micros(*chance.pick(&SERVICES))
}

/// A number from `least` to `most`.
fn number(chance: &mut Chance, least: u32, most: u32) -> u32 {
    least + u32::try_from(chance.below(u64::from(most - least) + 1)).unwrap_or(0)
}

fn size(chance: &mut Chance, least: u32, most: u32) -> usize {
    usize::try_from(number(chance, least, most)).unwrap_or(1)
}

fn micros(chance: &mut Chance, least: u32, most: u32) -> Duration {
    Duration::from_micros(number(chance, least, most).into())
}

fn millis(chance: &mut Chance, least: u32, most: u32) -> Duration {
    Duration::from_millis(number(chance, least, most).into())
}

// === impl GroupPlan ===

impl GroupPlan {
    /// Calls that one worker makes at the same time.
    pub(super) fn credits(&self) -> u32 {
        if self.serial { 1 } else { self.handlers.iter().map(|handler| handler.limits.concurrency).sum() }
    }

    /// Time between two answers of the whole group at its best.
    fn pace(&self) -> Duration {
        let usual: Duration = self.handlers.iter().map(|handler| handler.service).sum();
        let handlers = u32::try_from(self.handlers.len()).unwrap_or(1);
        usual / handlers / (self.credits() * self.workers)
    }
}

// === impl Crowd ===

impl Crowd {
    /// Nobody leaves, and nobody is in a hurry.
    fn quiet(chance: &mut Chance) -> Self {
        Self {
            arrivals: 0,
            span: micros(chance, 10, 3_000),
            bursts: 0,
            deadlines: 0,
            patience: Duration::ZERO,
            leavers: 0,
            poison: 0,
            hangs: 0,
            raises: 0,
            surprises: 0,
        }
    }
}
