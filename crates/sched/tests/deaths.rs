//! Workers die: what is sent again, what is lost, and what is poison.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use anyserve_core::{Code, Fingerprint};
use anyserve_sched::{Cause, HandlerLimits, Job, Retries, WorkerId};

use bench::{Bench, SLOW, W1, W2, W3, limits};

fn idempotent() -> HandlerLimits {
    HandlerLimits { idempotent: true, ..limits() }
}

#[test]
fn what_had_not_started_outlives_its_worker_and_what_had_is_lost() {
    let mut bench = Bench::new(&[HandlerLimits::new(2, 10)]);
    bench.ready(W1, 2);
    let a = bench.plain("a");
    bench.plain("b");
    bench.plain("c");
    bench.said();
    bench.start(a);
    assert_eq!(bench.dies(W1, Cause::Died), ["a over: WORKER_LOST"]);
    assert_eq!(bench.ready(W2, 2), ["send b to 2 attempt 2", "send c to 2 attempt 1"]);
}

#[test]
fn what_may_run_twice_is_sent_again_unless_its_caller_has_seen_a_part() {
    for (emitted, expected) in [(false, vec![]), (true, vec!["a over: WORKER_LOST"])] {
        let mut bench = Bench::new(&[idempotent()]);
        bench.ready(W1, 1);
        let a = bench.plain("a");
        bench.said();
        bench.start(a);
        bench.machine.payload(a).unwrap().1 = emitted;
        assert_eq!(bench.dies(W1, Cause::Died), expected);
        let again = bench.ready(W2, 1);
        assert_eq!(again.len(), usize::from(!emitted), "{again:?}");
    }
}

#[test]
fn ten_requests_are_sent_again_in_quiet_times_and_then_none() {
    let mut bench = Bench::new(&[limits()]);
    bench.plain("a");
    for number in 1..=10 {
        assert_eq!(bench.ready(WorkerId(number), 1).len(), 1);
        assert_eq!(bench.dies(WorkerId(number), Cause::Died), [""; 0]);
    }
    bench.ready(WorkerId(11), 1);
    assert_eq!(bench.dies(WorkerId(11), Cause::Died), ["a over: WORKER_LOST"]);
    assert_eq!(bench.machine.retries(), Retries { sent: 10, refused: 1 });
}

#[test]
fn a_request_that_kills_two_workers_is_poison_and_its_like_is_refused_until_it_is_released() {
    let mut bench = Bench::new(&[idempotent()]);
    bench.ready(W1, 1);
    let poison = bench.plain("poison");
    bench.start(poison);
    bench.dies(W1, Cause::Died);
    assert!(bench.machine.wants_fingerprints());
    bench.ready(W2, 1);
    assert_eq!(bench.dies(W2, Cause::Died), ["poison over: POISON"]);
    let print = Some(Fingerprint(u64::from(b'p')));
    let like = Job { fingerprint: print, ..bench.job() };
    let refused = bench.submit("p again", &like).unwrap_err();
    assert_eq!(refused.code, Code::Poison);
    assert!(refused.message.contains("0000000000000070"), "{}", refused.message);
    let listed = bench.machine.quarantined(bench.now);
    assert_eq!((listed.len(), listed[0].deaths, listed[0].refused), (1, 2, 1));
    assert_eq!(bench.machine.release(print, bench.now), 1);
    assert!(bench.submit("p once more", &like).is_ok());
}

#[test]
fn a_request_that_may_not_run_twice_is_poison_when_its_caller_sends_it_twice() {
    let mut bench = Bench::new(&[limits()]);
    for (worker, end) in [(W1, "p over: WORKER_LOST"), (W2, "p over: POISON")] {
        bench.ready(worker, 1);
        let fingerprint = bench.machine.wants_fingerprints().then_some(Fingerprint(u64::from(b'p')));
        let ticket = bench.submit("p", &Job { fingerprint, ..bench.job() }).unwrap();
        bench.start(ticket);
        bench.said();
        assert_eq!(bench.dies(worker, Cause::Died), [end]);
    }
}

#[test]
fn a_suspect_runs_alone_so_that_its_neighbours_are_not_blamed() {
    let mut bench = Bench::new(&[HandlerLimits { concurrency: 4, ..idempotent() }]);
    bench.ready(W1, 4);
    for name in ["innocent", "poison"] {
        let ticket = bench.plain(name);
        bench.start(ticket);
    }
    bench.said();
    bench.dies(W1, Cause::Died);
    assert_eq!(bench.ready(W2, 4), ["send innocent to 2 attempt 2"], "one at a time");
    bench.plain("new");
    assert_eq!(bench.said(), [""; 0], "nothing runs beside a suspect");
    let innocent = bench.running();
    bench.finished(W2, innocent, SLOW);
    assert_eq!(bench.said(), ["send poison to 2 attempt 2"]);
    assert_eq!(bench.dies(W2, Cause::Died), ["poison over: POISON"]);
    assert_eq!(bench.ready(W3, 4), ["send new to 3 attempt 1"]);
}

