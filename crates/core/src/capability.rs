//! Capabilities: what a handler can serve, as a flat map of key-values.

use std::collections::BTreeMap;
use std::fmt;

/// A value of a capability.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

/// A flat map from text keys to values; at least one key, none empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Capability(BTreeMap<String, Value>);

/// A map that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// It has no keys.
    #[error("a capability needs at least one key")]
    Empty,
    /// A key is the empty text.
    #[error("a capability has an empty key")]
    EmptyKey,
    /// The same key stands twice.
    #[error("the key '{key}' stands twice in a capability")]
    Repeated {
        /// The key.
        key: String,
    },
    /// A float is infinite or not a number, which no query could compare with.
    #[error("the value of '{key}' is not a finite number")]
    NotFinite {
        /// The key.
        key: String,
    },
}

// === impl Value ===

impl Value {
    /// Whether this value is what `text` spells: texts by their characters, numbers by their value, booleans as
    /// `true` and `false`. Queries arrive as text, whatever the type of the capability's value.
    pub fn is_spelled(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Bool(own) => text == if *own { "true" } else { "false" },
            Self::Int(own) => match text.parse::<i64>() {
                Ok(number) => number == *own,
                Err(_) => self.as_number().is_some_and(|own| text.parse() == Ok(own)),
            },
            Self::Float(own) => text.parse() == Ok(*own),
        }
    }

    /// The value as a number to compare with; texts and booleans are none.
    #[allow(clippy::cast_precision_loss)] // Comparisons beyond 2^53 are as exact as the query's own float.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(_) | Self::Bool(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Bool(truth) => write!(f, "{truth}"),
        }
    }
}

// === impl Capability ===

impl Capability {
    /// Makes a capability of its pairs.
    pub fn try_new(pairs: impl IntoIterator<Item = (String, Value)>) -> Result<Self, CapabilityError> {
        let mut map = BTreeMap::new();
        for (key, value) in pairs {
            if key.is_empty() {
                return Err(CapabilityError::EmptyKey);
            }
            if matches!(value, Value::Float(number) if !number.is_finite()) {
                return Err(CapabilityError::NotFinite { key });
            }
            if map.insert(key.clone(), value).is_some() {
                return Err(CapabilityError::Repeated { key });
            }
        }
        if map.is_empty() { Err(CapabilityError::Empty) } else { Ok(Self(map)) }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Every key with its value, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many keys it has; never 0.
    #[allow(clippy::len_without_is_empty)] // A capability is never empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Capability {
    /// `model=tiny,type=chat`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_without_keys_or_with_an_unusable_one_is_refused() {
        let one = |key: &str, value| Capability::try_new([(key.to_owned(), value)]);
        assert_eq!(Capability::try_new([]), Err(CapabilityError::Empty));
        assert_eq!(one("", Value::Bool(true)), Err(CapabilityError::EmptyKey));
        assert_eq!(one("x", Value::Float(f64::NAN)), Err(CapabilityError::NotFinite { key: "x".into() }));
    }

    #[test]
    fn values_are_compared_with_what_a_query_spells() {
        assert!(Value::Int(7).is_spelled("7") && Value::Int(7).is_spelled("7.0") && !Value::Int(7).is_spelled("7.5"));
        assert!(Value::Float(0.5).is_spelled("0.50") && !Value::Float(0.5).is_spelled("half"));
        assert!(Value::Bool(true).is_spelled("true") && !Value::Bool(true).is_spelled("True"));
        assert!(Value::Text("7".into()).is_spelled("7") && !Value::Text("7".into()).is_spelled("7.0"));
    }
}
