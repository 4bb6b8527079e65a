//! The index of a fleet against the definition of matching, while capabilities come and go.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::collections::BTreeMap;

use anyserve_cluster::CapabilityIndex;
use anyserve_core::{Capability, Condition, Op, Query, Value, matches_of};
use anyserve_testkit::Chance;

const KEYS: [&str; 5] = ["model", "type", "size", "beta", "gpu"];
const SPELLINGS: [&str; 10] = ["a", "b", "", "0", "-0", "1", "1.0", "1.5", "true", "9007199254740993"];

fn value(chance: &mut Chance) -> Value {
    match chance.below(5) {
        0 => Value::Text((*chance.pick(&SPELLINGS)).to_owned()),
        1 => Value::Int(*chance.pick(&[-1, 0, 1, 2, (1 << 53) + 1])),
        2 => Value::Float(*chance.pick(&[0.0, -0.0, 1.0, 1.5])),
        3 => Value::Bool(chance.percent(50)),
        _ => Value::Int(i64::try_from(chance.below(500)).unwrap()),
    }
}

fn capability(chance: &mut Chance) -> Capability {
    let pairs = 1 + chance.below(5);
    let pairs: BTreeMap<_, _> = (0..pairs).map(|_| ((*chance.pick(&KEYS)).to_owned(), value(chance))).collect();
    Capability::try_new(pairs).unwrap()
}

fn condition(chance: &mut Chance) -> Condition {
    let text = (*chance.pick(&SPELLINGS)).to_owned();
    let bound = f64::from(u32::try_from(chance.below(500)).unwrap());
    let op = match chance.below(10) {
        0..3 => Op::Equals(text),
        3 => Op::NotEquals(text),
        4 => Op::In(vec![text, "a".to_owned()]),
        5 => Op::NotIn(vec![text, "b".to_owned()]),
        6 => Op::Exists,
        7 => Op::Missing,
        8 => Op::Less(bound.into()),
        _ => Op::AtLeast(bound.into()),
    };
    Condition { key: (*chance.pick(&KEYS)).to_owned(), op }
}

fn query(chance: &mut Chance) -> Query {
    if chance.percent(20) {
        return Query::model(*chance.pick(&SPELLINGS));
    }
    Query::all((0..chance.below(4)).map(|_| condition(chance)).collect())
}

/// An index, and beside it who uses what.
#[derive(Default)]
struct Fleet {
    index: CapabilityIndex,
    /// Number by number, with how many use it.
    used: BTreeMap<u32, (Capability, u32)>,
}

impl Fleet {
    fn acquire(&mut self, capability: &Capability) {
        let number = self.index.acquire(capability);
        self.used.entry(number).or_insert_with(|| (capability.clone(), 0)).1 += 1;
        assert_eq!(self.used[&number].0, *capability, "a number means one capability");
    }

    fn release(&mut self, number: u32) {
        let used = self.used.get_mut(&number).unwrap();
        used.1 -= 1;
        let gone = used.1 == 0;
        assert_eq!(self.index.release(number), gone);
        if gone {
            self.used.remove(&number);
        }
    }

    /// What the definition says is the best among those that are kept, by rising number.
    fn expected(&self, query: &Query, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let kept: Vec<_> = self.used.iter().filter(|(number, _)| keep(**number)).collect();
        let matches = matches_of(query, kept.iter().map(|(_, (capability, _))| capability));
        let best = matches.iter().take_while(|one| one.unmentioned == matches[0].unmentioned);
        let mut best: Vec<_> = best.map(|one| *kept[one.index].0).collect();
        best.sort_unstable();
        best
    }

    fn agrees(&mut self, query: &Query) {
        assert_eq!(*self.index.best(query), *self.expected(query, |_| true), "{query}");
        let third = |number: u32| number.is_multiple_of(3);
        assert_eq!(self.index.best_where(query, third), self.expected(query, third), "{query}, a third");
    }
}

/// The same few queries are asked again and again while the fleet changes, so that most answers are followed up.
fn churn(seed: u64, steps: u64, size: usize) {
    let (mut chance, mut fleet) = (Chance::new(seed), Fleet::default());
    let queries: Vec<_> = (0..12).map(|_| query(&mut chance)).collect();
    for _ in 0..steps {
        for _ in 0..=chance.below(6) {
            let numbers: Vec<_> = fleet.used.keys().copied().collect();
            if fleet.used.len() > size || (!numbers.is_empty() && chance.percent(40)) {
                fleet.release(*chance.pick(&numbers));
            } else {
                fleet.acquire(&capability(&mut chance));
            }
        }
        let asked = if chance.percent(80) { chance.pick(&queries).clone() } else { query(&mut chance) };
        fleet.agrees(&asked);
    }
}

#[test]
fn the_index_agrees_with_the_definition_in_small_fleets_that_change() {
    (0..200).for_each(|seed| churn(seed, 100, 40));
}

#[test]
fn the_index_agrees_with_the_definition_across_tails_and_segments() {
    for seed in 0..4 {
        let (mut chance, mut fleet) = (Chance::new(seed), Fleet::default());
        (0..1_500).for_each(|_| fleet.acquire(&capability(&mut chance)));
        for _ in 0..150 {
            fleet.agrees(&query(&mut chance));
            let numbers: Vec<_> = fleet.used.keys().copied().collect();
            (0..8).for_each(|_| fleet.acquire(&capability(&mut chance)));
            let gone = chance.below(16);
            let mut gone: Vec<_> = (0..gone).map(|_| *chance.pick(&numbers)).collect();
            gone.sort_unstable();
            gone.dedup();
            for number in gone {
                fleet.release(number);
            }
        }
    }
}

#[test]
fn equal_capabilities_have_one_number_and_unequal_ones_two() {
    let one = |value: Value| Capability::try_new([("a".to_owned(), value)]).unwrap();
    let mut index = CapabilityIndex::default();
    let number = index.acquire(&one(Value::Int(1)));
    assert_eq!(index.acquire(&one(Value::Int(1))), number);
    for other in [Value::Float(1.0), Value::Text("1".into()), Value::Bool(true)] {
        assert_ne!(index.acquire(&one(other)), number);
    }
    assert!(!index.release(number) && index.release(number));
    assert_eq!(index.len(), 3);
}
