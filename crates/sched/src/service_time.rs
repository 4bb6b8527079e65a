//! How long a handler takes, as exponentially weighted averages.

use std::time::Duration;

/// Average service time; unknown until the first measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTime {
    /// One measurement moves it by 1/8 of the difference.
    average_ns: Option<u64>,
    /// The same, but a much longer measurement counts at once and in full.
    cautious_ns: Option<u64>,
}

const WEIGHT_SHIFT: u32 = 3;
/// A measurement beyond so many averages is a surprise.
const SURPRISE: u64 = 8;

// === impl ServiceTime ===

impl ServiceTime {
    /// Takes a measurement in.
    pub fn observe(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let moved = |old: u64| old - (old >> WEIGHT_SHIFT) + (took >> WEIGHT_SHIFT);
        self.average_ns = Some(self.average_ns.map_or(took, moved));
        self.cautious_ns = Some(match self.cautious_ns {
            Some(old) if took <= old.saturating_mul(SURPRISE) => moved(old),
            _ => took,
        });
    }

    /// The average, if anything was measured: what many requests together are expected to take.
    pub fn average(&self) -> Option<Duration> {
        self.average_ns.map(Duration::from_nanos)
    }

    /// The average that jumps up at once: what follows a surprise must not be planned on the good days alone.
    pub fn cautious(&self) -> Option<Duration> {
        self.cautious_ns.map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_moves_slowly_and_the_cautious_one_jumps_up() {
        let mut time = ServiceTime::default();
        assert_eq!((time.average(), time.cautious()), (None, None));
        time.observe(Duration::from_nanos(800));
        time.observe(Duration::from_nanos(0));
        assert_eq!(time.average(), Some(Duration::from_nanos(700)));
        time.observe(Duration::from_secs(1));
        assert_eq!(time.average(), Some(Duration::from_nanos(613 + 125_000_000)));
        assert_eq!(time.cautious(), Some(Duration::from_secs(1)));
    }
}
