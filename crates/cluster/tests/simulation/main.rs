//! Registry, router and fleets in simulated worlds, from seeds: crashes, partitions, slow and repeated messages, and
//! capabilities that change. What holds in every world is asserted in `world.rs`.
//!
//! `ANYSERVE_SEED=<n>` replays one.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod replica;
mod world;

use std::collections::BTreeMap;

use world::{Size, World};

/// What has to happen, or the worlds prove nothing: by name, and the least number in all of them together.
const EVENTS: [(&str, u64); 22] = [
    ("a rule that leads to somebody", 300),
    ("a rule without anybody", 10),
    ("announced again", 1_000),
    ("answered", 10_000),
    ("asked in vain", 50),
    ("broken", 50),
    ("capabilities changed", 500),
    ("control cut", 100),
    ("crashed", 500),
    ("data cut", 100),
    ("handed back", 300),
    ("leases over", 100),
    ("led by a rule", 300),
    ("led nowhere", 50),
    ("left", 100),
    ("oracle asked", 500),
    ("over: INVALID_INPUT", 100),
    ("over: NO_CAPABILITY", 50),
    ("probed", 300),
    ("second attempts", 300),
    ("stale epochs refused", 100),
    ("unreached", 300),
];

fn run(size: Size, seeds: std::ops::Range<u64>, tally: &mut BTreeMap<&'static str, u64>) {
    let one = std::env::var("ANYSERVE_SEED").ok().map(|text| text.parse::<u64>().expect("a number"));
    for seed in one.map_or(seeds, |seed| seed..seed + 1) {
        let mut world = World::new(seed, size);
        world.run();
        world.tally.into_iter().for_each(|(what, count)| *tally.entry(what).or_default() += count);
    }
}

#[test]
fn every_promise_holds_in_small_fleets_with_many_faults_and_in_one_of_a_thousand() {
    let mut tally = BTreeMap::new();
    run(Size { replicas: 12, kinds: 4, seconds: 40, requests: 30, faults: 4 }, 0..80, &mut tally);
    run(Size { replicas: 1_000, kinds: 300, seconds: 10, requests: 200, faults: 60 }, 0..2, &mut tally);
    for (what, count) in &tally {
        eprintln!("{count:>9} {what}");
    }
    if std::env::var("ANYSERVE_SEED").is_err() {
        for (what, least) in EVENTS {
            let count = tally.get(what).copied().unwrap_or_default();
            assert!(count >= least, "'{what}' happened {count} times, expected at least {least}");
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    let size = Size { replicas: 12, kinds: 6, seconds: 10, requests: 30, faults: 6 };
    let tally = |seed| {
        let mut world = World::new(seed, size);
        world.run();
        (world.tally, world.hash)
    };
    (0..5).for_each(|seed| assert_eq!(tally(seed), tally(seed)));
    assert_ne!(tally(1), tally(2));
}
