//! The dispatcher, case by case: who runs when, and how a request ends.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_sched::{Cause, HandlerLimits, Job, SchedConfig, Ticket};

use bench::{Bench, QUICK, SLOW, W1, W2, limits, sequence};

#[test]
fn requests_wait_in_order_and_go_to_the_worker_that_is_free() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    let a = bench.plain("a");
    bench.plain("b");
    bench.plain("c");
    assert_eq!(bench.said(), ["send a to 1 attempt 1"]);
    assert_eq!(bench.ready(W2, 1), ["send b to 2 attempt 1"]);
    assert_eq!(bench.finished(W1, a, SLOW).unwrap(), "a");
    assert_eq!(bench.said(), ["send c to 1 attempt 1"]);
}

#[test]
fn a_handler_at_its_own_limit_does_not_hold_up_another() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 10), HandlerLimits::new(2, 10)]);
    bench.ready(W1, 3);
    for (name, handler) in [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 1)] {
        bench.submit(name, &Job { handler, ..bench.job() }).unwrap();
    }
    assert_eq!(bench.said(), ["send a to 1 attempt 1", "send c to 1 attempt 1", "send d to 1 attempt 1"]);
}

#[test]
fn a_busy_worker_gets_more_only_where_requests_are_known_to_be_short() {
    for (took, more) in [(QUICK, 4), (SLOW, 0)] {
        let mut bench = Bench::new(&[HandlerLimits::new(1, 20)]);
        bench.ready(W1, 1);
        let first = bench.plain("first");
        bench.finished(W1, first, took);
        bench.said();
        bench.plain_times("next", 0..10);
        assert_eq!(bench.said().len(), 1 + more, "after {took:?}");
    }
}

#[test]
fn what_waits_in_the_socket_of_a_stuck_worker_goes_to_another() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 20)]);
    bench.ready(W1, 1);
    let warm = bench.plain("warm");
    bench.finished(W1, warm, QUICK);
    let a = bench.plain("a");
    let b = bench.plain("b");
    assert_eq!(bench.said().len(), 3, "b waits in the socket behind a");
    bench.start(a);
    assert_eq!(bench.ready(W2, 1), [""; 0], "nothing is in the queue");
    assert_eq!(bench.pass(Duration::from_millis(6)), ["send b to 2 attempt 2"]);
    bench.untouched(W1, b);
    assert_eq!(bench.finished(W2, b, QUICK).unwrap(), "b");
    assert_eq!(bench.finished(W1, a, SLOW).unwrap(), "a");
    assert_eq!(bench.machine.live_requests(), 0);
}

#[test]
fn at_the_end_everything_is_over_and_nothing_is_sent_in_its_place() {
    let mut bench = Bench::new(&[HandlerLimits::new(2, 10)]);
    bench.ready(W1, 2);
    let (left, a) = (bench.plain("left"), bench.plain("a"));
    bench.plain_times("next", 0..2);
    bench.submit("s", &Job { sequence: Some(&sequence(1, true, false)), ..bench.job() }).unwrap();
    assert_eq!(bench.cancel(left).unwrap(), "left");
    bench.said();
    let over =
        ["withdraw from 1", "a over: WORKER_LOST", "next over: DRAINING", "next over: DRAINING", "s over: DRAINING"];
    assert_eq!(bench.end_all(), over);
    assert_eq!(bench.end_all(), [""; 0]);
    for ticket in [left, a] {
        assert_eq!(bench.finished(W1, ticket, SLOW), None, "its caller was told");
    }
    assert_eq!((bench.machine.live_requests(), bench.said()), (0, Vec::new()));
}

#[test]
fn a_full_queue_refuses_with_the_time_to_wait() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 2)]);
    bench.ready(W1, 1);
    let first = bench.plain("first");
    bench.finished(W1, first, SLOW);
    bench.plain_times("fits", 0..3);
    let refused = bench.submit("too many", &bench.job()).unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (Code::Overloaded, Some(3 * SLOW)), "one runs, two wait");
    assert!(refused.message.contains("2 of 2"), "{}", refused.message);
}

#[test]
fn bytes_that_wait_are_bounded_too() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 100)]);
    let large = Job { bytes: 100, ..bench.job() };
    let accepted = (0..20).take_while(|_| bench.submit("100 bytes", &large).is_ok()).count();
    assert_eq!(accepted, 10);
}

