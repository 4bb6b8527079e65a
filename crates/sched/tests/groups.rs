//! Groups whose workers come late, rest, or do not come any more.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_sched::{CannotRest, Cause, GroupLoad, HandlerLimits, Job, Verdict};

use bench::{Bench, QUICK, SLOW, W1, W2, limits, sequence};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_nanos(1);

fn load(bench: &Bench) -> GroupLoad {
    bench.machine.load(bench.group)
}

fn expect(bench: &mut Bench, after: Option<Duration>) {
    bench.machine.expect_worker(bench.group, after, bench.now);
}

fn close(bench: &mut Bench) {
    let error = Error::new(Code::Unavailable, "model 'a' is unloaded");
    bench.machine.close_group(bench.group, error, bench.now, &mut bench.out);
}

#[test]
fn a_group_tells_the_age_the_hurry_and_the_work_of_what_waits() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 20), HandlerLimits::new(3, 20)]);
    bench.ready(W1, 4);
    let measured = bench.plain("measured");
    bench.pass(SLOW);
    bench.finished(W1, measured, SLOW);
    assert_eq!((load(&bench).oldest, load(&bench).soonest, load(&bench).width), (None, None, 4));
    bench.plain("runs");
    let began = bench.now;
    let first = bench.plain("waits");
    bench.pass(SECOND);
    let hurried = bench.submit("hurried", &bench.due(3 * SECOND)).unwrap();
    let now = load(&bench);
    assert_eq!((now.queued, now.backlog, now.width), (2, 2 * SLOW, 1), "only the first handler's wait");
    assert_eq!((now.oldest, now.soonest), (Some(began), Some(bench.now + 3 * SECOND)));
    bench.cancel(first);
    assert_eq!(load(&bench).oldest, Some(bench.now));
    bench.cancel(hurried);
    assert_eq!((load(&bench).oldest, load(&bench).soonest, load(&bench).backlog), (None, None, Duration::ZERO));
}

#[test]
fn what_waits_behind_its_sequence_is_counted_with_the_rest() {
    let mut bench = Bench::new(&[HandlerLimits { sequence: true, ..limits() }]);
    bench.ready(W1, 1);
    let (start, next) = (sequence(7, true, false), sequence(7, false, false));
    bench.submit("a", &Job { sequence: Some(&start), ..bench.job() }).unwrap();
    assert_eq!(load(&bench).sequences, 1);
    let arrived = bench.now;
    let job = Job { sequence: Some(&next), ..bench.due(SECOND) };
    bench.submit("b", &job).unwrap();
    let now = load(&bench);
    assert_eq!((now.queued, now.oldest, now.soonest), (1, Some(arrived), Some(arrived + SECOND)));
    bench.dies(W1, Cause::Died);
    let now = load(&bench);
    assert_eq!((now.queued, now.oldest, now.soonest, now.sequences), (0, None, None, 0));
}

#[test]
fn the_workers_that_were_needed_are_told_from_those_that_took_turns() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    bench.ready(W2, 1);
    let (a, b) = (bench.plain("a"), bench.plain("b"));
    let both = bench.now;
    assert_eq!((load(&bench).needed, load(&bench).full), (2, Some(both)));
    bench.finished(W1, a, SLOW);
    bench.pass(SECOND);
    bench.finished(W2, b, SLOW);
    for _ in 0..4 {
        bench.pass(SECOND);
        let c = bench.plain("c");
        let worker = bench.machine.worker_of(c).unwrap();
        bench.finished(worker, c, SLOW);
    }
    let now = load(&bench);
    assert_eq!((now.needed, now.full, now.used), (0, Some(both), Some(bench.now)));
    assert_eq!(bench.machine.worker_load(bench.group, W1), 0);
    bench.machine.worker_draining(bench.group, W2);
    assert_eq!(load(&bench).full, Some(bench.now), "the one that is left was needed just now");
}

#[test]
fn a_request_that_cannot_be_served_before_the_first_worker_is_ready_is_refused_with_both_times() {
    let mut bench = Bench::new(&[limits()]);
    expect(&mut bench, Some(SECOND));
    for (left, fits) in [(SECOND.saturating_sub(TICK), false), (SECOND, true), (SECOND + TICK, true)] {
        let verdict = bench.machine.outlook(&bench.due(left), bench.now).verdict;
        match bench.submit("a", &bench.due(left)) {
            Ok(ticket) => {
                assert!(fits && matches!(verdict, Verdict::Wait { expected: SECOND, .. }), "{left:?} {verdict:?}");
                bench.cancel(ticket);
            }
            Err(error) => {
                assert!(!fits && verdict == Verdict::Refuse(error.clone()), "{left:?} {verdict:?}");
                assert_eq!((error.code, error.retry_after), (Code::Starting, Some(SECOND)));
                assert!(error.message.contains("1.0s"), "{}", error.message);
            }
        }
    }
    bench.pass(SECOND / 2);
    assert!(bench.submit("b", &bench.due(SECOND / 2)).is_ok(), "the start goes on");
    assert!(bench.submit("c", &bench.job()).is_ok(), "who has time waits");
}

