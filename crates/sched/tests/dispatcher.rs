//! The dispatcher, case by case.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};
use anyserve_sched::{Action, Dispatcher, GroupId, HandlerLimits, Job, Ticket, WorkerId};

const W1: WorkerId = WorkerId(1);
const W2: WorkerId = WorkerId(2);
const SLOW: Duration = Duration::from_millis(50);

struct Bench {
    machine: Dispatcher<&'static str>,
    group: GroupId,
    now: Instant,
    out: Vec<Action<&'static str>>,
}

impl Bench {
    fn new(handlers: &[(u32, usize)]) -> Self {
        let mut machine = Dispatcher::new(1000);
        let limits = handlers
            .iter()
            .map(|(concurrency, max_queue)| HandlerLimits { concurrency: *concurrency, max_queue: *max_queue });
        let group = machine.add_group(limits);
        Self { machine, group, now: Instant::now(), out: Vec::new() }
    }

    fn ready(&mut self, worker: WorkerId, credits: u32) -> Vec<String> {
        self.machine.worker_ready(self.group, worker, credits, &mut self.out);
        self.said()
    }

    fn submit(&mut self, name: &'static str, handler: usize, deadline: Option<Duration>) -> Result<Ticket, Error> {
        let deadline = deadline.map(|after| self.now + after);
        let job = Job { group: self.group, handler, deadline, bytes: 100 };
        self.machine.submit(job, name, self.now, &mut self.out).map_err(|refusal| refusal.error)
    }

    fn finished(&mut self, worker: WorkerId, ticket: Ticket, took: Duration) -> Option<&'static str> {
        self.machine.finished(worker, ticket, Some(took), &mut self.out).unwrap().payload
    }

    /// What the machine asked for since the last time.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for action in std::mem::take(&mut self.out) {
            said.push(match action {
                Action::Send { ticket, worker, attempt, .. } => {
                    let name = self.machine.payload(ticket).copied().unwrap_or("nobody");
                    format!("send {name} to {} attempt {attempt}", worker.0)
                }
                Action::Withdraw { worker, .. } => format!("withdraw from {}", worker.0),
                Action::Over(over) => format!("{} over: {}", over.payload, over.error.code),
            });
        }
        said
    }
}

#[test]
fn requests_wait_in_order_and_go_to_the_worker_that_is_free() {
    let mut bench = Bench::new(&[(1, 10)]);
    bench.ready(W1, 1);
    let a = bench.submit("a", 0, None).unwrap();
    bench.submit("b", 0, None).unwrap();
    bench.submit("c", 0, None).unwrap();
    assert_eq!(bench.said(), ["send a to 1 attempt 1"]);
    assert_eq!(bench.ready(W2, 1), ["send b to 2 attempt 1"]);
    assert_eq!(bench.finished(W1, a, SLOW), Some("a"));
    assert_eq!(bench.said(), ["send c to 1 attempt 1"]);
}

#[test]
fn a_handler_at_its_own_limit_does_not_hold_up_another() {
    let mut bench = Bench::new(&[(1, 10), (2, 10)]);
    bench.ready(W1, 3);
    for (name, handler) in [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 1)] {
        bench.submit(name, handler, None).unwrap();
    }
    assert_eq!(bench.said(), ["send a to 1 attempt 1", "send c to 1 attempt 1", "send d to 1 attempt 1"]);
}

#[test]
fn a_busy_worker_gets_more_only_where_requests_are_known_to_be_short() {
    for (took, more) in [(Duration::from_micros(100), 4), (SLOW, 0)] {
        let mut bench = Bench::new(&[(1, 20)]);
        bench.ready(W1, 1);
        let first = bench.submit("first", 0, None).unwrap();
        bench.finished(W1, first, took);
        bench.said();
        for _ in 0..10 {
            bench.submit("next", 0, None).unwrap();
        }
        assert_eq!(bench.said().len(), 1 + more, "after {took:?}");
    }
}

#[test]
fn a_full_queue_refuses_with_the_time_to_wait() {
    let mut bench = Bench::new(&[(1, 2)]);
    bench.ready(W1, 1);
    let first = bench.submit("first", 0, None).unwrap();
    bench.finished(W1, first, SLOW);
    for _ in 0..3 {
        bench.submit("fits", 0, None).unwrap();
    }
    let refused = bench.submit("too many", 0, None).unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (Code::Overloaded, Some(2 * SLOW)));
    assert!(refused.message.contains("2 of 2"), "{}", refused.message);
}

