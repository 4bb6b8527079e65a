//! Many replicas of an API server: what their registrations and heartbeats cost it.
//!
//! ```text
//! register all ──► heartbeats of all, evenly over each interval, on a few streams ──► leave all
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_proto::v1::capability_value::Value;
use anyserve_proto::v1::registry_client::RegistryClient;
use anyserve_proto::v1::{CapabilityValue, HeartbeatRequest, LeaveRequest, Load, Offer, RegisterRequest, Verdict};
use futures_util::stream::{self, StreamExt};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};

use crate::options::FleetOptions;

/// Registrations and leaves under way at once.
const AT_ONCE: usize = 64;
/// Heartbeats that may wait for their answers on one stream.
const WAITING: usize = 4096;
/// Replicas with the same capabilities.
const ALIKE: usize = 10;

/// Why the fleet could not be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FleetError {
    #[error("'{0}' is no address: {1}")]
    Address(String, #[source] tonic::transport::Error),
    #[error("the API server refused: {0}")]
    Refused(#[from] tonic::Status),
    #[error("the API server did not accept what replica '{0}' said")]
    NotAccepted(String),
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct FleetReport {
    replicas: usize,
    capabilities: usize,
    /// Registrations that were answered each second.
    registrations_per_s: f64,
    /// Heartbeats that were answered each second.
    heartbeats_per_s: f64,
    /// Heartbeats that were not accepted.
    refused: u64,
    /// From heartbeat to answer, in microseconds.
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

/// What one stream of heartbeats came to.
struct Beaten {
    latency: Histogram<u64>,
    refused: u64,
}

/// Runs the fleet for as long as the options say.
pub(crate) async fn run(options: &FleetOptions) -> Result<FleetReport, FleetError> {
    let address = |error| FleetError::Address(options.target.clone(), error);
    let endpoint = Endpoint::from_shared(format!("http://{}", options.target)).map_err(address)?;
    let client = RegistryClient::new(endpoint.tcp_nodelay(true).connect_lazy());
    let began = Instant::now();
    register(&client, options).await?;
    let registrations_per_s = per_second(options.replicas as u64, began.elapsed());
    let (latency, refused) = beat(&client, options).await?;
    leave(&client, options).await;
    Ok(FleetReport {
        replicas: options.replicas,
        capabilities: options.capabilities,
        registrations_per_s,
        heartbeats_per_s: per_second(latency.len(), options.duration),
        refused,
        p50_us: latency.value_at_quantile(0.5),
        p99_us: latency.value_at_quantile(0.99),
        max_us: latency.max(),
    })
}

fn per_second(count: u64, time: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / time.as_secs_f64()
}

async fn register(client: &RegistryClient<Channel>, options: &FleetOptions) -> Result<(), FleetError> {
    let requests = (0..options.replicas).map(|number| registration(number, options.capabilities));
    let calls = requests.map(|request| {
        let (mut client, id) = (client.clone(), request.id.clone());
        async move {
            let answer = client.register(request).await?.into_inner();
            if answer.verdict() == Verdict::Accepted { Ok(()) } else { Err(FleetError::NotAccepted(id)) }
        }
    });
    let mut calls = stream::iter(calls).buffer_unordered(AT_ONCE);
    while let Some(call) = calls.next().await {
        call?;
    }
    Ok(())
}

async fn leave(client: &RegistryClient<Channel>, options: &FleetOptions) {
    let calls = (0..options.replicas).map(|number| {
        let mut client = client.clone();
        async move { client.leave(LeaveRequest { id: name(number), epoch: 1 }).await }
    });
    // One that could not leave is forgotten when its lease is over.
    stream::iter(calls).buffer_unordered(AT_ONCE).for_each(|_| std::future::ready(())).await;
}

async fn beat(client: &RegistryClient<Channel>, options: &FleetOptions) -> Result<(Histogram<u64>, u64), FleetError> {
    let streams = options.streams.min(options.replicas);
    let until = Instant::now() + options.duration;
    let mut all = JoinSet::new();
    for stream in 0..streams {
        let numbers: Vec<_> = (stream..options.replicas).step_by(streams).collect();
        all.spawn(beat_one(client.clone(), numbers, options.capabilities, options.interval, until));
    }
    let (mut latency, mut refused) = (histogram(), 0);
    while let Some(beaten) = all.join_next().await {
        let beaten = beaten.expect("a stream of heartbeats does not panic")?;
        latency.add(&beaten.latency).expect("all have the same bounds");
        refused += beaten.refused;
    }
    Ok((latency, refused))
}

/// Heartbeats of some replicas on one stream, whose answers come in their order.
async fn beat_one(
    mut client: RegistryClient<Channel>,
    numbers: Vec<usize>,
    capabilities: usize,
    interval: Duration,
    until: Instant,
) -> Result<Beaten, FleetError> {
    let (beats, outgoing) = mpsc::channel(WAITING);
    let (sent, mut due) = mpsc::channel::<Instant>(WAITING);
    let incoming = stream::unfold(outgoing, |mut outgoing| async { Some((outgoing.recv().await?, outgoing)) });
    let pause = interval / u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    let sender = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let loads = Arc::new(vec![load(); capabilities]);
        for turn in 2_u64.. {
            for number in &numbers {
                ticks.tick().await;
                let gone = sent.send(Instant::now()).await.is_err();
                if gone || Instant::now() >= until || beats.send(heartbeat(*number, turn, &loads)).await.is_err() {
                    return;
                }
            }
        }
    });
    let mut answers = client.heartbeat(incoming).await?.into_inner();
    let mut beaten = Beaten { latency: histogram(), refused: 0 };
    while let Some(answer) = answers.message().await? {
        let Some(at) = due.recv().await else { break };
        let micros = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
        beaten.latency.saturating_record(micros);
        beaten.refused += u64::from(answer.verdict() != Verdict::Accepted);
    }
    sender.abort();
    Ok(beaten)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are good")
}

fn name(number: usize) -> String {
    format!("replica-{number}")
}

fn registration(number: usize, capabilities: usize) -> RegisterRequest {
    let offers = (0..capabilities).map(|place| Offer {
        capability: capability(number / ALIKE, place),
        idempotent: false,
        slots: 1,
        load: Some(load()),
    });
    RegisterRequest {
        id: name(number),
        epoch: 1,
        seq: 1,
        // Nobody sends anything there.
        endpoint: format!("http://127.0.0.1:{}", 1 + number % 65_535),
        draining: false,
        offers: offers.collect(),
        upgrades: Vec::new(),
    }
}

fn capability(kind: usize, place: usize) -> BTreeMap<String, CapabilityValue> {
    let text = |text: String| CapabilityValue { value: Some(Value::Text(text)) };
    BTreeMap::from([
        ("type".to_owned(), text(format!("t{place}"))),
        ("model".to_owned(), text(format!("m{}", kind * 1000 + place))),
    ])
}

fn load() -> Load {
    Load { ready: true, saturated: false, pending: 1, wait_us: 100, service_us: 1000 }
}

fn heartbeat(number: usize, seq: u64, loads: &[Load]) -> HeartbeatRequest {
    HeartbeatRequest { id: name(number), epoch: 1, seq, registered: 1, draining: false, loads: loads.to_vec() }
}

// === impl FleetReport ===

impl fmt::Display for FleetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} replicas with {} capabilities each", self.replicas, self.capabilities)?;
        writeln!(f, "registrations  {:.0} per second", self.registrations_per_s)?;
        writeln!(f, "heartbeats     {:.0} per second, {} refused", self.heartbeats_per_s, self.refused)?;
        writeln!(f, "answered in    p50 {} us, p99 {} us, at most {} us", self.p50_us, self.p99_us, self.max_us)
    }
}
