//! The dispatcher in simulated worlds: thousands of seeds, each with its own handlers, clients and faults. What holds in
//! every one of them is in `anyserve_testkit::simulation`.
//!
//! `ANYSERVE_SEEDS` is the number of seeds; `ANYSERVE_SEED=<n>` replays one and tells everything that happens in it.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use anyserve_testkit::simulation::{Storm, Tally, Traffic, Weather, run, storm};

/// What has to happen in so many seeds, or they prove nothing: by name, and the least number in 1000 seeds.
const EVENTS: [(&str, u64); 38] = [
    ("accepted", 50_000),
    ("answered", 20_000),
    ("batches", 1_000),
    ("batches raised", 50),
    ("died", 2_000),
    ("drained", 200),
    ("emitted", 2_000),
    ("frozen", 500),
    ("group down", 100),
    ("killed", 2_000),
    ("left a worker", 500),
    ("left the queue", 1_000),
    ("outages", 50),
    ("over: DEADLINE", 5_000),
    ("over: POISON", 200),
    ("over: UNAVAILABLE", 1_000),
    ("over: WORKER_LOST", 2_000),
    ("over: pushed out", 2_000),
    ("over: sequence never began", 200),
    ("overruns", 300),
    ("poison started", 400),
    ("prefetched", 1_500),
    ("ran again", 500),
    ("refused: DEADLINE", 2),
    ("refused: INVALID_INPUT", 500),
    ("refused: OVERLOADED", 10_000),
    ("refused: POISON", 300),
    ("refused: UNAVAILABLE", 500),
    ("refused: WORKER_LOST", 100),
    ("replaced", 400),
    ("retries refused", 100),
    ("sent", 20_000),
    ("sent again", 500),
    ("sequences lost", 500),
    ("suspects alone", 300),
    ("taken back", 100),
    ("told to stop", 2_000),
    ("withdrawn before its start", 500),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs the seeds, or the one that is asked for, and shows how one broke.
fn run_all(test: &str, weather: Weather, seeds: u64) -> Option<Tally> {
    if let Some(seed) = number("ANYSERVE_SEED") {
        let run = run(weather, seed, true);
        run.lines.iter().for_each(|line| eprintln!("{line}"));
        assert!(run.broken.is_none(), "{run}");
        return None;
    }
    let Storm { tally, broken } = storm(weather, 0..seeds);
    if let Some(run) = broken {
        let seed = run.seed;
        panic!(
            "{run}\nreplay: ANYSERVE_SEED={seed} cargo test -p anyserve-sched --test simulation -- --nocapture {test}"
        );
    }
    Some(tally)
}

#[test]
fn every_promise_holds_in_every_world() {
    let seeds = number("ANYSERVE_SEEDS").unwrap_or(10_000);
    let Some(tally) = run_all("every_promise_holds_in_every_world", Weather::Storm, seeds) else { return };
    tally.iter().for_each(|(what, count)| eprintln!("{count:>9} {what}"));
    for (what, least) in EVENTS.iter().filter(|_| seeds >= 1_000) {
        let (count, least) = (tally.of(what), least * seeds / 1_000);
        assert!(count >= least, "'{what}' happened {count} times in {seeds} seeds, expected at least {least}");
    }
}

#[test]
fn tenants_get_their_shares_by_weight_while_each_has_something_waiting() {
    let seeds = number("ANYSERVE_SEEDS").unwrap_or(10_000) / 50;
    let test = "tenants_get_their_shares_by_weight_while_each_has_something_waiting";
    let Some(tally) = run_all(test, Weather::Fair, seeds) else { return };
    assert!(tally.of("shares judged") * 10 >= seeds * 9, "{} of {seeds}", tally.of("shares judged"));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..500 {
        let (first, second) = (run(Weather::Storm, seed, false), run(Weather::Storm, seed, true));
        assert_eq!((first.hash, &first.tally), (second.hash, &second.tally), "seed {seed}");
        assert!(!second.lines.is_empty());
    }
    assert_ne!(run(Weather::Storm, 1, false).hash, run(Weather::Storm, 2, false).hash);
}

/// What has to happen in so many worlds of random traffic, or they prove nothing: the least number in 100 seeds.
const SWITCHING: [(&str, u64); 13] = [
    ("answered", 10_000),
    ("bounds moved", 50),
    ("bounds refused", 50),
    ("failed", 300),
    ("group down", 3),
    ("killed", 300),
    ("put to sleep", 100),
    ("reloads", 50),
    ("sent to the new group", 50),
    ("started", 1_000),
    ("stopped", 1_000),
    ("unloaded", 100),
    ("woken", 30),
];

#[test]
fn groups_that_share_two_tokens_are_switched_within_the_bounds_of_the_policy() {
    let test = "groups_that_share_two_tokens_are_switched_within_the_bounds_of_the_policy";
    let seeds = number("ANYSERVE_SEEDS").unwrap_or(10_000) / 100;
    for traffic in Traffic::all() {
        let Some(tally) = run_all(test, Weather::Switching(traffic), seeds) else { continue };
        eprintln!("{traffic:?}");
        tally.iter().for_each(|(what, count)| eprintln!("{count:>9} {what}"));
        let random = traffic == Traffic::Random && seeds >= 100;
        for (what, least) in SWITCHING.iter().filter(|_| random) {
            let (count, least) = (tally.of(what), least * seeds / 100);
            assert!(count >= least, "'{what}' happened {count} times in {seeds} seeds, expected at least {least}");
        }
    }
}

#[test]
fn a_seed_of_switching_replays_exactly() {
    for traffic in Traffic::all() {
        let (first, second) = (run(Weather::Switching(traffic), 7, false), run(Weather::Switching(traffic), 7, true));
        assert_eq!((first.hash, &first.tally), (second.hash, &second.tally), "{traffic:?}");
    }
}
