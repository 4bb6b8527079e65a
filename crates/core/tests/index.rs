//! The index against the definition of matching, on random capabilities and queries.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::collections::BTreeMap;

use anyserve_core::{Capability, Condition, Index, Match, Op, Query, Value, Verdict, matches_of, verdicts};
use anyserve_testkit::Chance;

const CATALOGS: u64 = 1_000;
const QUERIES: u64 = 100;

/// 2^53: from here on neighbours are one float.
const WIDE: i64 = 1 << 53;

/// Few keys and values, so that conditions meet; all of the ways to spell a number, and what only looks like one.
const KEYS: [&str; 5] = ["model", "type", "size", "beta", "gpu"];
const UNKNOWN: [&str; 2] = ["nobody", ""];
const SPELLINGS: [&str; 22] = [
    "a",
    "b",
    "",
    "0",
    "-0",
    "1",
    "+1",
    "01",
    "1.0",
    "1e0",
    " 1",
    "1.5",
    "2",
    "true",
    "false",
    "True",
    "inf",
    "nan",
    "9007199254740992",
    "9007199254740993",
    "9007199254740992.0",
    "9223372036854775808",
];
const WHOLES: [i64; 11] = [-1, 0, 1, 2, 3, WIDE - 1, WIDE, WIDE + 1, -WIDE - 1, i64::MAX, i64::MIN];
const FLOATS: [f64; 9] = [0.0, -0.0, 1.0, 1.5, 2.0, -1.0, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0, 1e300];
const BOUNDS: [f64; 4] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5];

fn value(chance: &mut Chance) -> Value {
    match chance.below(5) {
        0 => Value::Text((*chance.pick(&SPELLINGS)).to_owned()),
        1 => Value::Int(*chance.pick(&WHOLES)),
        2 => Value::Float(*chance.pick(&FLOATS)),
        3 => Value::Bool(chance.percent(50)),
        _ => Value::Int(i64::try_from(chance.below(2_000)).unwrap()),
    }
}

fn capability(chance: &mut Chance) -> Capability {
    let pairs = 1 + chance.below(5);
    let pairs: BTreeMap<_, _> = (0..pairs).map(|_| ((*chance.pick(&KEYS)).to_owned(), value(chance))).collect();
    Capability::try_new(pairs).unwrap()
}

/// Few capabilities mostly; some lists are so long that comparisons meet more than one of the sets that are kept.
fn capabilities(chance: &mut Chance) -> Vec<Capability> {
    let len = if chance.percent(1) { 2_000 + chance.below(3_000) } else { chance.below(40) };
    (0..len).map(|_| capability(chance)).collect()
}

fn texts(chance: &mut Chance) -> Vec<String> {
    (0..chance.below(4)).map(|_| (*chance.pick(&SPELLINGS)).to_owned()).collect()
}

fn bound(chance: &mut Chance) -> f64 {
    match chance.below(4) {
        0 => *chance.pick(&BOUNDS),
        1 => *chance.pick(&FLOATS),
        _ => f64::from(u32::try_from(chance.below(2_000)).unwrap()),
    }
}

fn condition(chance: &mut Chance) -> Condition {
    let key = if chance.percent(5) { chance.pick(&UNKNOWN) } else { chance.pick(&KEYS) };
    let text = (*chance.pick(&SPELLINGS)).to_owned();
    let op = match chance.below(14) {
        0..3 => Op::Equals(text),
        3..5 => Op::NotEquals(text),
        5 => Op::In(texts(chance)),
        6..8 => Op::NotIn(texts(chance)),
        8 => Op::Exists,
        9 => Op::Missing,
        10 => Op::Less(bound(chance).into()),
        11 => Op::AtMost(bound(chance).into()),
        12 => Op::Greater(bound(chance).into()),
        _ => Op::AtLeast(bound(chance).into()),
    };
    Condition { key: (*key).to_owned(), op }
}

fn query(chance: &mut Chance) -> Query {
    if chance.percent(15) {
        return Query::model(*chance.pick(&SPELLINGS));
    }
    Query::all((0..chance.below(5)).map(|_| condition(chance)).collect())
}

/// The first of the matches, as long as they are as specific as the first one; in the order of the list.
fn most_specific(matches: &[Match]) -> Vec<u32> {
    let first = matches.iter().take_while(|one| one.unmentioned == matches[0].unmentioned);
    first.map(|one| u32::try_from(one.index).unwrap()).collect()
}

fn agrees(index: &Index, list: &[Capability], query: &Query) {
    let matches = matches_of(query, list.iter());
    let mut every: Vec<_> = matches.iter().map(|one| u32::try_from(one.index).unwrap()).collect();
    every.sort_unstable();
    assert_eq!(index.matches(query).iter().collect::<Vec<_>>(), every, "{query:?}");
    assert_eq!(index.best(query).to_vec(), most_specific(&matches), "{query:?}");
    assert_eq!(index.best(query).to_vec(), most_specific(&matches), "{query:?}, looked up");
    says_the_same(&matches, list, query);
    let third: Vec<_> = matches.into_iter().filter(|one| one.index % 3 == 0).collect();
    assert_eq!(index.best_where(query, |place| place % 3 == 0).to_vec(), most_specific(&third), "{query:?}, a third");
}

/// What is explained is what is done: a verdict for each, which is that of the definition, with a reason if it differs.
fn says_the_same(matches: &[Match], list: &[Capability], query: &Query) {
    let mut expected = vec![None; list.len()];
    for one in matches {
        expected[one.index] = Some(one.unmentioned);
    }
    let found = verdicts(query, list.iter()).into_iter().map(|verdict| match verdict {
        Verdict::Matches { unmentioned } => Some(unmentioned),
        Verdict::Differs { why } => why.is_empty().then_some(usize::MAX),
    });
    assert!(found.eq(expected), "{query:?}, explained");
}

#[test]
fn the_index_agrees_with_the_definition_on_100_000_cases() {
    for seed in 0..CATALOGS {
        let mut chance = Chance::new(seed);
        let list = capabilities(&mut chance);
        let index = Index::new(&list);
        (0..QUERIES).for_each(|_| agrees(&index, &list, &query(&mut chance)));
    }
}

#[test]
fn no_capabilities_have_no_matches() {
    let index = Index::default();
    for query in [Query::all(vec![]), Query::model("a"), Query::parse("!a").unwrap()] {
        agrees(&index, &[], &query);
    }
}

#[test]
fn what_was_answered_stays_so_while_more_is_asked_than_is_remembered() {
    let list: Vec<_> = (0..5_000).map(|number| [("size".to_owned(), Value::Int(number))]).collect();
    let list: Vec<_> = list.into_iter().map(|pairs| Capability::try_new(pairs).unwrap()).collect();
    let index = Index::new(&list);
    for _ in 0..2 {
        for place in 0..5_000_u32 {
            assert_eq!(*index.best(&Query::equal_to([("size", place.to_string())])), [place]);
        }
    }
}
