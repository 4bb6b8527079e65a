//! Upgrade rules: what a query may become where nothing serves it as it is.

use std::fmt;

use crate::{Condition, Conditions, Op, Query, SelectorError, selector};

/// Rules of one app or group at most.
pub const MAX_UPGRADES: usize = 64;

/// A rule: a query with these pairs may be served by a capability with those instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upgrade {
    from: Vec<(String, String)>,
    to: Vec<(String, String)>,
}

/// Rules, the first that applies counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Upgrades(Vec<Upgrade>);

/// A text that is no rule, or too many of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// There is no arrow in it, or more than one.
    #[error("the upgrade '{text}' must read 'key=value -> key=value'")]
    Arrow {
        /// The text, or its beginning.
        text: String,
    },
    /// One of its sides does not parse.
    #[error("one side of an upgrade is no list of key=value")]
    Side(#[from] SelectorError),
    /// A side has another condition than `key=value`, or a key twice.
    #[error("the upgrade '{text}' has '{condition}': on both sides only key=value is allowed, each key once")]
    Condition {
        /// The text, or its beginning.
        text: String,
        /// The condition.
        condition: String,
    },
    /// It changes nothing.
    #[error("the upgrade '{text}' leads to where it starts")]
    Nothing {
        /// The text, or its beginning.
        text: String,
    },
    /// There are too many.
    #[error("{count} upgrades are given, at most {max} are allowed")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
}

// === impl Upgrade ===

impl Upgrade {
    /// Parses a rule, such as `type=decode -> type=decode.heavy`: pairs, all of which a query must ask for, and the
    /// pairs that stand for them.
    pub fn parse(text: &str) -> Result<Self, UpgradeError> {
        let shown = || text.chars().take(200).collect::<String>();
        let arrow = || UpgradeError::Arrow { text: shown() };
        let (from, to) = text.split_once("->").ok_or_else(arrow)?;
        if to.contains("->") {
            return Err(arrow());
        }
        let side = |side: &str| match Query::parse(side)? {
            Query::All(conditions) => pairs(&conditions)
                .map_err(|condition| UpgradeError::Condition { text: shown(), condition: condition.to_string() }),
            Query::Model(_) => Err(arrow()),
        };
        let (from, to) = (side(from)?, side(to)?);
        if from == to { Err(UpgradeError::Nothing { text: shown() }) } else { Ok(Self { from, to }) }
    }

    /// The query that this rule makes of another; `None` if it does not apply. A model name counts as `model` or
    /// `type`.
    ///
    /// Everything that the query says of the keys of the rule goes, everything else stays.
    pub fn apply(&self, query: &Query) -> Option<Query> {
        let kept = match query {
            Query::All(conditions) => self.kept(conditions)?,
            Query::Model(name) => self.is_named(name).then(Vec::new)?,
        };
        let to = self.to.iter().map(|(key, value)| Condition::equals(key, value));
        Some(Query::all(kept.into_iter().chain(to).collect()))
    }

    /// The pairs that a query must ask for, sorted by key. There is at least one.
    pub fn asks_for(&self) -> &[(String, String)] {
        &self.from
    }

    fn kept(&self, conditions: &[Condition]) -> Option<Vec<Condition>> {
        let equals = |one: &Condition, value: &str| matches!(&one.op, Op::Equals(own) if own == value);
        let asked =
            |(key, value): &(String, String)| conditions.iter().any(|one| one.key == *key && equals(one, value));
        let spoken_of = |key: &str| self.from.iter().chain(&self.to).any(|(own, _)| own == key);
        let kept = || conditions.iter().filter(|one| !spoken_of(&one.key)).cloned().collect();
        self.from.iter().all(asked).then(kept)
    }

    fn is_named(&self, name: &str) -> bool {
        matches!(&self.from[..], [(key, value)] if ["model", "type"].contains(&key.as_str()) && value == name)
    }
}

impl fmt::Display for Upgrade {
    /// The text that [`parse`](Self::parse) reads this rule from, whatever its keys and values hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", written(&self.from), written(&self.to))
    }
}

/// A side as a selector. An arrow can only be within quotes there, where a backslash hides it.
fn written(side: &[(String, String)]) -> String {
    let conditions: Vec<_> = side.iter().map(|(key, value)| Condition::equals(key, value)).collect();
    selector::write(&conditions).replace("->", "-\\>")
}

/// The pairs of conditions, or the first one that is none or has a key for the second time.
fn pairs(conditions: &Conditions) -> Result<Vec<(String, String)>, &Condition> {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(conditions.len());
    for condition in conditions.iter() {
        let twice = pairs.last().is_some_and(|(key, _)| *key == condition.key);
        match &condition.op {
            Op::Equals(value) if !twice => pairs.push((condition.key.clone(), value.clone())),
            _ => return Err(condition),
        }
    }
    Ok(pairs)
}

