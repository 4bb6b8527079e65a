//! Batches: who shares one, and how long anybody waits for it.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use std::time::Duration;

use anyserve_sched::{Cause, HandlerLimits, Job, SchedConfig};

use bench::{Bench, SLOW, W1, W2};

const DELAY: Duration = Duration::from_millis(5);

fn batched(max_batch: usize, max_delay: Duration) -> HandlerLimits {
    HandlerLimits { max_batch, max_delay, ..HandlerLimits::new(1, 100) }
}

fn kind(bench: &Bench, kind: u64) -> Job<'static> {
    Job { batch: Some(kind), ..bench.job() }
}

fn submit_all(bench: &mut Bench, names: &[(&str, u64)]) {
    for (name, of) in names {
        let job = kind(bench, *of);
        bench.submit(name, &job).unwrap();
    }
}

#[test]
fn requests_of_one_kind_that_wait_together_go_together() {
    let mut bench = Bench::new(&[batched(3, Duration::ZERO)]);
    submit_all(&mut bench, &[("a", 1), ("x", 2), ("b", 1), ("c", 1), ("d", 1), ("y", 2)]);
    assert_eq!(bench.ready(W1, 1), ["send a+b+c to 1"]);
    assert_eq!(bench.ready(W2, 1), ["send x+y to 2"]);
}

#[test]
fn one_that_comes_alone_goes_at_once_however_long_it_might_wait() {
    let mut bench = Bench::new(&[batched(32, DELAY)]);
    bench.ready(W1, 1);
    for _ in 0..3 {
        let job = kind(&bench, 1);
        let ticket = bench.submit("a", &job).unwrap();
        assert_eq!(bench.said(), ["send a to 1 attempt 1"]);
        bench.finished(W1, ticket, SLOW);
    }
}

#[test]
fn a_batch_smaller_than_the_last_waits_for_more_but_not_longer_than_it_may() {
    let mut bench = Bench::new(&[batched(4, DELAY)]);
    submit_all(&mut bench, &[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(bench.ready(W1, 1), ["send a+b+c to 1"]);
    bench.answer_all(W1, SLOW);
    submit_all(&mut bench, &[("d", 1), ("e", 1)]);
    assert_eq!(bench.said(), [""; 0], "three came last time");
    assert_eq!(bench.machine.next_deadline(), Some(bench.now + DELAY));
    assert_eq!(bench.pass(DELAY), ["send d+e to 1"]);
    bench.answer_all(W1, SLOW);
    submit_all(&mut bench, &[("f", 1), ("g", 1)]);
    assert_eq!(bench.said(), ["send f+g to 1"], "as many as last time");
}

#[test]
fn a_batch_is_one_call_however_many_requests_it_has() {
    let mut bench = Bench::new(&[batched(2, Duration::ZERO)]);
    submit_all(&mut bench, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    assert_eq!(bench.ready(W1, 1), ["send a+b to 1"], "c and d wait for the call to end");
    let tickets = bench.running_all();
    bench.finished(W1, tickets[0], SLOW);
    assert_eq!(bench.said(), [""; 0], "b is not answered");
    bench.finished(W1, tickets[1], SLOW);
    assert_eq!(bench.said(), ["send c+d to 1"]);
}

#[test]
fn a_batch_has_no_more_bytes_than_a_frame_may_have() {
    let config = SchedConfig { max_batch_bytes: 25, ..SchedConfig::default() };
    let mut bench = Bench::with(config, &[batched(8, Duration::ZERO)]);
    submit_all(&mut bench, &[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(bench.ready(W1, 1), ["send a+b to 1"]);
}

#[test]
fn a_worker_holds_no_more_requests_than_it_has_slots() {
    let config = SchedConfig { slots: 3, ..SchedConfig::default() };
    let limits = HandlerLimits { concurrency: 8, ..batched(2, Duration::ZERO) };
    let mut bench = Bench::with(config, &[limits]);
    submit_all(&mut bench, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    assert_eq!(bench.ready(W1, 8), ["send a+b to 1"]);
}

#[test]
fn those_that_were_in_a_deadly_batch_run_alone_the_next_time() {
    let limits = HandlerLimits { idempotent: true, ..batched(4, Duration::ZERO) };
    let mut bench = Bench::new(&[limits]);
    submit_all(&mut bench, &[("a", 1), ("b", 1)]);
    bench.ready(W1, 1);
    bench.running_all().into_iter().for_each(|ticket| bench.start(ticket));
    assert_eq!(bench.dies(W1, Cause::Died), [""; 0]);
    assert_eq!(bench.ready(W2, 1), ["send a to 2 attempt 2"]);
    let a = bench.running();
    bench.finished(W2, a, SLOW);
    assert_eq!(bench.said(), ["send b to 2 attempt 2"]);
}

#[test]
fn a_batch_that_overruns_for_one_goes_on_while_another_waits_for_it() {
    let grace = SchedConfig::default().overrun_grace;
    let mut bench = Bench::new(&[batched(2, Duration::ZERO)]);
    let (hasty, patient) = (Some(bench.now + SLOW), Some(bench.now + SLOW + grace * 2));
    for (name, deadline) in [("hasty", hasty), ("patient", patient)] {
        let job = Job { deadline, ..kind(&bench, 1) };
        bench.submit(name, &job).unwrap();
    }
    bench.ready(W1, 1);
    bench.running_all().into_iter().for_each(|ticket| bench.start(ticket));
    assert_eq!(bench.pass(SLOW), ["withdraw from 1", "hasty over: DEADLINE"]);
    assert_eq!(bench.pass(grace), [""; 0], "patient still waits");
    assert_eq!(bench.pass(grace), ["withdraw from 1", "patient over: DEADLINE"]);
    assert_eq!(bench.pass(grace).last().unwrap(), "replace 1");
}

#[test]
fn an_overdue_request_joins_no_batch() {
    let mut bench = Bench::new(&[batched(3, Duration::ZERO)]);
    submit_all(&mut bench, &[("a", 1), ("b", 1)]);
    let late = Job { deadline: Some(bench.now + SLOW), ..kind(&bench, 1) };
    bench.submit("late", &late).unwrap();
    bench.now += SLOW;
    assert_eq!(bench.ready(W1, 1), ["late over: DEADLINE", "send a+b to 1"]);
}
