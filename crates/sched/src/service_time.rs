//! How long a handler takes, as an exponentially weighted average.

use std::time::Duration;

/// Average service time; unknown until the first measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTime {
    average_ns: Option<u64>,
}

/// One measurement moves the average by 1/8 of the difference.
const WEIGHT_SHIFT: u32 = 3;

// === impl ServiceTime ===

impl ServiceTime {
    /// Takes a measurement in. A longer one counts at once and in full: what follows it must not be planned on the
    /// good days alone.
    pub fn observe(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let next = match self.average_ns {
            None => took,
            Some(old) if took > old.saturating_mul(8) => took,
            Some(old) => old - (old >> WEIGHT_SHIFT) + (took >> WEIGHT_SHIFT),
        };
        self.average_ns = Some(next);
    }

    /// The average, if anything was measured.
    pub fn average(&self) -> Option<Duration> {
        self.average_ns.map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_slowly_down_and_jumps_up() {
        let mut time = ServiceTime::default();
        assert_eq!(time.average(), None);
        time.observe(Duration::from_nanos(800));
        time.observe(Duration::from_nanos(0));
        assert_eq!(time.average(), Some(Duration::from_nanos(700)));
        time.observe(Duration::from_secs(1));
        assert_eq!(time.average(), Some(Duration::from_secs(1)));
    }
}