// === impl Upgrades ===

impl Upgrades {
    /// Parses rules in their order.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, UpgradeError> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let (count, max) = (texts.len(), MAX_UPGRADES);
        if count > max {
            return Err(UpgradeError::TooMany { count, max });
        }
        texts.into_iter().map(Upgrade::parse).collect::<Result<_, _>>().map(Self)
    }

    /// The rules, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Upgrade> {
        self.0.iter()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The query that the first rule that applies makes of another. Only one rule is applied.
    pub fn apply(&self, query: &Query) -> Option<Query> {
        self.0.iter().find_map(|rule| rule.apply(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn upgraded(rule: &str, query: &str) -> Option<String> {
        Upgrade::parse(rule).unwrap().apply(&Query::parse(query).unwrap()).map(|query| query.to_string())
    }

    #[test]
    fn a_rule_replaces_what_it_speaks_of_and_leaves_the_rest() {
        let rule = "type=decode -> type=decode.heavy";
        assert_eq!(upgraded(rule, "type=decode").as_deref(), Some("'type=decode.heavy'"));
        assert_eq!(upgraded(rule, "size>7,type=decode").as_deref(), Some("'size>7,type=decode.heavy'"));
        assert_eq!(upgraded(rule, "type=decode,type!=x").as_deref(), Some("'type=decode.heavy'"));
        assert_eq!(upgraded(rule, "type=decode.heavy"), None);
        assert_eq!(upgraded(rule, "type in (decode)"), None);
        let wider = "type=decode, gpu=a -> type=decode, gpu=b, size=big";
        assert_eq!(upgraded(wider, "gpu=a,type=decode,size=small").as_deref(), Some("'gpu=b,size=big,type=decode'"));
        assert_eq!(upgraded(wider, "type=decode"), None);
    }

    #[test]
    fn a_model_name_is_upgraded_by_a_rule_on_the_model_or_the_type_alone() {
        let apply = |rule: &str| Upgrade::parse(rule).unwrap().apply(&Query::model("decode"));
        let heavy = Some(Query::equal_to([("type", "heavy")]));
        assert_eq!(apply("type=decode -> type=heavy"), heavy);
        assert_eq!(apply("model=decode -> type=heavy"), heavy);
        assert_eq!(apply("kind=decode -> type=heavy"), None);
        assert_eq!(apply("type=decode,size=1 -> type=heavy"), None);
    }

    #[test]
    fn a_text_that_is_no_rule_says_why() {
        let error = |text: &str| Upgrade::parse(text).unwrap_err();
        assert!(matches!(error("type=a"), UpgradeError::Arrow { .. }));
        assert!(matches!(error("a=1 -> a=2 -> a=3"), UpgradeError::Arrow { .. }));
        assert!(matches!(error("a= -> a=2"), UpgradeError::Side(_)));
        assert!(matches!(error("a>1 -> a=2"), UpgradeError::Condition { .. }));
        assert!(matches!(error("a=1,a=2 -> b=2"), UpgradeError::Condition { .. }));
        assert!(matches!(error("a=1 -> a=1"), UpgradeError::Nothing { .. }));
    }

    #[test]
    fn the_first_rule_that_applies_counts_and_only_that() {
        let rules = Upgrades::parse(["a=1 -> a=2", "a=2 -> a=3", "a=1 -> a=4"]).unwrap();
        assert_eq!(rules.apply(&Query::parse("a=1").unwrap()), Some(Query::parse("a=2").unwrap()));
        for (count, fits) in [(MAX_UPGRADES - 1, true), (MAX_UPGRADES, true), (MAX_UPGRADES + 1, false)] {
            assert_eq!(Upgrades::parse(vec!["a=1 -> a=2"; count]).is_ok(), fits);
        }
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in [
            "type=decode -> type=heavy",
            "a=\"x y\",b=1 -> c=\"\\\"\"",
            "a=\"-\\>\" -> b=\"\\\\-\\>\"",
            "\"-\\>\"=- -> a=x-",
        ] {
            let rule = Upgrade::parse(text).unwrap();
            assert_eq!(Upgrade::parse(&rule.to_string()), Ok(rule), "{text}");
        }
        assert_eq!(Upgrade::parse("type = a->type=b").unwrap().to_string(), "type=a -> type=b");
    }

    proptest! {
        #[test]
        fn any_text_is_a_rule_or_refused(
            text in ".{0,40}|\"[-\\\\> a]{1,5}\"=\"[-\\\\> a]{0,5}\" -> [ab]=\"[-\\\\> a]{0,5}\"",
            query in "[a-c]=[1-3]",
        ) {
            if let Ok(rule) = Upgrade::parse(&text) {
                let _ = rule.apply(&Query::parse(&query).unwrap());
                prop_assert_eq!(Upgrade::parse(&rule.to_string()), Ok(rule));
            }
        }
    }
}
