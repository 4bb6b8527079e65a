//! Queries: what a request asks of the capability that is to serve it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use crate::{Capability, SelectorError, Value, selector};

/// The number that a comparison compares with. It is equal to itself bit by bit, so that a query can be looked up.
#[derive(Clone, Copy, Debug)]
pub struct Bound(f64);

/// What a condition asks of the value of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// The key is there and its value is spelled so.
    Equals(String),
    /// The key is missing, or its value is not spelled so.
    NotEquals(String),
    /// The key is there and its value is spelled like one of these.
    In(Vec<String>),
    /// The key is missing, or its value is spelled like none of these.
    NotIn(Vec<String>),
    /// The key is there.
    Exists,
    /// The key is missing.
    Missing,
    /// The value is a number below this.
    Less(Bound),
    /// The value is a number not above this.
    AtMost(Bound),
    /// The value is a number above this.
    Greater(Bound),
    /// The value is a number not below this.
    AtLeast(Bound),
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// What is asked of its value.
    pub op: Op,
}

/// Conditions that must all hold, sorted by key and none twice: what is asked in another order is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions(Vec<Condition>);

/// What a capability must satisfy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Every condition holds. The empty list holds for all.
    All(Conditions),
    /// The capability's `model` is this name or, where no capability's is, its `type`.
    Model(String),
}

// === impl Bound ===

