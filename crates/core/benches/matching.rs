//! How long a query takes among many capabilities: looked up, worked out by the index, and by going through them all.

#![allow(missing_docs)] // The macros' own functions.

use std::hint::black_box;
use std::time::Duration;

use anyserve_core::{Capability, Condition, Index, Op, Query, Value, matches_of};
use anyserve_testkit::Chance;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};

const SIZES: [u64; 2] = [10_000, 100_000];

/// Different queries of each shape: far more than an index remembers, so that in their turn hardly any is known.
const QUERIES: u64 = 40_000;

const TYPES: [&str; 10] =
    ["chat", "embed", "rerank", "speech", "image", "vision", "code", "score", "translate", "classify"];
const REGIONS: [&str; 8] = ["eu-1", "eu-2", "us-1", "us-2", "us-3", "ap-1", "ap-2", "sa-1"];
const QUANTS: [&str; 4] = ["none", "int8", "int4", "fp8"];

/// A key of the fleet: how many of 100 capabilities have it, and with which value.
type Key = (&'static str, u64, fn(&mut Chance) -> Value);

/// What a capability has beside its model.
const KEYS: [Key; 6] = [
    ("type", 100, |chance| text(chance, &TYPES)),
    ("size", 80, |chance| Value::Int(whole(chance, 500).into())),
    ("region", 70, |chance| text(chance, &REGIONS)),
    ("gpu", 60, |chance| Value::Bool(chance.percent(50))),
    ("price", 50, |chance| Value::Float(whole(chance, 1 << 30).into())),
    ("quant", 40, |chance| text(chance, &QUANTS)),
];

fn text(chance: &mut Chance, of: &[&str]) -> Value {
    Value::Text((*chance.pick(of)).to_owned())
}

fn whole(chance: &mut Chance, below: u64) -> u32 {
    u32::try_from(chance.below(below)).expect("it is small")
}

/// One of a fleet in which two capabilities share a model.
fn capability(chance: &mut Chance, of: u64) -> Capability {
    let model = ("model".to_owned(), Value::Text(format!("m-{}", chance.below(of / 2))));
    let has = |(key, percent, value): &Key| chance.percent(*percent).then(|| ((*key).to_owned(), value(chance)));
    Capability::try_new(KEYS.iter().filter_map(has).chain([model])).expect("the keys differ")
}

/// A shape of query: its name, and one of its kind.
type Shape = (&'static str, fn(&mut Chance, u64) -> Query);

const SHAPES: [Shape; 7] = [
    ("model name", |chance, of| Query::model(format!("m-{}", chance.below(of / 2)))),
    ("nothing matches", |chance, _| Query::model(format!("x-{}", chance.number()))),
    ("type and model", |chance, of| select(&format!("type=chat,model=m-{}", chance.below(of / 2)))),
    ("one in ten", |_, _| select("type=chat")),
    ("size between", |chance, _| {
        let least = chance.below(400);
        select(&format!("type=code,size>={least},size<{}", least + 100))
    }),
    ("price below", |chance, _| select(&format!("type=code,price<{}", chance.below(1 << 30)))),
    ("one of and not", |_, _| select("type=chat,region in (eu-1,us-2,ap-1),quant!=int4,!gpu")),
];

fn select(text: &str) -> Query {
    Query::parse(text).expect("a selector")
}

/// The same query with a condition that every capability satisfies, and that no query had before.
fn unseen(query: Query, chance: &mut Chance) -> Query {
    let Query::All(conditions) = &query else { return query };
    let nonce = Condition { key: "nonce".to_owned(), op: Op::NotEquals(chance.number().to_string()) };
    Query::all(conditions.iter().cloned().chain([nonce]).collect())
}

fn queries(shape: Shape, of: u64) -> Vec<Query> {
    let mut chance = Chance::new(7);
    let mut query = || unseen(shape.1(&mut chance, of), &mut chance);
    (0..QUERIES).map(|_| query()).collect()
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, shape: Shape, list: &[Capability], index: &Index) {
    let queries = queries(shape, list.len() as u64);
    let (one, mut next) = (&queries[0], queries.iter().cycle());
    group.bench_function(BenchmarkId::new("cached", shape.0), |bencher| bencher.iter(|| index.best(black_box(one))));
    group.bench_function(BenchmarkId::new("cold", shape.0), |bencher| {
        bencher.iter(|| index.best(next.next().expect("it is a circle")));
    });
    group.bench_function(BenchmarkId::new("brute force", shape.0), |bencher| {
        bencher.iter(|| matches_of(black_box(one), list.iter()));
    });
}

fn matching(criterion: &mut Criterion) {
    for size in SIZES {
        let mut chance = Chance::new(size);
        let list: Vec<_> = (0..size).map(|_| capability(&mut chance, size)).collect();
        let index = Index::new(&list);
        let mut group = criterion.benchmark_group(format!("{size} capabilities"));
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
        for shape in SHAPES {
            measure(&mut group, shape, &list, &index);
        }
        let build = |bencher: &mut criterion::Bencher<'_>| bencher.iter(|| Index::new(black_box(&list)));
        group.sample_size(10).bench_function("build", build);
    }
}

criterion_group!(benches, matching);
criterion_main!(benches);
