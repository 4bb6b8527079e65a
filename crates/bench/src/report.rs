//! What a run says at its end: lines for people, one line of JSON for programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::exchange::Title;
use crate::load::{Measured, Plan};

/// The result of a run. Field names are the keys of `--json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) protocol: &'static str,
    pub(crate) target: String,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    /// Requests per second asked for; `null` in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) elapsed_s: f64,
    /// Requests that succeeded.
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) error_kinds: Vec<ErrorKind>,
    /// Open loop: requests that were due and had no answer when the run ended.
    pub(crate) unanswered: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) latency_us: Option<Percentiles>,
    /// Time to a stream's first message.
    pub(crate) first_message_us: Option<Percentiles>,
    pub(crate) messages_per_s: f64,
    /// The fewest and the most messages in one answer.
    pub(crate) messages_per_request: Option<(u64, u64)>,
    pub(crate) request_bytes: usize,
    pub(crate) sent_bytes_per_s: f64,
    pub(crate) received_bytes_per_s: f64,
    /// What the generator itself cost, by request and in cores.
    pub(crate) cpu_us_per_request: f64,
    pub(crate) cpu_cores: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ErrorKind {
    pub(crate) kind: String,
    pub(crate) count: u64,
    pub(crate) example: String,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) mean: f64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(title: Title, plan: &Plan, measured: &Measured) -> Self {
        let tally = &measured.tally;
        let requests = tally.latency.len();
        let seconds = measured.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let requests_per_s = float(requests) / seconds;
        let request_bytes = u64::try_from(title.request_bytes).unwrap_or(u64::MAX);
        Self {
            protocol: title.protocol,
            target: title.target,
            connections: plan.connections,
            in_flight: plan.in_flight,
            rate: plan.rate.map(crate::schedule::Rate::per_second),
            elapsed_s: measured.elapsed.as_secs_f64(),
            requests,
            errors: tally.failed(),
            error_kinds: error_kinds(measured),
            unanswered: measured.unanswered,
            requests_per_s,
            latency_us: Percentiles::of(&tally.latency),
            first_message_us: Percentiles::of(&tally.first),
            messages_per_s: float(measured.flow.messages) / seconds,
            messages_per_request: tally.messages,
            request_bytes: title.request_bytes,
            sent_bytes_per_s: float(request_bytes) * requests_per_s,
            received_bytes_per_s: float(measured.flow.bytes) / seconds,
            cpu_us_per_request: micros(measured.cpu) / float(tally.ended().max(1)),
            cpu_cores: measured.cpu.as_secs_f64() / seconds,
        }
    }

    fn loop_kind(&self) -> String {
        match self.rate {
            Some(rate) => format!("open loop at {rate}/s"),
            None => "closed loop".to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, target, connections, in_flight, .. } = self;
        let kind = self.loop_kind();
        writeln!(f, "{protocol} {target}, {connections} x {in_flight} in flight, {kind}")?;
        let (rate, elapsed) = (self.requests_per_s, self.elapsed_s);
        writeln!(f, "  requests   {rate:.1}/s ({} in {elapsed:.2} s)", self.requests)?;
        write_percentiles(f, "latency", self.latency_us)?;
        if self.first_message_us.is_some() {
            write_percentiles(f, "first", self.first_message_us)?;
            writeln!(f, "  messages   {:.1}/s", self.messages_per_s)?;
        }
        let (sent, received) = (self.sent_bytes_per_s / 1e6, self.received_bytes_per_s / 1e6);
        writeln!(f, "  bytes      {sent:.2} MB/s sent, {received:.2} MB/s received")?;
        let (cost, cores) = (self.cpu_us_per_request, self.cpu_cores);
        writeln!(f, "  generator  {cost:.1} µs of CPU per request, {cores:.2} cores")?;
        writeln!(f, "  errors     {}", self.errors)?;
        for error in &self.error_kinds {
            writeln!(f, "    {} x {}: {}", error.count, error.kind, error.example)?;
        }
        if self.unanswered > 0 {
            writeln!(f, "  unanswered {} requests were due and had no answer", self.unanswered)?;
        }
        Ok(())
    }
}

fn write_percentiles(f: &mut fmt::Formatter<'_>, name: &str, percentiles: Option<Percentiles>) -> fmt::Result {
    let Some(at) = percentiles else { return Ok(()) };
    write!(f, "  {name:<10} p50 {}  p90 {}", time(at.p50), time(at.p90))?;
    writeln!(f, "  p99 {}  p99.9 {}  max {}", time(at.p99), time(at.p99_9), time(at.max))
}

fn time(micros: f64) -> String {
    if micros < 10_000.0 { format!("{micros:.0} µs") } else { format!("{:.1} ms", micros / 1e3) }
}

fn error_kinds(measured: &Measured) -> Vec<ErrorKind> {
    let kinds = measured.tally.failures.iter();
    kinds
        .map(|(kind, failures)| ErrorKind {
            kind: kind.clone(),
            count: failures.count,
            example: failures.example.clone(),
        })
        .collect()
}

// === impl Percentiles ===

impl Percentiles {
    fn of(nanos: &Histogram<u64>) -> Option<Self> {
        let at = |percentile| float(nanos.value_at_percentile(percentile)) / 1e3;
        (!nanos.is_empty()).then(|| Self {
            mean: nanos.mean() / 1e3,
            min: float(nanos.min()) / 1e3,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: float(nanos.max()) / 1e3,
        })
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Counts and nanoseconds of a run stay far below 2^53, where this would begin to round.
#[expect(clippy::cast_precision_loss, reason = "there is no TryFrom<u64> for f64")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_microseconds_and_absent_without_data() {
        let mut nanos = Histogram::<u64>::new(3).unwrap();
        assert!(Percentiles::of(&nanos).is_none());
        nanos.record(1_000).unwrap();
        nanos.record(3_000).unwrap();
        let percentiles = Percentiles::of(&nanos).unwrap();
        assert!((percentiles.min - 1.0).abs() < 0.01);
        assert!((percentiles.p50 - 1.0).abs() < 0.01);
        assert!((percentiles.mean - 2.0).abs() < 0.01);
        assert!((percentiles.p99_9 - 3.0).abs() < 0.01);
    }

    #[test]
    fn times_are_shown_in_the_unit_that_reads_best() {
        assert_eq!(time(119.4), "119 µs");
        assert_eq!(time(25_340.0), "25.3 ms");
    }
}
