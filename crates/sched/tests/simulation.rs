//! The dispatcher in simulated worlds: thousands of seeds, each with its own handlers, clients and faults.
#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use anyserve_testkit::simulation::{Weather, storm};

#[test]
fn every_promise_holds_in_every_world() {
    let seeds = std::env::var("ANYSERVE_SEEDS").map_or(10_000, |n| n.parse().unwrap());
    let storm = storm(Weather::Storm, 0..seeds);
    if let Some(run) = &storm.broken {
        panic!("{run}")
    }
    for (what, n) in storm.tally.iter() {
        eprintln!("{what:>40} {n}");
    }
}
