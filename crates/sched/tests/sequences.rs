//! Sequences: one worker, one at a time, in order.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use std::time::Duration;

use anyserve_core::{Code, Error, SequenceCall};
use anyserve_sched::{Cause, HandlerLimits, Job, SchedConfig, Ticket};

use bench::{Bench, SLOW, W1, W2, W3, level, sequence};

fn bench() -> Bench {
    let limits = HandlerLimits { sequence: true, ..HandlerLimits::new(4, 100) };
    Bench::new(&[limits])
}

fn call(bench: &mut Bench, name: &str, call: &SequenceCall) -> Result<Ticket, Error> {
    let job = Job { sequence: Some(call), ..bench.job() };
    bench.submit(name, &job)
}

#[test]
fn a_sequence_keeps_to_its_worker_and_to_its_order() {
    let mut bench = bench();
    bench.ready(W1, 4);
    bench.ready(W2, 4);
    let first = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    let said = bench.said();
    let home = if said[0].contains("to 1") { W1 } else { W2 };
    let second = call(&mut bench, "a2", &sequence(1, false, false)).unwrap();
    call(&mut bench, "a3", &sequence(1, false, true)).unwrap();
    assert_eq!(bench.said(), [""; 0], "one at a time");
    bench.finished(home, first, SLOW);
    assert_eq!(bench.said(), [format!("send a2 to {} attempt 1", home.0)]);
    bench.finished(home, second, SLOW);
    assert_eq!(bench.said(), [format!("send a3 to {} attempt 1", home.0)]);
    let third = bench.running();
    bench.finished(home, third, SLOW);
    assert_eq!(bench.machine.live_sequences(), 0, "its end came");
}

#[test]
fn a_sequence_begins_with_its_start_and_has_a_name() {
    let mut bench = bench();
    bench.ready(W1, 4);
    let refused = call(&mut bench, "a", &sequence(7, false, false)).unwrap_err();
    assert_eq!(refused.code, Code::InvalidInput);
    assert!(refused.message.contains("sequence 7") && refused.message.contains("sequence_start"));
    let nameless = bench.submit("a", &bench.job()).unwrap_err();
    assert!(nameless.message.contains("sequence_id"), "{}", nameless.message);
}

#[test]
fn the_death_of_its_worker_ends_a_sequence_until_it_is_started_again() {
    let mut bench = bench();
    bench.ready(W1, 4);
    let first = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    call(&mut bench, "a2", &sequence(1, false, false)).unwrap();
    bench.start(first);
    bench.said();
    let mut said = bench.dies(W1, Cause::Died);
    said.sort();
    assert_eq!(said, ["a1 over: WORKER_LOST", "a2 over: WORKER_LOST"]);
    bench.ready(W3, 4);
    let refused = call(&mut bench, "a3", &sequence(1, false, false)).unwrap_err();
    assert_eq!(refused.code, Code::WorkerLost);
    assert!(call(&mut bench, "a4", &sequence(1, true, false)).is_ok());
    assert_eq!(bench.said(), ["send a4 to 3 attempt 1"]);
}

#[test]
fn a_sequence_that_is_idle_is_forgotten_and_one_that_is_busy_is_not() {
    let idle = SchedConfig::default().sequence_idle;
    let mut bench = bench();
    bench.ready(W1, 4);
    let first = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    bench.pass(idle * 2);
    assert_eq!(bench.machine.live_sequences(), 1, "its request still runs");
    bench.finished(W1, first, SLOW);
    bench.pass(idle * 2);
    bench.pass(idle * 2);
    assert_eq!(bench.machine.live_sequences(), 0);
    assert!(call(&mut bench, "a2", &sequence(1, false, false)).is_err());
}

#[test]
fn those_behind_a_start_that_never_ran_are_over_too() {
    let mut bench = bench();
    let start = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    call(&mut bench, "a2", &sequence(1, false, false)).unwrap();
    bench.cancel(start);
    assert_eq!(bench.said(), ["a2 over: INVALID_INPUT"]);
    assert_eq!((bench.machine.live_sequences(), bench.machine.live_requests()), (0, 0));
}