impl Bound {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for Bound {
    /// The two zeros compare alike and are one bound.
    fn from(number: f64) -> Self {
        Self(number + 0.0)
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Op ===

impl Op {
    /// Whether a capability that lacks the key satisfies it.
    pub fn is_negative(&self) -> bool {
        matches!(self, Self::NotEquals(_) | Self::NotIn(_) | Self::Missing)
    }

    fn sort(&mut self) {
        if let Self::In(texts) | Self::NotIn(texts) = self {
            texts.sort_unstable();
            texts.dedup();
        }
    }
}

// === impl Condition ===

impl Condition {
    /// `key = value`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), op: Op::Equals(value.into()) }
    }

    /// Whether a capability may satisfy it with the key and without: the key is mentioned, but not decided on.
    pub(crate) fn denies_a_value(&self) -> bool {
        matches!(self.op, Op::NotEquals(_) | Op::NotIn(_))
    }

    fn heap_size(&self) -> usize {
        let text = match &self.op {
            Op::Equals(text) | Op::NotEquals(text) => text.len(),
            Op::In(texts) | Op::NotIn(texts) => texts.iter().map(|text| size_of_val(text) + text.len()).sum(),
            _ => 0,
        };
        self.key.len() + text
    }

    /// Whether a capability satisfies it.
    pub fn holds(&self, capability: &Capability) -> bool {
        let value = capability.get(&self.key);
        let number = || value.and_then(Value::as_number);
        match &self.op {
            Op::Equals(text) => value.is_some_and(|value| value.is_spelled(text)),
            Op::NotEquals(text) => !value.is_some_and(|value| value.is_spelled(text)),
            Op::In(texts) => value.is_some_and(|value| texts.iter().any(|text| value.is_spelled(text))),
            Op::NotIn(texts) => !value.is_some_and(|value| texts.iter().any(|text| value.is_spelled(text))),
            Op::Exists => value.is_some(),
            Op::Missing => value.is_none(),
            Op::Less(bound) => number().is_some_and(|number| number < bound.get()),
            Op::AtMost(bound) => number().is_some_and(|number| number <= bound.get()),
            Op::Greater(bound) => number().is_some_and(|number| number > bound.get()),
            Op::AtLeast(bound) => number().is_some_and(|number| number >= bound.get()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.op {
            Op::Equals(value) => write!(f, "{key}={value}"),
            Op::NotEquals(value) => write!(f, "{key}!={value}"),
            Op::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Op::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Op::Exists => write!(f, "{key}"),
            Op::Missing => write!(f, "!{key}"),
            Op::Less(bound) => write!(f, "{key}<{bound}"),
            Op::AtMost(bound) => write!(f, "{key}<={bound}"),
            Op::Greater(bound) => write!(f, "{key}>{bound}"),
            Op::AtLeast(bound) => write!(f, "{key}>={bound}"),
        }
    }
}

// === impl Conditions ===

impl Conditions {
    /// Brings them into the one order.
    pub fn new(mut conditions: Vec<Condition>) -> Self {
        for condition in &mut conditions {
            condition.op.sort();
        }
        conditions.sort_unstable();
        conditions.dedup();
        Self(conditions)
    }
}

impl Deref for Conditions {
    type Target = [Condition];

    fn deref(&self) -> &[Condition] {
        &self.0
    }
}

// === impl Query ===

impl Query {
    /// The query that all of these conditions make, in whatever order they come.
    pub fn all(conditions: Vec<Condition>) -> Self {
        Self::All(Conditions::new(conditions))
    }

    /// The query that a model name stands for.
    pub fn model(name: impl Into<String>) -> Self {
        Self::Model(name.into())
    }

    /// The query of `key = value` for every pair, as headers give it.
    pub fn equal_to<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::all(pairs.into_iter().map(|(key, value)| Condition::equals(key, value)).collect())
    }

    /// Parses a selector: conditions joined by commas, all of which must hold.
    ///
    /// `key = value` (also `==`), `key != value`, `key in (a, b)`, `key notin (a, b)`, `key`, `!key`, and
    /// `key < 1`, `<=`, `>`, `>=` on numbers. Keys and values are runs of letters, digits and `-_./:@+`, or any
    /// text in double quotes.
    ///
    /// Source: the grammar of Kubernetes label selectors, with quotes and numeric comparison.
    ///
    /// # Errors
    /// [`SelectorError`] with the byte position where the text stops being a selector.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        selector::parse(text).map(Self::all)
    }

    /// The selector that [`parse`](Self::parse) reads this query from, whatever its keys and values hold. `None` for a
    /// model name and for the query of all, which no selector says.
    pub fn to_selector(&self) -> Option<String> {
        match self {
            Self::All(conditions) if !conditions.is_empty() => Some(selector::write(conditions)),
            Self::All(_) | Self::Model(_) => None,
        }
    }

    /// Bytes that it takes beside its own size, roughly.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Model(name) => name.len(),
            Self::All(conditions) => conditions.iter().map(|one| size_of_val(one) + one.heap_size()).sum(),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(name) => write!(f, "model '{name}'"),
            Self::All(conditions) => {
                let parts: Vec<_> = conditions.iter().map(Condition::to_string).collect();
                write!(f, "'{}'", parts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, RandomState};

    #[test]
    fn conditions_in_another_order_or_said_twice_are_the_same_query() {
        let state = RandomState::new();
        let same = ["a=1,b in (x,y),c<0", "c < -0,b in (y, x, y),a == 1", "a=1,a=1,c<0.0,b in (x,y)"];
        let [first, rest @ ..] = same.map(|text| Query::parse(text).unwrap());
        for other in rest {
            assert_eq!(first, other);
            assert_eq!(state.hash_one(&first), state.hash_one(&other));
        }
        assert_eq!(first.to_string(), "'a=1,b in (x,y),c<0'");
    }

    #[test]
    fn another_key_sign_value_or_kind_is_another_query() {
        let texts = ["a=1", "a=2", "b=1", "a!=1", "a in (1)", "a notin (1)", "a", "!a", "a<1", "a<=1", "a>1", "a>=1"];
        let mut queries: Vec<_> = texts.map(|text| Query::parse(text).unwrap()).into();
        queries.extend([Query::all(vec![]), Query::model("a"), Query::model("1")]);
        for (place, query) in queries.iter().enumerate() {
            assert!(!queries[..place].contains(query), "{query}");
        }
    }

    #[test]
    fn a_bound_that_is_not_a_number_is_equal_to_itself() {
        assert_eq!(Bound::from(f64::NAN), Bound::from(f64::NAN));
        assert_ne!(Bound::from(1.0), Bound::from(2.0));
    }
}