#[test]
fn a_worker_that_is_never_empty_is_kept_free_for_a_suspect() {
    let mut bench = Bench::new(&[HandlerLimits { concurrency: 4, ..idempotent() }]);
    bench.ready(W1, 4);
    let suspect = bench.plain("suspect");
    bench.start(suspect);
    bench.dies(W1, Cause::Died);
    bench.ready(W2, 4);
    let alone = bench.running();
    bench.cancel(alone);
    bench.said();
    let like = Job { fingerprint: Some(Fingerprint(u64::from(b's'))), ..bench.job() };
    bench.untouched(W2, alone);
    bench.said();
    let one = bench.plain("one");
    let two = bench.plain("two");
    bench.submit("s2", &like).unwrap();
    bench.plain("three");
    assert_eq!(bench.said().len(), 2, "one and two run; the worker is kept for the suspect");
    bench.finished(W2, one, SLOW);
    assert_eq!(bench.said(), [""; 0]);
    bench.finished(W2, two, SLOW);
    assert_eq!(bench.said(), ["send s2 to 2 attempt 1"]);
}

#[test]
fn workers_that_we_end_leave_no_suspects() {
    let mut bench = Bench::new(&[idempotent()]);
    bench.ready(W1, 1);
    let a = bench.plain("a");
    bench.start(a);
    bench.said();
    assert_eq!(bench.dies(W1, Cause::Replaced), [""; 0]);
    assert!(!bench.machine.wants_fingerprints());
    assert_eq!(bench.ready(W2, 1), ["send a to 2 attempt 2"]);
}

#[test]
fn what_waits_when_its_like_is_found_guilty_does_not_run_either() {
    let mut bench = Bench::new(&[idempotent()]);
    bench.ready(W1, 1);
    let first = bench.plain("p1");
    bench.plain("p2");
    bench.plain("innocent");
    bench.start(first);
    bench.said();
    assert_eq!(bench.dies(W1, Cause::Died), [""; 0]);
    let said = bench.ready(W2, 1);
    assert_eq!(said, ["send p1 to 2 attempt 2"], "a suspect, and nothing beside it");
    assert_eq!(bench.dies(W2, Cause::Died), ["p1 over: POISON"]);
    assert_eq!(bench.ready(W3, 1), ["p2 over: POISON", "send innocent to 3 attempt 1"]);
    assert_eq!(bench.machine.quarantined(bench.now)[0].refused, 1);
}

#[test]
fn what_waits_when_its_like_comes_under_suspicion_runs_alone() {
    let mut bench = Bench::new(&[HandlerLimits::new(4, 10)]);
    bench.ready(W1, 1);
    let first = bench.plain("s1");
    bench.plain("s2");
    bench.plain("other");
    bench.start(first);
    bench.said();
    assert_eq!(bench.dies(W1, Cause::Died), ["s1 over: WORKER_LOST"]);
    assert_eq!(bench.ready(W2, 4), ["send s2 to 2 attempt 1"], "nothing beside it");
    let second = bench.running();
    bench.finished(W2, second, SLOW);
    assert_eq!(bench.said(), ["send other to 2 attempt 1"]);
}

#[test]
fn a_worker_that_drains_is_not_kept_for_a_suspect() {
    let mut bench = Bench::new(&[HandlerLimits { concurrency: 4, ..idempotent() }]);
    bench.ready(W1, 4);
    let suspect = bench.plain("suspect");
    bench.start(suspect);
    bench.said();
    bench.dies(W1, Cause::Died);
    assert!(bench.cancel(suspect).is_some(), "its like is still suspected");
    bench.ready(W2, 4);
    bench.ready(W3, 4);
    bench.plain_times("busy", 0..4);
    let running = bench.running_all();
    let like = Job { fingerprint: Some(Fingerprint(u64::from(b's'))), ..bench.job() };
    bench.submit("s2", &like).unwrap();
    bench.machine.worker_draining(bench.group, W2);
    let on_w3: Vec<_> = running.into_iter().filter(|ticket| bench.machine.worker_of(*ticket) == Some(W3)).collect();
    bench.said();
    bench.finished(W3, on_w3[0], SLOW);
    bench.plain("new");
    assert_eq!(bench.said(), [""; 0], "now the other worker is kept free");
    bench.finished(W3, on_w3[1], SLOW);
    assert_eq!(bench.said(), ["send s2 to 3 attempt 1"]);
}
