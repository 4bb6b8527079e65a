//! The capabilities that have one key, by what they have there.

use std::borrow::Cow;
use std::collections::HashMap;

use super::numbers::Numbers;
use super::set::Set;
use crate::{Op, Value};

/// Everything about one key.
pub(super) struct Postings {
    /// Who has the key.
    there: Set,
    texts: HashMap<String, Set>,
    /// Who has `false`, and who has `true`.
    truths: [Set; 2],
    numbers: Numbers,
}

// === impl Postings ===

impl Postings {
    /// Of the key's values with their places, which are in order and below `of`.
    pub(super) fn new(values: &[(u32, &Value)], of: u32) -> Self {
        let mut texts: HashMap<&str, Vec<u32>> = HashMap::new();
        let mut truths = [Vec::new(), Vec::new()];
        for (place, value) in values {
            match value {
                Value::Text(text) => texts.entry(text).or_default().push(*place),
                Value::Bool(truth) => truths[usize::from(*truth)].push(*place),
                Value::Int(_) | Value::Float(_) => {}
            }
        }
        let there: Vec<u32> = values.iter().map(|(place, _)| *place).collect();
        Self {
            there: Set::new(&there, of),
            texts: texts.into_iter().map(|(text, places)| (text.to_owned(), Set::new(&places, of))).collect(),
            truths: truths.map(|places| Set::new(&places, of)),
            numbers: Numbers::new(values, of),
        }
    }

    /// Who has the key.
    pub(super) fn there(&self) -> &Set {
        &self.there
    }

    /// Who has a value that is spelled so, as [`Value::is_spelled`] has it.
    pub(super) fn spelled(&self, text: &str) -> Cow<'_, Set> {
        let texts = self.texts.get(text).map(Cow::Borrowed);
        let sets = [texts, self.truth(text).map(Cow::Borrowed), self.numbers.spelled(text).map(Cow::Owned)];
        let any = sets.into_iter().flatten().reduce(|mut all: Cow<'_, Set>, some| {
            all.to_mut().add(&some);
            all
        });
        any.unwrap_or_default()
    }

    fn truth(&self, text: &str) -> Option<&Set> {
        let place = ["false", "true"].iter().position(|truth| *truth == text)?;
        Some(&self.truths[place])
    }

    /// Who satisfies a condition on this key, where that is known without work.
    pub(super) fn at_hand(&self, op: &Op) -> Option<Cow<'_, Set>> {
        match op {
            Op::Equals(text) => Some(self.spelled(text)),
            Op::Exists => Some(Cow::Borrowed(&self.there)),
            _ => None,
        }
    }

    /// Keeps those of a set that satisfy a condition on this key.
    pub(super) fn narrow(&self, set: &mut Set, op: &Op) {
        match op {
            Op::Equals(text) => set.keep(&self.spelled(text)),
            Op::NotEquals(text) => set.remove(&self.spelled(text)),
            Op::In(texts) => set.keep(&self.any_of(texts)),
            Op::NotIn(texts) => texts.iter().for_each(|text| set.remove(&self.spelled(text))),
            Op::Exists => set.keep(&self.there),
            Op::Missing => set.remove(&self.there),
            Op::Less(bound) => set.keep(&self.numbers.below(bound.get())),
            Op::AtMost(bound) => set.keep(&self.numbers.up_to(bound.get())),
            Op::Greater(bound) => set.keep(&self.numbers.above(bound.get())),
            Op::AtLeast(bound) => set.keep(&self.numbers.from(bound.get())),
        }
    }

    fn any_of(&self, texts: &[String]) -> Set {
        texts.iter().fold(Set::default(), |mut all, text| {
            all.add(&self.spelled(text));
            all
        })
    }
}
