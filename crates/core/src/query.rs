//! Queries: what a request asks of the capability that is to serve it.

use std::fmt;

use crate::{Capability, SelectorError, Value, selector};

/// What a condition asks of the value of its key.
#[derive(Clone, Debug, PartialEq)]
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
    Less(f64),
    /// The value is a number not above this.
    AtMost(f64),
    /// The value is a number above this.
    Greater(f64),
    /// The value is a number not below this.
    AtLeast(f64),
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// What is asked of its value.
    pub op: Op,
}

/// What a capability must satisfy.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Every condition holds. The empty list holds for all.
    All(Vec<Condition>),
    /// The capability's `model` is this name or, where no capability's is, its `type`.
    Model(String),
}

// === impl Condition ===

impl Condition {
    /// `key = value`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), op: Op::Equals(value.into()) }
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
            Op::Less(bound) => number().is_some_and(|number| number < *bound),
            Op::AtMost(bound) => number().is_some_and(|number| number <= *bound),
            Op::Greater(bound) => number().is_some_and(|number| number > *bound),
            Op::AtLeast(bound) => number().is_some_and(|number| number >= *bound),
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

// === impl Query ===

impl Query {
    /// The query that a model name stands for.
    pub fn model(name: impl Into<String>) -> Self {
        Self::Model(name.into())
    }

    /// The query of `key = value` for every pair, as headers give it.
    pub fn equal_to<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::All(pairs.into_iter().map(|(key, value)| Condition::equals(key, value)).collect())
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
        selector::parse(text).map(Self::All)
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
