//! A histogram of durations that is written without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, inclusive; everything above falls in the last one, which has none.
const BOUNDS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts durations by bucket.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram held at one instant.
pub(super) struct Reading {
    /// Seconds, summed up.
    pub(super) sum: f64,
    /// How many durations.
    pub(super) count: u64,
    /// Upper bound in seconds and durations of each bucket.
    pub(super) buckets: Vec<(f64, u64)>,
}

// === impl Histogram ===

impl Histogram {
    /// Counts one duration.
    pub(super) fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What it holds now.
    pub(super) fn read(&self) -> Reading {
        let counts = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain(std::iter::once(f64::INFINITY));
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        Reading { sum, count: counts.iter().sum(), buckets: bounds.zip(counts).collect() }
    }
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_one_more_to_the_next() {
        let histogram = Histogram::default();
        for us in [99, 100, 101, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let reading = histogram.read();
        let counts: Vec<_> = reading.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!((counts[0], counts[1], counts[17], counts[18]), (2, 1, 1, 1));
        assert_eq!(reading.count, 5);
    }
}
