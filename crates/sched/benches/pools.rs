//! What one look of the planner costs with a hundred groups.

#![allow(missing_docs)] // The macros' own functions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyserve_core::{Fingerprint, Needs, Resources};
use anyserve_sched::{
    Dispatcher, GroupId, HandlerLimits, Job, Payload, PlaceEvent, PoolAction, PoolGroup, PoolPolicy, Pools,
    SchedConfig, WorkerId,
};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};

const GROUPS: usize = 100;

struct Nothing;

impl Payload for Nothing {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(0)
    }

    fn has_emitted(&self) -> bool {
        false
    }
}

/// A dispatcher and a planner for groups of which as many as there are tokens have a worker.
struct Bench {
    machine: Dispatcher<Nothing>,
    pools: Pools,
    now: Instant,
    orders: Vec<PoolAction>,
}

impl Bench {
    fn new(tokens: u32) -> Self {
        let resources = Resources { tokens: BTreeMap::from([("token".to_owned(), tokens)]), ..Resources::default() };
        let mut bench = Self {
            machine: Dispatcher::new(SchedConfig::default()),
            pools: Pools::new(resources, PoolPolicy::default()),
            now: Instant::now(),
            orders: Vec::new(),
        };
        let needs = Needs { tokens: BTreeMap::from([("token".to_owned(), 1)]), ..Needs::default() };
        let group = PoolGroup { needs, max: 2, idle_timeout: Some(Duration::from_mins(1)), ..PoolGroup::default() };
        for _ in 0..GROUPS {
            let id = bench.machine.add_group([HandlerLimits::new(1, 1000)]);
            bench.pools.add_group(id, group.clone()).expect("one token is enough");
            bench.submit(id);
        }
        bench.decide();
        bench.begin();
        bench
    }

    fn submit(&mut self, group: GroupId) {
        let job = Job { deadline: Some(self.now + Duration::from_mins(1)), ..Job::new(group, 0) };
        drop(self.machine.submit(&job, Nothing, self.now, &mut Vec::new()));
    }

    fn begin(&mut self) {
        self.now += Duration::from_millis(500);
        for order in std::mem::take(&mut self.orders) {
            if let PoolAction::Start { place, group, .. } = order {
                self.machine.worker_ready(group, WorkerId(place.0 + 1), 1, self.now, &mut Vec::new());
                self.pools.on(place, PlaceEvent::Ready, self.now);
            }
        }
    }

    fn decide(&mut self) {
        self.pools.decide(|group| self.machine.load(group), self.now, &mut self.orders);
    }

    /// Looks again and again; nothing ever ends, so that the same is to be decided each time.
    fn look(&mut self, bencher: &mut Bencher<'_>) {
        bencher.iter(|| {
            self.orders.clear();
            self.decide();
        });
    }
}

fn costs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100 groups");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    group.bench_function("each with a worker, nothing waits", |bencher| Bench::new(100).look(bencher));
    group.bench_function("10 with a worker, 90 wait", |bencher| Bench::new(10).look(bencher));
    group.bench_function("50 with a worker, 50 wait", |bencher| Bench::new(50).look(bencher));
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
