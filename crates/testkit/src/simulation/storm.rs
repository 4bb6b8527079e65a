//! Many seeds, on as many threads as there are cores. Which thread runs a seed makes no difference to it.

use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{Run, Tally, Weather, run};

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Storm {
    /// How often what happened, over all seeds.
    pub tally: Tally,
    /// The lowest seed in which a check did not hold, with everything that happened there.
    pub broken: Option<Run>,
}

/// Runs all these seeds; after a failure no more are begun.
pub fn storm(weather: Weather, seeds: Range<u64>) -> Storm {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let parts = thread::scope(|scope| {
        let helpers: Vec<_> = (0..threads).map(|_| scope.spawn(|| take_seeds(weather, &next, seeds.end))).collect();
        helpers.into_iter().map(|helper| helper.join().expect("a world returns what broke")).collect::<Vec<_>>()
    });
    parts.into_iter().fold(Storm::default(), Storm::join)
}

fn take_seeds(weather: Weather, next: &AtomicU64, end: u64) -> Storm {
    let mut storm = Storm::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return storm;
        }
        let gone = run(weather, seed, false);
        storm.tally.add(&gone.tally);
        if gone.broken.is_some() {
            next.store(end, Ordering::Relaxed);
            storm.broken = Some(run(weather, seed, true));
            return storm;
        }
    }
}

// === impl Storm ===

impl Storm {
    fn join(mut self, other: Self) -> Self {
        self.tally.add(&other.tally);
        let both = self.broken.into_iter().chain(other.broken);
        self.broken = both.min_by_key(|run| run.seed);
        self
    }
}