#[test]
fn what_waits_goes_on_waiting_when_the_worker_is_expected_later_than_before() {
    let mut bench = Bench::new(&[limits()]);
    expect(&mut bench, Some(SECOND));
    bench.submit("a", &bench.due(SECOND)).unwrap();
    expect(&mut bench, Some(5 * SECOND));
    assert_eq!(bench.pass(SECOND / 2), [""; 0]);
    assert_eq!(bench.ready(W1, 1), ["send a to 1 attempt 1"], "a worker may come sooner than was thought");
    assert!(bench.submit("b", &bench.due(SECOND)).is_ok(), "the expectation is forgotten");
    let a = bench.running();
    bench.finished(W1, a, QUICK);
    bench.machine.worker_draining(bench.group, W1);
    assert!(bench.submit("c", &bench.due(SECOND)).is_ok(), "nobody knows when the next worker comes");
    expect(&mut bench, None);
    assert!(bench.submit("d", &bench.due(SECOND)).is_ok());
}

#[test]
fn a_cold_start_is_waited_out_together_with_the_work_before_it() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 100)]);
    bench.ready(W1, 1);
    let measured = bench.plain("measured");
    bench.finished(W1, measured, SLOW);
    bench.machine.worker_rests(bench.group, W1).unwrap();
    expect(&mut bench, Some(SECOND));
    for _ in 0..10 {
        bench.submit("before", &bench.due(2 * SECOND)).unwrap();
    }
    let outlook = bench.machine.outlook(&bench.due(2 * SECOND), bench.now);
    assert_eq!(outlook.expected, SECOND + 10 * SLOW);
    let refused = bench.submit("late", &bench.due((SECOND + 10 * SLOW).saturating_sub(TICK))).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    assert!(bench.submit("in time", &bench.due(SECOND + 10 * SLOW)).is_ok());
}

#[test]
fn of_several_groups_the_one_with_a_ready_worker_is_chosen() {
    let mut bench = Bench::new(&[limits()]);
    let warm = bench.machine.add_group([limits()]);
    bench.machine.worker_ready(warm, W2, 1, bench.now, &mut bench.out);
    let both = [(bench.group, 0), (warm, 0)];
    let chosen = |bench: &Bench| bench.machine.would_choose(&both, &bench.job(), bench.now);
    assert_eq!(chosen(&bench), 1, "idle against unknown");
    let job = Job { group: warm, ..bench.job() };
    bench.submit("a", &job).unwrap();
    bench.submit("b", &job).unwrap();
    assert_eq!(chosen(&bench), 1, "busy against unknown");
    expect(&mut bench, Some(SECOND));
    assert_eq!(chosen(&bench), 1, "a short queue against a long start");
    bench.machine.retire_group(warm);
    assert_eq!(chosen(&bench), 0, "nothing new is taken there");
}

#[test]
fn a_group_that_is_closed_ends_what_waits_and_finishes_what_runs() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    let a = bench.plain("a");
    bench.plain("b");
    bench.said();
    close(&mut bench);
    assert_eq!(bench.said(), ["b over: UNAVAILABLE"]);
    let refused = bench.submit("c", &bench.job()).unwrap_err();
    assert_eq!(refused.message, "model 'a' is unloaded");
    assert_eq!(bench.machine.outlook(&bench.job(), bench.now).verdict, Verdict::Refuse(refused));
    assert_eq!(bench.finished(W1, a, SLOW).unwrap(), "a");
    bench.machine.open_group(bench.group);
    bench.plain("d");
    assert_eq!(bench.said(), ["send d to 1 attempt 1"]);
}

#[test]
fn what_would_run_again_after_a_death_ends_if_its_group_was_closed() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    bench.plain("a");
    bench.said();
    close(&mut bench);
    assert_eq!(bench.dies(W1, Cause::Died), ["a over: UNAVAILABLE"], "it had not started, and nobody would start it");
    assert_eq!(bench.machine.live_requests(), 0);
    assert_eq!(bench.ready(W2, 1), [""; 0]);
    assert!(bench.submit("b", &bench.job()).is_err(), "a worker alone does not open it");
}

