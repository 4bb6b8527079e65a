//! The load loop: lanes that ask the gate, exchange and record, and the driver that times them.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use crate::exchange::{Failure, Flow, Lane, Meter, Protocol, Success};
use crate::gate::{Gate, Window};
use crate::schedule::Rate;
use crate::tally::Tally;
use crate::usage::cpu_time;

/// How long requests in flight at the end may take to finish.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause before a lost connection is opened again.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

/// How hard to load and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) rate: Option<Rate>,
    pub(crate) duration: Duration,
    pub(crate) requests: Option<NonZeroU64>,
    pub(crate) warmup: Duration,
    pub(crate) stall: Duration,
    pub(crate) check_echo: bool,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    pub(crate) flow: Flow,
    /// CPU time of this process while measuring.
    pub(crate) cpu: Duration,
    /// Open loop: requests that were due and got no answer before the end.
    pub(crate) unanswered: u64,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LoadError {
    #[error("cannot connect to {target}: {source}")]
    Connect { target: String, source: io::Error },
    #[error("the first request failed with {}: {}", .0.kind, .0.detail)]
    Probe(Failure),
    #[error("the answer to the first request is no echo of its payload")]
    NotAnEcho,
    #[error("cannot make a timer: {0}")]
    Timer(#[source] io::Error),
}

/// What the lanes share.
#[derive(Debug)]
struct Load {
    gate: Gate,
    tally: Mutex<Tally>,
    meter: Meter,
}

/// Readings at the start of the measured time.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    at: Instant,
    flow: Flow,
    cpu: Duration,
}

/// Loads the protocol's target as planned.
///
/// # Errors
/// The target could not be reached at first, or `check_echo` found no echo. Later failures are
/// counted in the result.
///
/// # Cancel safety
/// Dropping the future closes every connection; nothing is reported.
pub(crate) async fn run<P: Protocol>(protocol: P, plan: Plan) -> Result<Measured, LoadError> {
    let connect_error = |source| LoadError::Connect { target: protocol.title().target, source };
    let (connections, lanes) = layout::<P>(&plan);
    let mut first = protocol.connect(lanes).await.map_err(connect_error)?;
    if plan.check_echo {
        check_echo(&protocol, &mut first[0]).await?;
    }
    let mut opened = vec![first];
    while opened.len() < connections {
        opened.push(protocol.connect(lanes).await.map_err(connect_error)?);
    }
    let load = Arc::new(Load::try_new(&plan).map_err(LoadError::Timer)?);
    let protocol = Arc::new(protocol);
    let mut running = JoinSet::new();
    for lanes in opened {
        running.spawn(keep_loading(Arc::clone(&protocol), lanes, Arc::clone(&load)));
    }
    Ok(measure(&plan, &load, running).await)
}

/// Connections, and lanes on each.
fn layout<P: Protocol>(plan: &Plan) -> (usize, usize) {
    if P::MULTIPLEXED { (plan.connections, plan.in_flight) } else { (plan.connections * plan.in_flight, 1) }
}

async fn check_echo<P: Protocol>(protocol: &P, lane: &mut P::Lane) -> Result<(), LoadError> {
    let mut answer = Vec::new();
    let uncounted = Meter::default();
    let exchange = lane.exchange(&uncounted, |piece| answer.extend_from_slice(&piece));
    exchange.await.map_err(LoadError::Probe)?;
    if protocol.is_echo(&answer) { Ok(()) } else { Err(LoadError::NotAnEcho) }
}

/// Loads one connection, and its successors when it breaks, until the gate closes.
async fn keep_loading<P: Protocol>(protocol: Arc<P>, mut lanes: Vec<P::Lane>, load: Arc<Load>) {
    let count = lanes.len();
    loop {
        let mut running = JoinSet::new();
        for lane in lanes {
            running.spawn(keep_exchanging(lane, Arc::clone(&load)));
        }
        join_all(&mut running).await;
        lanes = loop {
            if !load.gate.may_start() {
                return;
            }
            match protocol.connect(count).await {
                Ok(lanes) => break lanes,
                Err(error) => load.record(Instant::now(), Err(Failure::broken("connect", &error))),
            }
            sleep(RECONNECT_AFTER).await;
        };
    }
}

