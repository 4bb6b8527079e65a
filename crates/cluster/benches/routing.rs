//! What a routing decision costs, and what the registry's upkeep does, in fleets of 10, 1 000 and 10 000 replicas.

#![allow(missing_docs)] // The macros' own functions.

use std::time::{Duration, Instant};

use anyserve_cluster::policy::{BinPacking, Keys, LeastWait, Policy, PrefixAffinity, RoundRobin, Sticky};
use anyserve_cluster::{Announce, Call, Event, Heartbeat, Load, Offer, Registry, RegistryConfig, Route, Step, Trip};
use anyserve_core::{Capability, Query, Upgrades, Value};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const FLEETS: [u64; 3] = [10, 1_000, 10_000];
const CAPABILITIES: u64 = 20;

fn capability(kind: u64, own: Option<u64>) -> Capability {
    let pairs = [
        ("type".to_owned(), Value::Text("chat".to_owned())),
        ("model".to_owned(), Value::Text(format!("model-{kind}"))),
        ("size".to_owned(), Value::Int(i64::try_from(kind).unwrap_or_default())),
    ];
    let host = own.map(|own| ("host".to_owned(), Value::Text(format!("host-{own}"))));
    Capability::try_new(pairs.into_iter().chain(host)).expect("these are pairs")
}

fn load(number: u64) -> Load {
    let pending = u32::try_from(number % 5).unwrap_or_default();
    let service = Duration::from_millis(100);
    Load { ready: true, saturated: false, pending, wait: service * pending, service }
}

/// The announcement of a replica. In a `mixed` fleet every capability is another one.
fn announce(replica: u64, seq: u64, mixed: bool) -> Announce {
    let own = mixed.then_some(replica);
    let offer =
        |kind| Offer { capability: capability(kind, own), idempotent: true, slots: 4, load: load(replica + kind) };
    Announce {
        id: format!("replica-{replica}"),
        epoch: 1,
        seq,
        endpoint: format!("http://10.0.0.1:{replica}"),
        draining: false,
        offers: (0..CAPABILITIES).map(offer).collect(),
        upgrades: Upgrades::default(),
    }
}

fn fleet(replicas: u64, mixed: bool, now: Instant) -> Registry {
    let mut registry = Registry::new(RegistryConfig::default());
    for replica in 0..replicas {
        registry.announce(&announce(replica, 1, mixed), now).expect("it is within the limits");
    }
    registry
}

/// A whole decision: from the call to whom it is sent, and its end.
fn decide(registry: &mut Registry, query: &Query, policy: &dyn Policy, number: u64, now: Instant) {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let keys = Keys { session: Some(hash), prefix: Some(hash) };
    let mut route = Route::new(Call { query: query.clone(), keys, deadline: None, trip: Trip::default() });
    let step = route.begin(registry, policy, now);
    assert!(matches!(step, Step::Send(_)), "{step:?}");
    route.on(Event::Answered, registry, policy, now).expect("it was sent");
}

fn decisions(criterion: &mut Criterion) {
    let policies: [&dyn Policy; 5] = [&LeastWait, &BinPacking, &Sticky, &PrefixAffinity::default(), &RoundRobin];
    let now = Instant::now();
    let query = Query::parse("model=model-7,size>=3").expect("this is a selector");
    for (mixed, name) in [(false, "decide"), (true, "decide in a fleet of 20 n capabilities")] {
        let mut group = criterion.benchmark_group(name);
        for replicas in FLEETS {
            let mut registry = fleet(replicas, mixed, now);
            for policy in policies {
                let mut number = 0;
                group.bench_function(BenchmarkId::new(policy.name(), replicas), |bencher| {
                    bencher.iter(|| {
                        number += 1;
                        decide(&mut registry, &query, policy, number, now);
                    });
                });
            }
        }
    }
}

