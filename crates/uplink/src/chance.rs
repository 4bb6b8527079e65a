//! Seeded chance, so that replicas that start together do not speak together.

use std::time::Duration;

/// A small generator of pseudo-random numbers.
///
/// Source: `SplitMix64`, Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

// === impl Chance ===

impl Chance {
    /// The same seed gives the same times.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time from so many percent of another one up to that one.
    pub(crate) fn spread(&mut self, percent: u32, time: Duration) -> Duration {
        let least = time * percent.min(100) / 100;
        let span = u64::try_from(time.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
        least + Duration::from_micros(self.number() % span.saturating_add(1).max(1))
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_within_their_bounds_and_spread_over_them() {
        let mut chance = Chance::new(7);
        let second = Duration::from_secs(1);
        let times: Vec<_> = (0..1_000).map(|_| chance.spread(50, second)).collect();
        assert!(times.iter().all(|time| (second / 2..=second).contains(time)));
        assert!(
            times.iter().any(|time| *time < second * 55 / 100) && times.iter().any(|time| *time > second * 95 / 100)
        );
        assert_eq!(chance.spread(100, second), second);
        assert_eq!(chance.spread(0, Duration::ZERO), Duration::ZERO);
    }
}