#[test]
fn bytes_that_wait_are_bounded_too() {
    let mut bench = Bench::new(&[(1, 100)]);
    let accepted = (0..20).take_while(|_| bench.submit("100 bytes", 0, None).is_ok()).count();
    assert_eq!(accepted, 10);
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is_and_keeps_the_credit_until_the_worker_answers() {
    let mut bench = Bench::new(&[(1, 10)]);
    bench.ready(W1, 1);
    let a = bench.submit("a", 0, Some(SLOW)).unwrap();
    bench.submit("b", 0, Some(SLOW)).unwrap();
    bench.submit("c", 0, None).unwrap();
    bench.said();
    assert_eq!(bench.machine.next_deadline(), Some(bench.now + SLOW));
    bench.machine.expire(bench.now + SLOW, &mut bench.out);
    assert_eq!(bench.said(), ["withdraw from 1", "a over: DEADLINE", "b over: DEADLINE"]);
    assert_eq!(bench.machine.load(bench.group).in_flight, 1, "the handler of a still runs");
    assert_eq!(bench.finished(W1, a, SLOW), None, "its caller has had its answer");
    assert_eq!(bench.said(), ["send c to 1 attempt 1"]);
    assert_eq!(bench.submit("late", 0, Some(Duration::ZERO)).unwrap_err().code, Code::Deadline);
}

#[test]
fn a_caller_that_leaves_frees_its_place_at_once() {
    let mut bench = Bench::new(&[(1, 1)]);
    bench.ready(W1, 1);
    let a = bench.submit("a", 0, None).unwrap();
    let b = bench.submit("b", 0, None).unwrap();
    assert_eq!(bench.machine.cancel(b, &mut bench.out), Some("b"));
    bench.submit("c", 0, None).unwrap();
    bench.said();
    assert_eq!(bench.machine.cancel(a, &mut bench.out), Some("a"));
    assert_eq!(bench.said(), ["withdraw from 1"]);
    assert_eq!(bench.machine.cancel(a, &mut bench.out), None, "only once");
}

#[test]
fn what_had_not_started_outlives_its_worker_and_what_had_is_lost() {
    let mut bench = Bench::new(&[(2, 10)]);
    bench.ready(W1, 2);
    let a = bench.submit("a", 0, None).unwrap();
    bench.submit("b", 0, None).unwrap();
    bench.submit("c", 0, None).unwrap();
    bench.said();
    bench.machine.worker_gone(bench.group, W1, |ticket, _| ticket == a, &mut bench.out);
    assert_eq!(bench.said(), ["a over: WORKER_LOST"]);
    assert_eq!(bench.ready(W2, 2), ["send b to 2 attempt 2", "send c to 2 attempt 1"]);
}

#[test]
fn a_request_that_meets_only_dying_workers_is_given_up() {
    let mut bench = Bench::new(&[(1, 10)]);
    bench.submit("a", 0, None).unwrap();
    for attempt in 1..=3 {
        let worker = WorkerId(attempt);
        assert_eq!(bench.ready(worker, 1), [format!("send a to {attempt} attempt {attempt}")]);
        bench.machine.worker_gone(bench.group, worker, |_, _| false, &mut bench.out);
    }
    assert_eq!(bench.said(), ["a over: WORKER_LOST"]);
}

#[test]
fn a_group_that_is_down_refuses_until_a_worker_is_ready() {
    let mut bench = Bench::new(&[(1, 10)]);
    bench.submit("a", 0, None).unwrap();
    let why = Error::new(Code::Unavailable, "they keep dying");
    bench.machine.group_down(bench.group, &why, &mut bench.out);
    assert_eq!(bench.said(), ["a over: UNAVAILABLE"]);
    assert_eq!(bench.submit("b", 0, None).unwrap_err().code, Code::Unavailable);
    bench.ready(W1, 1);
    assert!(bench.submit("c", 0, None).is_ok());
}

#[test]
fn a_worker_that_answers_for_what_it_does_not_have_is_caught() {
    let mut bench = Bench::new(&[(1, 10)]);
    bench.ready(W1, 1);
    bench.ready(W2, 1);
    let a = bench.submit("a", 0, None).unwrap();
    let said = bench.said();
    let (holder, other) = if said[0].contains("to 1") { (W1, W2) } else { (W2, W1) };
    assert!(bench.machine.finished(other, a, None, &mut bench.out).is_err());
    assert!(bench.machine.finished(holder, Ticket::from_number(99), None, &mut bench.out).is_err());
    assert_eq!(bench.finished(holder, a, SLOW), Some("a"));
    assert!(bench.machine.finished(holder, a, None, &mut bench.out).is_err(), "twice");
}

#[test]
fn a_draining_worker_gets_nothing_more() {
    let mut bench = Bench::new(&[(2, 10)]);
    bench.ready(W1, 2);
    bench.submit("a", 0, None).unwrap();
    bench.machine.worker_draining(bench.group, W1);
    bench.submit("b", 0, None).unwrap();
    assert_eq!(bench.said(), ["send a to 1 attempt 1"]);
}