#[test]
fn what_waits_in_a_closed_groups_socket_is_not_taken_back() {
    let mut bench = Bench::new(&[HandlerLimits::new(1, 20)]);
    bench.ready(W1, 1);
    let warm = bench.plain("warm");
    bench.finished(W1, warm, QUICK);
    let (a, b) = (bench.plain("a"), bench.plain("b"));
    assert_eq!(bench.said().len(), 3, "b waits in the socket behind a");
    bench.start(a);
    close(&mut bench);
    assert_eq!(bench.pass(Duration::from_millis(6)), [""; 0]);
    assert_eq!(bench.finished(W1, a, SLOW).unwrap(), "a");
    assert_eq!(bench.finished(W1, b, SLOW).unwrap(), "b");
    assert_eq!(bench.machine.live_requests(), 0);
}

#[test]
fn a_retired_group_finishes_what_it_has_and_takes_nothing_new() {
    let mut bench = Bench::new(&[limits()]);
    bench.ready(W1, 1);
    let a = bench.plain("a");
    let b = bench.plain("b");
    bench.said();
    bench.machine.retire_group(bench.group);
    assert_eq!(bench.submit("c", &bench.job()).unwrap_err().code, Code::Draining);
    assert_eq!(bench.finished(W1, a, SLOW).unwrap(), "a");
    assert_eq!(bench.said(), ["send b to 1 attempt 1"]);
    assert_eq!(bench.dies(W1, Cause::Replaced), [""; 0], "b had not started and waits for another worker");
    assert_eq!(bench.ready(W2, 1), ["send b to 2 attempt 2"]);
    assert_eq!(bench.finished(W2, b, SLOW).unwrap(), "b");
    bench.dies(W2, Cause::Replaced);
    assert_eq!((load(&bench).queued, bench.machine.queued(bench.group, 0)), (0, (0, 10)));
    let verdict = bench.machine.outlook(&bench.job(), bench.now).verdict;
    assert!(matches!(verdict, Verdict::Refuse(error) if error.code == Code::Draining), "also when it is over");
}

#[test]
fn a_worker_with_nothing_to_do_leaves_and_comes_back_without_a_death() {
    let mut bench = Bench::new(&[HandlerLimits { sequence: true, ..limits() }, limits()]);
    let rest = |bench: &mut Bench, worker| bench.machine.worker_rests(bench.group, worker);
    assert_eq!(rest(&mut bench, W1), Err(CannotRest::Unknown { worker: W1 }));
    bench.ready(W1, 2);
    let (start, end) = (sequence(7, true, false), sequence(7, false, true));
    let a = bench.submit("a", &Job { sequence: Some(&start), ..bench.job() }).unwrap();
    assert_eq!(rest(&mut bench, W1), Err(CannotRest::Busy { worker: W1, requests: 1 }));
    bench.finished(W1, a, SLOW);
    assert_eq!(rest(&mut bench, W1), Err(CannotRest::Sequences { worker: W1, sequences: 1 }));
    assert_eq!(load(&bench).workers, 1, "a refusal changes nothing");
    let b = bench.submit("b", &Job { sequence: Some(&end), ..bench.job() }).unwrap();
    bench.finished(W1, b, SLOW);
    bench.machine.worker_draining(bench.group, W1);
    assert_eq!(rest(&mut bench, W1), Ok(()));
    assert_eq!((load(&bench).workers, load(&bench).sequences), (0, 0));
    let c = bench.submit("c", &Job { handler: 1, ..bench.job() }).unwrap();
    bench.said();
    assert_eq!(bench.ready(W1, 2), ["send c to 1 attempt 1"]);
    assert_eq!(bench.machine.worker_load(bench.group, W1), 1);
    assert_eq!(bench.finished(W1, c, SLOW).unwrap(), "c");
}

#[test]
fn a_group_that_was_down_lets_requests_wait_again_once_it_is_opened() {
    let mut bench = Bench::new(&[limits()]);
    let error = Error::new(Code::Unavailable, "workers keep dying");
    bench.machine.group_down(bench.group, &error, bench.now, &mut bench.out);
    assert_eq!(bench.submit("a", &bench.job()).unwrap_err().code, Code::Unavailable);
    bench.machine.open_group(bench.group);
    bench.plain("b");
    assert_eq!(bench.ready(W1, 1), ["send b to 1 attempt 1"]);
}
