//! What became of the requests: one histogram, and failures by kind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::exchange::{Failure, Success};

/// The longest latency told apart; longer ones count as this.
const LONGEST: Duration = Duration::from_hours(1);

/// The outcomes of requests that started at or after a moment.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counts_from: Instant,
    /// Latencies of successes, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Times to the first message of a stream, in nanoseconds.
    pub(crate) first: Histogram<u64>,
    pub(crate) failures: BTreeMap<String, Failures>,
    /// The fewest and the most messages in a successful answer.
    pub(crate) messages: Option<(u64, u64)>,
    pub(crate) last_at: Option<Instant>,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// What the first of them said.
    pub(crate) example: String,
}

impl Tally {
    pub(crate) fn new(counts_from: Instant) -> Self {
        Self {
            counts_from,
            latency: histogram(),
            first: histogram(),
            failures: BTreeMap::new(),
            messages: None,
            last_at: None,
        }
    }

    /// Takes the outcome of a request that was sent, or due, at `start` and ended at `end`.
    pub(crate) fn record(&mut self, start: Instant, end: Instant, outcome: Result<Success, Failure>) {
        if start < self.counts_from {
            return;
        }
        self.last_at = Some(end);
        match outcome {
            Ok(success) => self.succeed(start, end, success),
            Err(failure) => self.fail(failure),
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// Successes and failures together.
    pub(crate) fn ended(&self) -> u64 {
        self.latency.len() + self.failed()
    }

    fn succeed(&mut self, start: Instant, end: Instant, success: Success) {
        self.latency.saturating_record(nanos_between(start, end));
        if let Some(first_at) = success.first_at {
            self.first.saturating_record(nanos_between(start, first_at));
        }
        let (fewest, most) = self.messages.unwrap_or((u64::MAX, 0));
        self.messages = Some((fewest.min(success.messages), most.max(success.messages)));
    }

    fn fail(&mut self, failure: Failure) {
        self.failures
            .entry(failure.kind.into_owned())
            .or_insert(Failures { count: 0, example: failure.detail })
            .count += 1;
    }
}

fn histogram() -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_nanos()).expect("an hour in nanoseconds fits");
    Histogram::new_with_bounds(1, longest, 3).expect("the bounds are constants within the rules")
}

fn nanos_between(start: Instant, end: Instant) -> u64 {
    u64::try_from(end.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    const OK: Result<Success, Failure> = Ok(Success { first_at: None, messages: 1 });

    fn ms(histogram: &Histogram<u64>, percentile: f64) -> u64 {
        histogram.value_at_percentile(percentile) / 1_000_000
    }

    #[test]
    fn percentiles_of_one_to_a_hundred_milliseconds_are_their_own_numbers() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for latency in 1..=100 {
            tally.record(start, start + Duration::from_millis(latency), OK);
        }
        assert_eq!(ms(&tally.latency, 50.0), 50);
        assert_eq!(ms(&tally.latency, 90.0), 90);
        assert_eq!(ms(&tally.latency, 99.0), 99);
        assert_eq!(ms(&tally.latency, 99.9), 100);
        assert_eq!(tally.latency.len(), 100);
    }

    #[test]
    fn a_microsecond_is_told_from_the_next_at_a_tenth_of_a_percent() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.record(start, start + Duration::from_micros(119), OK);
        let seen = tally.latency.value_at_percentile(50.0);
        assert!(seen.abs_diff(119_000) <= 119, "{seen}");
    }

    #[test]
    fn a_stalled_server_cannot_hide_its_stall_in_an_open_loop() {
        // 100 requests per second on one lane; each takes 1 ms, but the first stalls for 1 s.
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, "100".parse().unwrap());
        let (mut corrected, mut naive) = (Tally::new(begin), Tally::new(begin));
        let mut free_at = begin;
        for index in 0..200 {
            let due = schedule.advance();
            let sent = due.max(free_at);
            free_at = sent + Duration::from_millis(if index == 0 { 1000 } else { 1 });
            corrected.record(due, free_at, OK);
            naive.record(sent, free_at, OK);
        }
        assert_eq!(ms(&naive.latency, 99.0), 1);
        assert!(ms(&corrected.latency, 99.0) > 950);
        assert!(ms(&corrected.latency, 75.0) > 500);
    }

    #[test]
    fn what_started_before_the_window_does_not_count() {
        let from = Instant::now() + Duration::from_secs(1);
        let mut tally = Tally::new(from);
        let end = from + Duration::from_secs(1);
        tally.record(from.checked_sub(Duration::from_nanos(1)).unwrap(), end, OK);
        assert_eq!((tally.ended(), tally.last_at), (0, None));
        tally.record(from, end, OK);
        assert_eq!((tally.ended(), tally.last_at), (1, Some(end)));
    }

    #[test]
    fn failures_are_counted_by_kind_with_the_first_example_and_no_latency() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        for (kind, detail) in [("Unavailable", "a"), ("Unavailable", "b"), ("HTTP 500", "c")] {
            tally.record(start, start, Err(Failure::refused(kind, detail)));
        }
        let unavailable = Failures { count: 2, example: "a".to_owned() };
        assert_eq!(tally.failures["Unavailable"], unavailable);
        assert_eq!((tally.failed(), tally.ended(), tally.latency.len()), (3, 3, 0));
    }

    #[test]
    fn a_latency_beyond_the_longest_is_kept_as_the_longest() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.record(start, start + 2 * LONGEST, OK);
        assert_eq!(tally.latency.len(), 1);
        assert!(ms(&tally.latency, 100.0) >= 3_600_000);
    }
}