#[test]
fn a_request_that_would_wait_longer_than_it_may_is_refused_at_once() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    let first = bench.plain("first");
    bench.finished(W1, first, SLOW);
    bench.plain("runs");
    bench.submit("waits", &bench.due(2 * SLOW)).unwrap();
    let refused = bench.submit("cannot make it", &bench.due(SLOW * 3 / 2)).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    assert!(refused.retry_after.is_some() && refused.message.contains("100.0ms"), "{}", refused.message);
    assert!(bench.submit("can", &bench.due(3 * SLOW)).is_ok());
}

#[test]
fn one_that_is_due_sooner_is_not_refused_for_those_that_can_wait() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 100)]);
    bench.ready(W1, 1);
    let first = bench.plain("first");
    bench.finished(W1, first, SLOW);
    bench.plain_times("whenever", 0..50);
    bench.said();
    let urgent = bench.submit("urgent", &bench.due(2 * SLOW));
    assert!(urgent.is_ok(), "50 x 50 ms are not before it");
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is_and_keeps_the_credit_until_the_worker_answers() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    let a = bench.submit("a", &bench.due(SLOW)).unwrap();
    bench.submit("b", &bench.due(SLOW)).unwrap();
    bench.plain("c");
    bench.said();
    assert_eq!(bench.machine.next_deadline(), Some(bench.now + SLOW));
    assert_eq!(bench.pass(SLOW), ["withdraw from 1", "a over: DEADLINE", "b over: DEADLINE"]);
    assert_eq!(bench.machine.load(bench.group).in_flight, 1, "the handler of a still runs");
    assert_eq!(bench.finished(W1, a, SLOW), None, "its caller has had its answer");
    assert_eq!(bench.said(), ["send c to 1 attempt 1"]);
    assert_eq!(bench.submit("late", &bench.due(Duration::ZERO)).unwrap_err().code, Code::Deadline);
}

#[test]
fn a_handler_that_does_not_stop_costs_its_worker_and_one_that_never_started_does_not() {
    let grace = SchedConfig::default().overrun_grace;
    for (runs, expected) in [(true, vec!["replace 1"]), (false, vec![])] {
        let mut bench = Bench::new(&[limits()]);
        bench.ready(W1, 1);
        let a = bench.submit("a", &bench.due(SLOW)).unwrap();
        if runs {
            bench.start(a);
        }
        bench.pass(SLOW);
        assert_eq!(bench.pass(grace / 2), [""; 0]);
        assert_eq!(bench.pass(grace / 2), expected);
    }
}

#[test]
fn a_handler_whose_caller_left_is_judged_by_the_deadline_that_there_was() {
    let grace = SchedConfig::default().overrun_grace;
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    let a = bench.submit("a", &bench.due(SLOW)).unwrap();
    bench.start(a);
    bench.cancel(a);
    bench.said();
    assert_eq!(bench.pass(SLOW), [""; 0]);
    assert_eq!(bench.pass(grace), ["replace 1"]);
}

#[test]
fn a_caller_that_leaves_frees_its_place_at_once() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 1)]);
    bench.ready(W1, 1);
    let a = bench.plain("a");
    let b = bench.plain("b");
    assert_eq!(bench.cancel(b).unwrap(), "b");
    bench.plain("c");
    bench.said();
    assert_eq!(bench.cancel(a).unwrap(), "a");
    assert_eq!(bench.said(), ["withdraw from 1"]);
    assert_eq!(bench.cancel(a), None, "only once");
}

#[test]
fn a_group_that_is_down_refuses_until_a_worker_is_ready() {
    let mut bench = Bench::new(&[limits()]);
    bench.plain("a");
    let why = Error::new(Code::Unavailable, "they keep dying");
    bench.machine.group_down(bench.group, &why, bench.now, &mut bench.out);
    assert_eq!(bench.said(), ["a over: UNAVAILABLE"]);
    let refused = bench.submit("b", &bench.job()).unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (Code::Unavailable, Some(Duration::from_secs(1))));
    bench.ready(W1, 1);
    assert!(bench.submit("c", &bench.job()).is_ok());
}