#[test]
fn a_request_that_leaves_the_middle_of_a_sequence_does_not_stop_it() {
    let mut bench = bench();
    bench.ready(W1, 4);
    let first = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    let second = call(&mut bench, "a2", &sequence(1, false, false)).unwrap();
    call(&mut bench, "a3", &sequence(1, false, true)).unwrap();
    bench.said();
    bench.cancel(second);
    bench.finished(W1, first, SLOW);
    assert_eq!(bench.said(), ["send a3 to 1 attempt 1"]);
}

#[test]
fn what_waits_behind_a_sequence_counts_in_the_queue() {
    let limits = HandlerLimits { sequence: true, ..HandlerLimits::new(4, 3) };
    let mut bench = Bench::new(&[limits]);
    bench.ready(W1, 4);
    let mut accepted = 0;
    for number in 0..10 {
        accepted += u32::from(call(&mut bench, "a", &sequence(1, number == 0, false)).is_ok());
    }
    assert_eq!(accepted, 1 + 3, "one runs, three wait");
    assert_eq!(bench.pass(Duration::ZERO).len(), 1);
}

#[test]
fn those_behind_a_start_that_was_sent_but_never_ran_are_over_too() {
    let mut bench = bench();
    bench.ready(W1, 4);
    let start = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    call(&mut bench, "a2", &sequence(1, false, false)).unwrap();
    bench.said();
    bench.cancel(start);
    assert_eq!(bench.said(), ["withdraw from 1"], "it may have started just now");
    bench.untouched(W1, start);
    assert_eq!(bench.said(), ["a2 over: INVALID_INPUT"]);
    assert_eq!(bench.machine.live_sequences(), 0);
}

#[test]
fn a_second_start_that_leaves_takes_those_with_it_that_came_for_it() {
    let mut bench = bench();
    bench.ready(W1, 4);
    let first = call(&mut bench, "a1", &sequence(1, true, false)).unwrap();
    call(&mut bench, "a2", &sequence(1, false, false)).unwrap();
    let second = call(&mut bench, "b1", &sequence(1, true, false)).unwrap();
    call(&mut bench, "b2", &sequence(1, false, false)).unwrap();
    bench.said();
    bench.cancel(second);
    assert_eq!(bench.said(), ["b2 over: INVALID_INPUT"]);
    let orphan = call(&mut bench, "b3", &sequence(1, false, false)).unwrap_err();
    assert_eq!(orphan.code, Code::InvalidInput, "its start has left");
    bench.finished(W1, first, SLOW);
    assert_eq!(bench.said(), ["send a2 to 1 attempt 1"]);
}

#[test]
fn a_start_that_gives_way_in_a_full_queue_takes_those_behind_it_with_it() {
    let limits = HandlerLimits { sequence: true, ..HandlerLimits::new(4, 3) };
    let mut bench = Bench::new(&[limits]);
    for (name, id, start, priority) in
        [("a1", 1, true, 8), ("a2", 1, false, 8), ("b1", 2, true, 1), ("b2", 2, false, 1)]
    {
        let sequence = sequence(id, start, false);
        let job = Job { sequence: Some(&sequence), priority: level(priority), ..bench.job() };
        bench.submit(name, &job).unwrap();
    }
    assert_eq!(bench.said(), ["a1 over: OVERLOADED", "a2 over: INVALID_INPUT"]);
}

#[test]
fn a_request_does_not_push_out_the_start_of_its_own_sequence() {
    let limits = HandlerLimits { sequence: true, ..HandlerLimits::new(4, 1) };
    let mut bench = Bench::new(&[limits]);
    let (start, next) = (sequence(1, true, false), sequence(1, false, false));
    bench.submit("a1", &Job { sequence: Some(&start), priority: level(8), ..bench.job() }).unwrap();
    let refused = bench.submit("a2", &Job { sequence: Some(&next), priority: level(1), ..bench.job() }).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    assert_eq!(bench.ready(W1, 4), ["send a1 to 1 attempt 1"]);
}