/// Queries that were never asked before.
fn strangers(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("decide on a new query");
    for (mixed, name) in [(false, "20 capabilities"), (true, "20 n capabilities")] {
        for replicas in FLEETS {
            let mut registry = fleet(replicas, mixed, now);
            let mut number = 0;
            group.bench_function(BenchmarkId::new(name, replicas), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    let query = Query::equal_to([("model", "model-7".to_owned()), ("size", format!("7.{number:0>9}"))]);
                    let mut route =
                        Route::new(Call { query, keys: Keys::default(), deadline: None, trip: Trip::default() });
                    route.begin(&mut registry, &LeastWait, now)
                });
            });
        }
    }
}

/// What is said of names that nobody has, each of them another one.
fn wrong_names(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("say that nobody serves it");
    for (mixed, name) in [(false, "20 capabilities"), (true, "20 n capabilities")] {
        for replicas in FLEETS {
            let mut registry = fleet(replicas, mixed, now);
            let mut number = 0_u64;
            for (kind, asked) in [("a model", "model"), ("a host", "host")] {
                group.bench_function(BenchmarkId::new(format!("{kind} of {name}"), replicas), |bencher| {
                    bencher.iter(|| {
                        number += 1;
                        let query = Query::equal_to([(asked, format!("{asked}-{}{}", number % 10, number * 7919))]);
                        registry.nobody(&query, 0)
                    });
                });
            }
        }
    }
}

/// What nobody claims to serve, in fleets without rules, with one rule that leads somewhere, and with as many rules as
/// replicas, which lead nowhere.
fn unclaimed(criterion: &mut Criterion) {
    let now = Instant::now();
    let query = Query::parse("model=unknown,size>=3").expect("this is a selector");
    let mut group = criterion.benchmark_group("decide on what nobody claims");
    for (name, rule) in [
        ("no rules", (|_| None) as fn(u64) -> Option<String>),
        ("one rule", |_| Some("model=unknown -> model=model-7".to_owned())),
        ("a rule each, to nowhere", |replica| Some(format!("model=unknown -> model=nowhere-{replica}"))),
    ] {
        for replicas in FLEETS {
            let mut registry = Registry::new(RegistryConfig::default());
            for replica in 0..replicas {
                let upgrades = Upgrades::parse(rule(replica).as_deref()).expect("it is a rule");
                registry.announce(&Announce { upgrades, ..announce(replica, 1, false) }, now).expect("it fits");
            }
            group.bench_function(BenchmarkId::new(name, replicas), |bencher| {
                bencher.iter(|| {
                    let keys = Keys::default();
                    let call = Call { query: query.clone(), keys, deadline: None, trip: Trip::default() };
                    Route::new(call).begin(&mut registry, &LeastWait, now)
                });
            });
        }
    }
}

fn upkeep(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("upkeep");
    for replicas in FLEETS {
        let mut registry = fleet(replicas, false, now);
        let mut seq = 1;
        group.bench_function(BenchmarkId::new("heartbeat", replicas), |bencher| {
            bencher.iter(|| {
                seq += 1;
                let loads = (0..CAPABILITIES).map(load).collect();
                let id = format!("replica-{}", seq % replicas);
                registry.heartbeat(&Heartbeat { id, epoch: 1, seq, announced: 1, draining: false, loads }, now)
            });
        });
        for (mixed, name) in [(false, "announce the same"), (true, "announce 20 new capabilities")] {
            let mut registry = fleet(replicas, mixed, now);
            let mut seq = 1;
            group.bench_function(BenchmarkId::new(name, replicas), |bencher| {
                bencher.iter(|| {
                    seq += 1;
                    let mut message = announce(seq % replicas, seq, mixed);
                    if mixed {
                        message.offers = announce(replicas + seq, seq, true).offers;
                    }
                    registry.announce(&message, now)
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(800));
    targets = decisions, strangers, wrong_names, unclaimed, upkeep
}
criterion_main!(benches);