#[test]
fn a_worker_that_answers_for_what_it_does_not_have_is_caught() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    bench.ready(W2, 1);
    let a = bench.plain("a");
    let (holder, other) = if bench.said()[0].contains("to 1") { (W1, W2) } else { (W2, W1) };
    let Bench { machine, group, now, out, .. } = &mut bench;
    assert!(machine.finished(*group, other, a, None, *now, out).is_err());
    assert!(machine.finished(*group, holder, Ticket::from_number(99), None, *now, out).is_err());
    assert!(machine.finished(*group, holder, a, Some(SLOW), *now, out).is_ok());
    assert!(machine.finished(*group, holder, a, None, *now, out).is_err(), "twice");
}

#[test]
fn a_draining_worker_gets_nothing_more() {
    let mut bench = Bench::new(&[HandlerLimits::new(2, 10)]);
    bench.ready(W1, 2);
    bench.plain("a");
    bench.machine.worker_draining(bench.group, W1);
    bench.plain("b");
    assert_eq!(bench.said(), ["send a to 1 attempt 1"]);
    assert_eq!(bench.dies(W1, Cause::Died), [""; 0], "a is sent again when there is a worker");
    assert_eq!(bench.ready(W2, 2), ["send a to 2 attempt 2", "send b to 2 attempt 1"]);
}

#[test]
fn what_is_overdue_is_never_sent_however_late_its_timer_is() {
    let mut bench = Bench::new(&[limits()]);
    bench.submit("late", &bench.due(SLOW)).unwrap();
    bench.plain("patient");
    bench.now += SLOW;
    assert_eq!(bench.ready(W1, 1), ["late over: DEADLINE", "send patient to 1 attempt 1"]);
}

/// Two handlers, of which the first is known to be quick and the second to be slow.
fn quick_and_slow(credits: u32) -> Bench {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 100), HandlerLimits::new(1, 100)]);
    bench.ready(W1, credits);
    for (handler, took) in [(0, QUICK), (1, SLOW)] {
        let ticket = bench.submit("warm", &Job { handler, ..bench.job() }).unwrap();
        bench.finished(W1, ticket, took);
    }
    bench.said();
    bench
}

#[test]
fn quick_requests_do_not_go_before_a_slow_one_for_ever() {
    let mut bench = quick_and_slow(1);
    bench.plain_times("quick", 0..3);
    assert_eq!(bench.said().len(), 3, "one runs, two wait in the socket");
    let sent = bench.running_all();
    bench.submit("slow", &Job { handler: 1, ..bench.job() }).unwrap();
    bench.plain_times("quick", 0..3);
    assert_eq!(bench.said(), [""; 0], "the socket is closed to them while one waits for the worker itself");
    sent[..2].iter().for_each(|ticket| drop(bench.finished(W1, *ticket, QUICK)));
    assert_eq!(bench.said(), [""; 0]);
    bench.finished(W1, sent[2], QUICK);
    assert_eq!(bench.said(), ["send slow to 1 attempt 1"]);
}

#[test]
fn quick_requests_in_a_socket_do_not_take_the_place_of_another_handler() {
    let mut bench = quick_and_slow(2);
    bench.plain_times("quick", 0..4);
    bench.said();
    bench.submit("slow", &Job { handler: 1, ..bench.job() }).unwrap();
    assert_eq!(bench.said(), ["send slow to 1 attempt 1"], "its own place is free");
}

#[test]
fn what_waits_for_its_own_handlers_place_is_looked_after_too() {
    let mut bench = quick_and_slow(2);
    let stuck = bench.plain("stuck");
    bench.start(stuck);
    bench.plain("behind it");
    assert_eq!(bench.said().len(), 2, "the worker has as many calls as credits, but for one handler");
    bench.ready(W2, 2);
    assert_eq!(bench.pass(Duration::from_millis(6)), ["send behind it to 2 attempt 2"]);
}

#[test]
fn what_is_taken_back_from_a_stuck_worker_does_not_go_to_another_that_is_stuck() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 20)]);
    bench.ready(W1, 1);
    bench.ready(W2, 1);
    let warm = bench.plain("warm");
    let at = bench.machine.worker_of(warm).unwrap();
    bench.finished(at, warm, QUICK);
    bench.plain_times("a", 0..4);
    let sent = bench.running_all();
    assert_eq!(sent.len(), 4, "two run, two wait in the sockets");
    sent[..2].iter().for_each(|ticket| bench.start(*ticket));
    bench.said();
    assert_eq!(bench.pass(Duration::from_millis(6)), [""; 0], "both are stuck");
    assert_eq!(bench.machine.load(bench.group).queued, 2);
}
