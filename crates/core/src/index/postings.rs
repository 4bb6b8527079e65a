//! The capabilities that have one key, by what they have there.

use std::borrow::Cow;
use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::numbers::Numbers;
use crate::{Op, Value};

/// Everything about one key.
pub(super) struct Postings {
    /// Who has the key.
    there: RoaringBitmap,
    texts: HashMap<String, RoaringBitmap>,
    /// Who has `false`, and who has `true`.
    truths: [RoaringBitmap; 2],
    numbers: Numbers,
}

// === impl Postings ===

impl Postings {
    /// Of the key's values with the places of their capabilities, in the order of the places.
    pub(super) fn new(values: &[(u32, &Value)]) -> Self {
        let mut texts: HashMap<String, RoaringBitmap> = HashMap::new();
        let mut truths = [RoaringBitmap::new(), RoaringBitmap::new()];
        for (place, value) in values {
            match value {
                Value::Text(text) => _ = texts.entry(text.clone()).or_default().insert(*place),
                Value::Bool(truth) => _ = truths[usize::from(*truth)].insert(*place),
                Value::Int(_) | Value::Float(_) => {}
            }
        }
        let there = values.iter().map(|(place, _)| *place).collect();
        Self { there, texts, truths, numbers: Numbers::new(values) }
    }

    /// Who has the key.
    pub(super) fn there(&self) -> &RoaringBitmap {
        &self.there
    }

    /// Who has a value that is spelled so, as [`Value::is_spelled`] has it.
    pub(super) fn spelled(&self, text: &str) -> Cow<'_, RoaringBitmap> {
        let sets = [self.texts.get(text).map(Cow::Borrowed), self.truth(text), self.numbers.spelled(text)];
        let both = |one: Cow<'_, RoaringBitmap>, other: Cow<'_, RoaringBitmap>| Cow::Owned(&*one | &*other);
        sets.into_iter().flatten().reduce(both).unwrap_or_default()
    }

    fn truth(&self, text: &str) -> Option<Cow<'_, RoaringBitmap>> {
        let place = ["false", "true"].iter().position(|truth| *truth == text)?;
        Some(Cow::Borrowed(&self.truths[place]))
    }

    /// Who satisfies a condition on this key, where that is known without work.
    pub(super) fn at_hand(&self, op: &Op) -> Option<Cow<'_, RoaringBitmap>> {
        match op {
            Op::Equals(text) => Some(self.spelled(text)),
            Op::Exists => Some(Cow::Borrowed(&self.there)),
            _ => None,
        }
    }

    /// Keeps those of a set that satisfy a condition on this key.
    pub(super) fn narrow(&self, set: &mut RoaringBitmap, op: &Op) {
        match op {
            Op::Equals(text) => *set &= &*self.spelled(text),
            Op::NotEquals(text) => *set -= &*self.spelled(text),
            Op::In(texts) => self.keep_any_of(texts, set),
            Op::NotIn(texts) => texts.iter().for_each(|text| *set -= &*self.spelled(text)),
            Op::Exists => *set &= &self.there,
            Op::Missing => *set -= &self.there,
            Op::Less(bound) => self.numbers.keep_below(bound.get(), set),
            Op::AtMost(bound) => self.numbers.keep_up_to(bound.get(), set),
            Op::Greater(bound) => self.numbers.keep_above(bound.get(), set),
            Op::AtLeast(bound) => self.numbers.keep_from(bound.get(), set),
        }
    }

    /// Part by part, since a set that is narrow already makes narrow parts.
    fn keep_any_of(&self, texts: &[String], set: &mut RoaringBitmap) {
        let parts = texts.iter().map(|text| &*set & &*self.spelled(text));
        *set = parts.fold(RoaringBitmap::new(), |all, part| all | part);
    }
}
