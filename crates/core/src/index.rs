//! The inverted index: the matching of [`matches_of`](crate::matches_of), fast for any number of capabilities.
//!
//! ```text
//!  query ──► cache ──known──────────────────────────────────────────────────────────► Arc<[u32]>
//!              └──new──► a set per condition (postings, numbers) ─► all of them ─► fewest unmentioned keys
//! ```
//!
//! Every key has its postings: which capabilities have it, and with which value. A condition comes to a set of
//! capabilities, a query to what is in all of its sets. Within the index capabilities are numbered by how many keys they
//! have, so that the first of a set is the one with the fewest. It is built once for a list and never changes.

mod bits;
mod cache;
mod numbers;
mod plan;
mod postings;
mod set;

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use self::cache::Cache;
use self::plan::{Plan, Term};
use self::postings::Postings;
use self::set::Set;
use crate::{Capability, Condition, Query, Value};

/// A list of capabilities, prepared for queries. A capability is named by its place in the list.
pub struct Index {
    /// The place in the list of every number within the index.
    places: Vec<u32>,
    levels: Vec<Level>,
    all: Set,
    keys: HashMap<String, Postings>,
    cache: Cache,
}

/// Capabilities with the same number of keys.
struct Level {
    keys: usize,
    numbers: Range<u32>,
}

// === impl Index ===

impl Index {
    /// Prepares a list of capabilities.
    pub fn new<C: Borrow<Capability>>(capabilities: impl IntoIterator<Item = C>) -> Self {
        let capabilities: Vec<C> = capabilities.into_iter().collect();
        let mut ordered: Vec<(u32, &Capability)> = (0..).zip(capabilities.iter().map(Borrow::borrow)).collect();
        // It keeps the order of the list among equals, so that what is found is sorted mostly.
        ordered.sort_by_key(|(_, capability)| capability.len());
        let of = u32::try_from(ordered.len()).expect("2^32 capabilities don't fit in memory");
        let (places, ordered): (Vec<u32>, Vec<&Capability>) = ordered.into_iter().unzip();
        let all = Set::new(&(0..of).collect::<Vec<_>>(), of);
        Self { places, levels: levels(&ordered), all, keys: keys(&ordered, of), cache: Cache::new() }
    }

    /// The most specific matches, in the order of the list: those that have the fewest keys that the query does not
    /// mention. They are the first of [`matches_of`](crate::matches_of). What was asked before is looked up.
    pub fn best(&self, query: &Query) -> Arc<[u32]> {
        self.cache.get_or_find(query, || self.most_specific(&self.plan(query), |_| {}))
    }

    /// The most specific among those matches that `keep` says yes to. It is worked out anew every time.
    pub fn best_where(&self, query: &Query, keep: impl Fn(u32) -> bool) -> Arc<[u32]> {
        let place = |number| self.places[usize::try_from(number).expect("a u32 fits")];
        self.most_specific(&self.plan(query), |found| found.retain(|number| keep(place(number))))
    }

    /// Every match. They are those of [`matches_of`](crate::matches_of).
    pub fn matches(&self, query: &Query) -> RoaringBitmap {
        let mut found = Vec::new();
        let of = u32::try_from(self.places.len()).expect("it was one when the index was made");
        self.append(&mut found, &self.plan(query).matches(), 0..of);
        found.into_iter().collect()
    }

    /// In every group the first match has the fewest keys. Of these, the denied ones are mentioned; what else is
    /// mentioned all matches have, so that it makes no difference. Who has more denied keys than his group asks for
    /// counts for more in a later one, and is not among the best of this one.
    fn most_specific(&self, plan: &Plan<'_>, sift: impl Fn(&mut Set)) -> Arc<[u32]> {
        let mut matches = plan.matches();
        sift(&mut matches);
        let groups = plan.by_denied(matches);
        let level = |group: &Set| group.min().map(|first| self.level(first));
        let levels = groups.iter().enumerate().filter_map(|(denied, group)| Some((denied, level(group)?, group)));
        let levels: Vec<_> = levels.map(|(denied, level, group)| (level.keys - denied, level, group)).collect();
        let fewest = levels.iter().map(|(unmentioned, ..)| *unmentioned).min();
        let mut found = Vec::new();
        for (_, level, group) in levels.iter().filter(|(unmentioned, ..)| Some(*unmentioned) == fewest) {
            self.append(&mut found, group, level.numbers.clone());
        }
        found.sort_unstable();
        found.into()
    }

    fn level(&self, number: u32) -> &Level {
        &self.levels[self.levels.partition_point(|level| level.numbers.end <= number)]
    }

    /// Appends the places of the numbers that are in a set and a range.
    fn append(&self, found: &mut Vec<u32>, set: &Set, range: Range<u32>) {
        let numbers = found.len();
        set.append_to(found, range);
        for number in &mut found[numbers..] {
            *number = self.places[usize::try_from(*number).expect("a u32 fits")];
        }
    }

    fn plan<'a>(&'a self, query: &'a Query) -> Plan<'a> {
        match query {
            Query::All(conditions) => self.plan_all(conditions),
            Query::Model(name) => {
                let models = self.spelled("model", name);
                let start = if models.is_empty() { self.spelled("type", name) } else { models };
                Plan { start, terms: Vec::new(), denied: Vec::new() }
            }
        }
    }

    fn spelled(&self, key: &str, text: &str) -> Cow<'_, Set> {
        self.keys.get(key).map(|postings| postings.spelled(text)).unwrap_or_default()
    }

    fn plan_all<'a>(&'a self, conditions: &'a [Condition]) -> Plan<'a> {
        let mut terms = Vec::with_capacity(conditions.len());
        for condition in conditions {
            match self.keys.get(&condition.key) {
                Some(postings) => terms.push(Term { postings, op: &condition.op }),
                None if condition.op.is_negative() => {}
                None => return Plan::of_nothing(),
            }
        }
        Plan::new(&self.all, terms, self.denied(conditions))
    }

    /// Who has a key that a match may have although no condition asks for it, since it is mentioned only to deny a
    /// value; one set for every such key. Conditions on one key stand together.
    fn denied(&self, conditions: &[Condition]) -> Vec<&Set> {
        let by_key = conditions.chunk_by(|one, other| one.key == other.key);
        let denied = by_key.filter(|some| some.iter().all(Condition::denies_a_value));
        denied.filter_map(|some| Some(self.keys.get(&some[0].key)?.there())).collect()
    }
}

impl Default for Index {
    /// Of no capabilities.
    fn default() -> Self {
        Self::new::<Capability>([])
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capabilities, keys) = (self.places.len(), self.keys.len());
        f.debug_struct("Index").field("capabilities", &capabilities).field("keys", &keys).finish_non_exhaustive()
    }
}

fn levels(ordered: &[&Capability]) -> Vec<Level> {
    let mut start = 0;
    let same = ordered.chunk_by(|one, other| one.len() == other.len());
    let level = same.map(|some| {
        let numbers = start..start + u32::try_from(some.len()).expect("there are not more than in all");
        start = numbers.end;
        Level { keys: some[0].len(), numbers }
    });
    level.collect()
}

fn keys(ordered: &[&Capability], of: u32) -> HashMap<String, Postings> {
    let mut values: HashMap<&str, Vec<(u32, &Value)>> = HashMap::new();
    for (number, capability) in (0..).zip(ordered) {
        capability.iter().for_each(|(key, value)| values.entry(key).or_default().push((number, value)));
    }
    values.into_iter().map(|(key, values)| (key.to_owned(), Postings::new(&values, of))).collect()
}
