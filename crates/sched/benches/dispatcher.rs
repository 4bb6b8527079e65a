//! What the scheduler costs a request: submitted, sent and finished, in an idle replica and in a deep queue.

#![allow(missing_docs)] // The macros' own functions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyserve_core::{Fingerprint, Priority};
use anyserve_sched::{
    Action, Dispatcher, GroupId, HandlerLimits, Job, Payload, SchedConfig, Sending, Ticket, WorkerId,
};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};

const WORKER: WorkerId = WorkerId(1);
const TENANTS: [&str; 8] = ["", "a", "b", "c", "d", "e", "f", "g"];
/// What a handler takes: slow enough that nothing waits in a socket, or quick enough that something does.
const SLOW: Duration = Duration::from_millis(5);
const QUICK: Duration = Duration::from_micros(5);

struct Nothing;

impl Payload for Nothing {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(0)
    }

    fn has_emitted(&self) -> bool {
        false
    }
}

/// A dispatcher with one worker, and what is with it.
struct Bench {
    machine: Dispatcher<Nothing>,
    group: GroupId,
    now: Instant,
    out: Vec<Action<Nothing>>,
    running: VecDeque<Ticket>,
    took: Duration,
    count: usize,
}

impl Bench {
    fn new(limits: HandlerLimits, took: Duration) -> Self {
        let mut machine = Dispatcher::new(SchedConfig::default());
        let group = machine.add_group([limits]);
        let (now, mut out) = (Instant::now(), Vec::new());
        machine.worker_ready(group, WORKER, 1, now, &mut out);
        Self { machine, group, now, out, running: VecDeque::new(), took, count: 0 }
    }

    fn submit(&mut self, job: &Job<'_>) {
        drop(self.machine.submit(job, Nothing, self.now, &mut self.out));
        self.take_sent();
    }

    fn finish(&mut self) {
        let Some(ticket) = self.running.pop_front() else { return };
        drop(self.machine.finished(self.group, WORKER, ticket, Some(self.took), self.now, &mut self.out));
        self.take_sent();
    }

    fn take_sent(&mut self) {
        let ticket = |sending: &Sending| sending.ticket;
        for action in self.out.drain(..) {
            match action {
                Action::Send(_, sending) => self.running.push_back(sending.ticket),
                Action::SendBatch(_, members) => self.running.extend(members.iter().map(ticket)),
                Action::Withdraw { .. } | Action::Over(_) | Action::Replace(_) => {}
            }
        }
    }

    /// One request comes and one ends.
    fn turn(&mut self, job: &Job<'_>) {
        self.now += Duration::from_micros(20);
        self.submit(job);
        self.finish();
    }

    /// The next job of a mixed crowd: eight tenants, four levels, half of them with a deadline.
    fn mixed(&mut self) -> Job<'static> {
        self.count += 1;
        let level = u32::try_from(self.count % 4).unwrap_or_default() * 2 + 1;
        let deadline = self.count.is_multiple_of(2).then(|| self.now + Duration::from_mins(10));
        Job {
            priority: Priority::try_new(level).unwrap_or(Priority::MIDDLE),
            tenant: TENANTS[self.count % TENANTS.len()],
            deadline,
            ..Job::new(self.group, 0)
        }
    }
}

fn limits() -> HandlerLimits {
    HandlerLimits::new(1, 100_000)
}

fn idle(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new(limits(), SLOW);
    let job = Job::new(bench.group, 0);
    bencher.iter(|| bench.turn(&job));
}

fn deadline(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new(limits(), SLOW);
    bencher.iter(|| {
        let job = Job { deadline: Some(bench.now + Duration::from_secs(1)), ..Job::new(bench.group, 0) };
        bench.turn(&job);
    });
}

fn queue(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new(limits(), SLOW);
    for _ in 0..1000 {
        let job = bench.mixed();
        bench.submit(&job);
    }
    bencher.iter(|| {
        let job = bench.mixed();
        bench.turn(&job);
    });
}

fn batches(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new(HandlerLimits { max_batch: 32, ..limits() }, SLOW);
    let job = Job { batch: Some(7), ..Job::new(bench.group, 0) };
    for _ in 0..64 {
        bench.submit(&job);
    }
    bencher.iter(|| bench.turn(&job));
}

fn sockets(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new(limits(), QUICK);
    let job = Job::new(bench.group, 0);
    bench.turn(&job);
    for _ in 0..64 {
        bench.submit(&job);
    }
    bencher.iter(|| bench.turn(&job));
}

fn costs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    group.bench_function("idle worker", idle);
    group.bench_function("idle worker, with a deadline", deadline);
    group.bench_function("1000 waiting, 8 tenants, 4 levels, deadlines", queue);
    group.bench_function("64 in flight, in batches of 32", batches);
    group.bench_function("64 in flight, short ones in the worker's socket", sockets);
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
