//! The allocator against a naive one, and recorded mixes of allocations replayed.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

#[path = "allocator/generator.rs"]
mod generator;
#[path = "allocator/mix.rs"]
mod mix;
#[path = "allocator/naive.rs"]
mod naive;

use anyserve_shm::{ALIGNMENT, Allocator};
use mix::{Mix, replay};
use naive::Naive;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

#[derive(Clone, Debug)]
enum Op {
    Take(u64),
    /// Gives back one of those that are taken.
    Give(usize),
    /// Gives back all of one but so many sixteenths.
    Shrink(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![0..200_u64, 0..2000_u64, Just(64), Just(128), Just(u64::MAX), Just(u64::MAX - 63)];
    prop_oneof![
        5 => len.prop_map(Op::Take),
        4 => any::<usize>().prop_map(Op::Give),
        1 => (any::<usize>(), 0..17_u64).prop_map(|(pick, sixteenths)| Op::Shrink(pick, sixteenths)),
    ]
}

/// Both allocators, and what they gave: (start, length).
struct Pair {
    real: Allocator,
    naive: Naive,
    taken: Vec<(u64, u64)>,
}

impl Pair {
    fn new(capacity: u64) -> Self {
        Self { real: Allocator::new(capacity), naive: Naive::new(capacity), taken: Vec::new() }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Take(len) => {
                let start = self.real.allocate(len);
                assert_eq!(start, self.naive.allocate(len), "best fit, lowest address first, for {len}");
                self.taken.extend(start.map(|start| (start, len)));
            }
            Op::Give(pick) if !self.taken.is_empty() => {
                let (start, len) = self.taken.swap_remove(pick % self.taken.len());
                self.real.release(start, len);
                self.naive.release(start, len);
            }
            Op::Shrink(pick, sixteenths) if !self.taken.is_empty() => {
                let place = pick % self.taken.len();
                let (start, len) = self.taken[place];
                let wanted = len * sixteenths / 16;
                self.real.shrink(start, len, wanted);
                self.naive.shrink(start, len, wanted);
                self.taken[place].1 = wanted;
            }
            Op::Give(_) | Op::Shrink(..) => {}
        }
    }

    fn check(&self) {
        assert_eq!(self.real.free(), self.naive.free());
        assert_eq!(self.real.used() + self.real.free(), self.real.capacity());
        assert_eq!(self.real.longest(), self.naive.longest(), "neighbours are joined");
        let mut ends: Vec<_> = self.taken.iter().map(|(start, len)| (*start, start + (*len).max(1))).collect();
        ends.sort_unstable();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two blocks overlap: {ends:?}");
        assert!(ends.iter().all(|(start, end)| start % ALIGNMENT == 0 && *end <= self.real.capacity()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_takes_and_gives_as_a_naive_allocator_does(
        capacity in 0..9000_u64,
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut pair = Pair::new(capacity);
        for op in &ops {
            pair.apply(op);
            pair.check();
        }
        while !pair.taken.is_empty() {
            pair.apply(&Op::Give(0));
        }
        prop_assert_eq!((pair.real.used(), pair.real.longest()), (0, capacity / ALIGNMENT * ALIGNMENT));
    }
}

/// A mix never fails in an arena of 4/3 of what lives at its peak: at most a quarter of an arena is lost to fragments.
#[test]
fn every_mix_fits_into_four_thirds_of_its_peak() {
    let mixes = Mix::all();
    assert!(!mixes.is_empty());
    for mix in mixes {
        let outcome = replay(&mix, mix.peak() * 4 / 3);
        println!("{}: {outcome}; the least arena is {:.1} % of the peak", mix.name, least_percent(&mix));
        assert_eq!(outcome.failed, 0, "{}: {outcome}", mix.name);
    }
}

/// The least arena, in steps of half a percent of the peak, in which the whole mix fits.
#[allow(clippy::cast_precision_loss)]
fn least_percent(mix: &Mix) -> f64 {
    let fits = |halves: &u64| replay(mix, mix.peak() * halves / 200).failed == 0;
    (200..300_u64).find(fits).unwrap_or(300) as f64 / 2.0
}

/// `ANYSERVE_WRITE_MIXES=1` writes the file anew.
#[test]
fn the_synthetic_mix_is_what_its_generator_makes() {
    let path = Mix::dir().join("synthetic-serving.txt");
    let text = generator::serving(0xA11_0CA7E);
    if std::env::var_os("ANYSERVE_WRITE_MIXES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "{} is not what the generator makes", path.display());
}

#[test]
fn a_mix_that_is_none_says_which_line() {
    for (text, line) in [("a 1 64\nx 1", 2), ("a 1", 1), ("f 1", 1), ("a 1 64\na 1 64", 2), ("# \n\na 1 64 3", 3)] {
        let error = Mix::parse("bad", text).unwrap_err();
        assert!(error.starts_with(&format!("bad:{line}: ")), "{text:?}: {error}");
    }
}