async fn keep_exchanging(mut lane: impl Lane, load: Arc<Load>) {
    while let Some(start) = load.gate.next().await {
        let outcome = lane.exchange(&load.meter, drop).await;
        let lost = outcome.as_ref().is_err_and(|failure| failure.lane_lost);
        load.record(start, outcome);
        if lost {
            return;
        }
    }
}

async fn measure(plan: &Plan, load: &Arc<Load>, mut running: JoinSet<()>) -> Measured {
    let window = load.gate.window();
    sleep_until(window.from.into()).await;
    let baseline = load.begin(plan);
    tokio::select! {
        () = join_all(&mut running) => {}
        () = sleep_until(window.until.into()) => {}
        () = stalled(&load.meter, plan.stall) => {}
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
    if Instant::now() < window.until {
        load.gate.close();
    }
    // An open loop owes an answer to everything that was due; a closed loop's window just ends.
    if plan.counts_starts() {
        drain(&mut running).await;
        load.end(plan, baseline)
    } else {
        let measured = load.end(plan, baseline);
        drain(&mut running).await;
        measured
    }
}

async fn join_all(running: &mut JoinSet<()>) {
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn drain(running: &mut JoinSet<()>) {
    // What is still in flight after that is aborted when the set is dropped.
    let _ = timeout(DRAIN, join_all(running)).await;
}

/// Returns when nothing has been received for `limit`.
async fn stalled(meter: &Meter, limit: Duration) {
    let mut seen = (meter.read(), Instant::now());
    loop {
        sleep(limit / 8).await;
        let flow = meter.read();
        if flow != seen.0 {
            seen = (flow, Instant::now());
        } else if seen.1.elapsed() >= limit {
            return;
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Whether a request belongs to the run if it *started* in the window (open loop, or a given
    /// number of them) rather than if it ended there (closed loop for a time).
    fn counts_starts(&self) -> bool {
        self.rate.is_some() || self.requests.is_some()
    }

    /// How many requests are due in the window, if that is fixed beforehand.
    fn due(&self) -> Option<u64> {
        let rate = self.rate.filter(|_| self.requests.is_none())?;
        Some(rate.due_within(self.warmup + self.duration) - rate.due_within(self.warmup))
    }
}

// === impl Load ===

impl Load {
    fn try_new(plan: &Plan) -> io::Result<Self> {
        let now = Instant::now();
        let from = now + plan.warmup;
        let window = Window { from, until: from + plan.duration };
        let requests = plan.requests.map(NonZeroU64::get);
        let gate = Gate::try_new(window, requests, plan.rate.map(|rate| (now, rate)))?;
        let counts_from = if plan.counts_starts() { from } else { now };
        Ok(Self { gate, tally: Mutex::new(Tally::new(counts_from)), meter: Meter::default() })
    }

    fn record(&self, start: Instant, outcome: Result<Success, Failure>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.record(start, Instant::now(), outcome);
    }

    fn begin(&self, plan: &Plan) -> Baseline {
        if !plan.counts_starts() {
            self.take_tally();
        }
        Baseline { at: Instant::now(), flow: self.meter.read(), cpu: cpu_time() }
    }

    fn end(&self, plan: &Plan, baseline: Baseline) -> Measured {
        let cpu = cpu_time().saturating_sub(baseline.cpu);
        let tally = self.take_tally();
        let last_at = if plan.counts_starts() { tally.last_at } else { None };
        let end = last_at.unwrap_or_else(Instant::now);
        Measured {
            elapsed: end.saturating_duration_since(baseline.at),
            flow: self.meter.read().since(baseline.flow),
            cpu,
            unanswered: plan.due().map_or(0, |due| due.saturating_sub(tally.ended())),
            tally,
        }
    }

    /// Takes what was recorded and starts over with everything that ends from now on.
    fn take_tally(&self) -> Tally {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Tally::new(tally.counts_from);
        std::mem::replace(&mut tally, fresh)
    }
}
