//! Matching against brute force: a second, plain reading of what the selectors' documentation says.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use std::collections::BTreeMap;

use anyserve_core::{Capability, Query, Value, matches_of};
use proptest::prelude::*;

type Pairs = BTreeMap<&'static str, Value>;

/// One condition: its text, and whether a capability with these pairs satisfies it.
#[derive(Clone, Debug)]
struct Plain {
    key: &'static str,
    sign: &'static str,
    values: Vec<&'static str>,
}

const KEYS: [&str; 4] = ["model", "type", "size", "beta"];
const SPELLINGS: [&str; 7] = ["a", "b", "1", "2", "2.0", "1.5", "true"];
const SIGNS: [&str; 11] = ["=", "==", "!=", "in", "notin", "", "!", "<", "<=", ">", ">="];

impl Plain {
    fn text(&self) -> String {
        let Self { key, sign, values } = self;
        match *sign {
            "" => (*key).to_owned(),
            "!" => format!("!{key}"),
            "in" | "notin" => format!("{key} {sign} ({})", values.join(", ")),
            sign => format!("{key} {sign} {}", values[0]),
        }
    }

    fn holds(&self, pairs: &Pairs) -> bool {
        let value = pairs.get(self.key);
        let spelled = |text: &&str| value.is_some_and(|value| same(value, text));
        let order = || value.and_then(number).zip(self.values[0].parse::<f64>().ok());
        match self.sign {
            "=" | "==" => spelled(&self.values[0]),
            "!=" => !spelled(&self.values[0]),
            "in" => self.values.iter().any(&spelled),
            "notin" => self.values.iter().all(|text| !spelled(text)),
            "" => value.is_some(),
            "!" => value.is_none(),
            "<" => order().is_some_and(|(own, bound)| own < bound),
            "<=" => order().is_some_and(|(own, bound)| own <= bound),
            ">" => order().is_some_and(|(own, bound)| own > bound),
            _ => order().is_some_and(|(own, bound)| own >= bound),
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(whole) => Some(f64::from(i32::try_from(*whole).unwrap())),
        Value::Float(own) => Some(*own),
        Value::Text(_) | Value::Bool(_) => None,
    }
}

fn same(value: &Value, text: &str) -> bool {
    match value {
        Value::Text(own) => own == text,
        Value::Bool(own) => own.to_string() == text,
        Value::Int(_) | Value::Float(_) => text.parse().ok() == number(value),
    }
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(&SPELLINGS[..]).prop_map(|text| Value::Text(text.to_owned())),
        (0_i64..4).prop_map(Value::Int),
        prop::sample::select(&[1.0, 1.5, 2.0][..]).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Bool),
    ]
}

fn capabilities() -> impl Strategy<Value = Vec<Pairs>> {
    let one = prop::collection::btree_map(prop::sample::select(&KEYS[..]), values(), 1..4);
    prop::collection::vec(one, 0..8)
}

fn conditions() -> impl Strategy<Value = Vec<Plain>> {
    let numbers = || prop::sample::select(&["1", "1.5", "2"][..]);
    let one = prop::sample::select(&SIGNS[..]).prop_flat_map(move |sign| {
        let spelling =
            if sign.starts_with(['<', '>']) { numbers().boxed() } else { prop::sample::select(&SPELLINGS[..]).boxed() };
        let values = prop::collection::vec(spelling, 1..3);
        (prop::sample::select(&KEYS[..]), values).prop_map(move |(key, values)| Plain { key, sign, values })
    });
    prop::collection::vec(one, 1..4)
}

fn owned(list: &[Pairs]) -> Vec<Capability> {
    let pair = |(key, value): (&&str, &Value)| ((*key).to_owned(), value.clone());
    list.iter().map(|pairs| Capability::try_new(pairs.iter().map(pair)).unwrap()).collect()
}

/// Places of what satisfies `holds`, the fewest keys that are not `mentioned` first.
fn expected(list: &[Pairs], mentioned: &[&str], holds: impl Fn(&Pairs) -> bool) -> Vec<usize> {
    let rest = |pairs: &Pairs| pairs.keys().filter(|key| !mentioned.contains(key)).count();
    let mut found: Vec<_> = (0..list.len()).filter(|place| holds(&list[*place])).collect();
    found.sort_by_key(|place| (rest(&list[*place]), *place));
    found
}

fn found(query: &Query, list: &[Pairs]) -> Vec<usize> {
    matches_of(query, owned(list).iter()).into_iter().map(|found| found.index).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_selector_finds_what_brute_force_finds(list in capabilities(), conditions in conditions()) {
        let text = conditions.iter().map(Plain::text).collect::<Vec<_>>().join(", ");
        let mentioned: Vec<_> = conditions.iter().map(|condition| condition.key).collect();
        let query = Query::parse(&text).unwrap();
        let holds = |pairs: &Pairs| conditions.iter().all(|condition| condition.holds(pairs));
        prop_assert_eq!(found(&query, &list), expected(&list, &mentioned, holds), "{}", text);
    }

    #[test]
    fn a_model_name_finds_what_brute_force_finds(list in capabilities(), at in 0..SPELLINGS.len()) {
        let name = SPELLINGS[at];
        let by = |key: &'static str| {
            expected(&list, &[key], move |pairs| pairs.get(key).is_some_and(|value| same(value, name)))
        };
        let models = by("model");
        let expected = if models.is_empty() { by("type") } else { models };
        prop_assert_eq!(found(&Query::model(name), &list), expected);
    }
}
