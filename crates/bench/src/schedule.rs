//! When an open loop's requests are due, by arithmetic alone.

use std::str::FromStr;
use std::time::{Duration, Instant};

const NANOS_TIMES_MILLI: u128 = 1_000_000_000_000;

/// Requests per second, positive, exact to a thousandth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    per_1000_s: u64,
}

/// The due times of an open loop: request `i` at `start + i / rate`, whatever became of the others.
///
/// Latency counted from the due time rather than from the moment of sending is what keeps a
/// stalled server from hiding its stall (coordinated omission): requests that could not be sent
/// while it stood still have waited, and their wait is measured.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    rate: Rate,
    next: u64,
}

// === impl Rate ===

impl Rate {
    pub(crate) fn per_second(self) -> f64 {
        Duration::from_millis(self.per_1000_s).as_secs_f64()
    }

    /// How many requests are due within `time`, the one at its very start included.
    pub(crate) fn due_within(self, time: Duration) -> u64 {
        let due = (time.as_nanos() * u128::from(self.per_1000_s)).div_ceil(NANOS_TIMES_MILLI);
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    fn offset(self, index: u64) -> Duration {
        let nanos = u128::from(index) * NANOS_TIMES_MILLI / u128::from(self.per_1000_s);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_rate = || format!("{text:?} is no positive number of requests per second");
        let per_second: f64 = text.parse().map_err(|_| no_rate())?;
        let scaled = Duration::try_from_secs_f64(per_second).map_err(|_| no_rate())?;
        let per_1000_s = u64::try_from(scaled.as_millis()).map_err(|_| no_rate())?;
        if per_1000_s == 0 {
            return Err(no_rate());
        }
        Ok(Self { per_1000_s })
    }
}

// === impl Schedule ===

impl Schedule {
    pub(crate) fn new(start: Instant, rate: Rate) -> Self {
        Self { start, rate, next: 0 }
    }

    /// The next request's due time; the following call gives the one after it.
    pub(crate) fn advance(&mut self) -> Instant {
        let due = self.start + self.rate.offset(self.next);
        self.next += 1;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn request_i_is_due_i_periods_after_the_start_without_drift() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, rate("3"));
        let dues: Vec<_> = (0..3001).map(|_| schedule.advance() - start).collect();
        assert_eq!(dues[0], Duration::ZERO);
        assert_eq!(dues[1], Duration::from_nanos(333_333_333));
        assert_eq!(dues[3000], Duration::from_secs(1000));
    }

    #[test]
    fn rates_below_one_and_fractions_are_exact() {
        assert_eq!(rate("0.5").offset(1), Duration::from_secs(2));
        assert_eq!(rate("2.5").offset(5), Duration::from_secs(2));
        assert!((rate("2.5").per_second() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn the_requests_due_in_a_window_are_those_that_start_inside_it() {
        assert_eq!(rate("10").due_within(Duration::ZERO), 0);
        assert_eq!(rate("10").due_within(Duration::from_millis(99)), 1);
        assert_eq!(rate("10").due_within(Duration::from_secs(1)), 10);
        assert_eq!(rate("10").due_within(Duration::from_millis(1001)), 11);
    }

    #[test]
    fn nothing_but_a_positive_number_is_a_rate() {
        for text in ["0", "-1", "nan", "inf", "many", "0.0001"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
