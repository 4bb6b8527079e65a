//! The order of the queue: priorities, tenants, deadlines, and who gives way when it is full.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use std::collections::HashMap;
use std::time::Duration;

use anyserve_core::Code;
use anyserve_sched::{HandlerLimits, Job, SchedConfig};

use bench::{Bench, SLOW, W1, level, limits};

/// Lets one worker run whatever waits, one after the other.
fn order(bench: &mut Bench) -> Vec<String> {
    let mut order = Vec::new();
    let mut said = bench.ready(W1, 1);
    while let [sent] = &said[..] {
        let name = sent.split_whitespace().nth(1).unwrap().to_owned();
        let ticket = bench.running();
        bench.finished(W1, ticket, SLOW);
        said = bench.said();
        order.push(name);
    }
    order
}

#[test]
fn a_stricter_priority_goes_first_and_equals_go_by_deadline_and_then_by_arrival() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 100)]);
    let at = |priority, due_s: Option<u64>| (priority, due_s);
    for (name, (priority, due_s)) in [
        ("d", at(4, None)),
        ("b", at(4, Some(9))),
        ("e", at(4, None)),
        ("g", at(8, Some(1))),
        ("a", at(1, None)),
        ("c", at(4, Some(30))),
        ("f", at(5, Some(2))),
    ] {
        let deadline = due_s.map(|seconds| bench.now + Duration::from_secs(seconds));
        let job = Job { priority: level(priority), deadline, ..bench.job() };
        bench.submit(name, &job).unwrap();
    }
    assert_eq!(order(&mut bench).join(""), "abcdefg");
}

#[test]
fn a_tenant_that_floods_does_not_keep_another_waiting() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 100)]);
    for number in 0..20 {
        bench.submit(&format!("a{number}"), &Job { tenant: "a", ..bench.job() }).unwrap();
    }
    for number in 0..3 {
        bench.submit(&format!("b{number}"), &Job { tenant: "b", ..bench.job() }).unwrap();
    }
    let order = order(&mut bench);
    let last_b = order.iter().position(|name| name == "b2").unwrap();
    assert!(last_b <= 6, "{order:?}");
    assert_eq!(order.len(), 23);
}

#[test]
fn a_tenant_with_three_times_the_weight_gets_three_times_the_turns() {
    let tenant_weights = HashMap::from([("a".to_owned(), 3)]);
    let mut bench = Bench::with(SchedConfig { tenant_weights, ..SchedConfig::default() }, &[limits_of(200)]);
    for number in 0..120 {
        let tenant = if number % 2 == 0 { "a" } else { "b" };
        bench.submit(tenant, &Job { tenant, ..bench.job() }).unwrap();
    }
    let order = order(&mut bench);
    let first = order[..60].iter().filter(|name| *name == "a").count();
    assert!((43..=47).contains(&first), "{first} of 60");
}

fn limits_of(max_queue: usize) -> HandlerLimits {
    HandlerLimits::new(1, max_queue)
}

#[test]
fn a_full_queue_gives_way_to_a_stricter_priority() {
    let mut bench = Bench::new(&[limits_of(2)]);
    bench.plain("first");
    bench.submit("last", &Job { priority: level(8), ..bench.job() }).unwrap();
    bench.submit("strict", &Job { priority: level(1), ..bench.job() }).unwrap();
    assert_eq!(bench.said(), ["last over: OVERLOADED"]);
    let refused = bench.submit("equal", &bench.job()).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded, "nobody gives way to an equal");
    assert_eq!(order(&mut bench), ["strict", "first"]);
}

#[test]
fn a_full_queue_gives_way_to_a_tenant_with_less_than_its_share() {
    let mut bench = Bench::new(&[limits_of(4)]);
    for name in ["a1", "a2", "a3", "a4"] {
        bench.submit(name, &Job { tenant: "a", ..bench.job() }).unwrap();
    }
    for name in ["b1", "b2"] {
        bench.submit(name, &Job { tenant: "b", ..bench.job() }).unwrap();
    }
    assert_eq!(bench.said(), ["a4 over: OVERLOADED", "a3 over: OVERLOADED"]);
    let third = bench.submit("b3", &Job { tenant: "b", ..bench.job() });
    assert_eq!(third.unwrap_err().code, Code::Overloaded, "each has its half");
}

#[test]
fn thousands_of_tenants_that_come_once_are_forgotten() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    for number in 0..5000 {
        let tenant = format!("tenant {number}");
        let blocker = bench.plain("blocker");
        let ticket = bench.submit("t", &Job { tenant: &tenant, ..bench.job() }).unwrap();
        bench.finished(W1, blocker, SLOW);
        bench.finished(W1, ticket, SLOW);
        bench.said();
    }
    let size = format!("{:?}", bench.machine).len();
    assert!(size < 200_000, "the machine takes {size} bytes to show");
}

#[test]
fn requests_that_came_before_anything_was_measured_cost_their_tenant_no_less() {
    let mut bench = Bench::new(&[limits_of(200)]);
    for number in 0..40 {
        bench.submit(&format!("a{number}"), &Job { tenant: "a", ..bench.job() }).unwrap();
    }
    bench.ready(W1, 1);
    let first = bench.running();
    bench.finished(W1, first, SLOW);
    for number in 0..20 {
        bench.submit(&format!("b{number}"), &Job { tenant: "b", ..bench.job() }).unwrap();
    }
    let mut sent = Vec::new();
    for _ in 0..20 {
        let ticket = bench.running();
        sent.extend(bench.finished(W1, ticket, SLOW));
    }
    let others = sent.iter().filter(|name| name.starts_with('b')).count();
    assert!((9..=11).contains(&others), "{sent:?}");
}
