//! The inverted index: the matching of [`matches_of`](crate::matches_of), fast for any number of capabilities.
//!
//! ```text
//!  query ──► cache ──hit──────────────────────────────────────────► Arc<[u32]>
//!              └─miss─► a set per condition (postings, numbers) ─► ∩ ─► fewest unmentioned keys
//! ```
//!
//! Every key has its postings: which capabilities have it, and with which value. A condition comes to a set of
//! capabilities, a query to an intersection of such sets. It is built once for a list of capabilities and never changes.

mod cache;
mod numbers;
mod postings;

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use roaring::RoaringBitmap;

use self::cache::Cache;
use self::postings::Postings;
use crate::{Capability, Condition, Op, Query, Value};

/// A list of capabilities, prepared for queries. A capability is named by its place in the list.
pub struct Index {
    all: RoaringBitmap,
    keys: HashMap<String, Postings>,
    /// The capabilities by their number of keys.
    by_len: BTreeMap<usize, RoaringBitmap>,
    cache: Cache,
}

// === impl Index ===

impl Index {
    /// Prepares a list of capabilities.
    pub fn new<C: Borrow<Capability>>(capabilities: impl IntoIterator<Item = C>) -> Self {
        let capabilities: Vec<C> = capabilities.into_iter().collect();
        let mut values: HashMap<&str, Vec<(u32, &Value)>> = HashMap::new();
        let mut by_len: BTreeMap<usize, RoaringBitmap> = BTreeMap::new();
        for (place, capability) in (0..).zip(capabilities.iter().map(Borrow::borrow)) {
            by_len.entry(capability.len()).or_default().insert(place);
            capability.iter().for_each(|(key, value)| values.entry(key).or_default().push((place, value)));
        }
        let keys = values.into_iter().map(|(key, values)| (key.to_owned(), Postings::new(&values))).collect();
        Self {
            all: by_len.values().fold(RoaringBitmap::new(), |all, some| all | some),
            keys,
            by_len,
            cache: Cache::new(),
        }
    }

    /// The most specific matches, in the order of the list: those that have the fewest keys that the query does not
    /// mention. They are the first of [`matches_of`](crate::matches_of). What was asked before is looked up.
    pub fn best(&self, query: &Query) -> Arc<[u32]> {
        self.cache.get_or_find(query, || self.search(query, |_| {}))
    }

    /// The most specific among those matches that `keep` says yes to. It is worked out anew every time.
    pub fn best_where(&self, query: &Query, keep: impl Fn(u32) -> bool) -> Arc<[u32]> {
        self.search(query, |found| found.retain(&keep))
    }

    /// Every match. They are those of [`matches_of`](crate::matches_of).
    pub fn matches(&self, query: &Query) -> RoaringBitmap {
        let plan = self.plan(query);
        plan.narrow(plan.start.clone().into_owned())
    }

    /// Looks among those with the fewest keys first: what they have more than the query mentions, others have too.
    ///
    /// A match may also have keys that the query mentions only to deny a value. Then one with more keys can still be
    /// as specific, but not with more than that.
    fn search(&self, query: &Query, sift: impl Fn(&mut RoaringBitmap)) -> Arc<[u32]> {
        let plan = self.plan(query);
        let mut best = Best { unmentioned: usize::MAX, found: RoaringBitmap::new() };
        for (len, set) in &self.by_len {
            if len.saturating_sub(plan.denied.len()) > best.unmentioned {
                break;
            }
            let mut found = plan.narrow(&*plan.start & set);
            sift(&mut found);
            plan.by_denied(found).into_iter().enumerate().for_each(|(denied, group)| best.offer(*len, denied, group));
        }
        best.found.iter().collect()
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

    fn spelled(&self, key: &str, text: &str) -> Cow<'_, RoaringBitmap> {
        self.keys.get(key).map(|postings| postings.spelled(text)).unwrap_or_default()
    }

    /// Begins with the smallest set at hand, and asks what is wanted before what is not: each leaves fewer to look at.
    fn plan_all<'a>(&'a self, conditions: &'a [Condition]) -> Plan<'a> {
        let (mut start, mut terms) = (Cow::Borrowed(&self.all), Vec::new());
        for condition in conditions {
            match self.keys.get(&condition.key) {
                Some(postings) => terms.push(Term { postings, op: &condition.op }),
                None if condition.op.is_negative() => {}
                None => start = Cow::default(),
            }
        }
        terms.sort_by_key(|term| term.op.is_negative());
        let sets = terms.iter().enumerate().filter_map(|(place, term)| Some((place, term.postings.at_hand(term.op)?)));
        if let Some((place, smallest)) = sets.min_by_key(|(_, set)| set.len())
            && smallest.len() < start.len()
        {
            start = smallest;
            terms.remove(place);
        }
        let denied = denied(conditions).filter_map(|key| Some(self.keys.get(key)?.there())).collect();
        Plan { start, terms, denied }
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
        f.debug_struct("Index")
            .field("capabilities", &self.all.len())
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// How a query is worked out.
struct Plan<'a> {
    /// Every match is in it.
    start: Cow<'a, RoaringBitmap>,
    /// What else a match satisfies.
    terms: Vec<Term<'a>>,
    /// Who has a key that a match may have or not, although it is mentioned; one set for every such key.
    denied: Vec<&'a RoaringBitmap>,
}

/// A condition on a key that somebody has.
struct Term<'a> {
    postings: &'a Postings,
    op: &'a Op,
}

/// The most specific matches so far.
struct Best {
    unmentioned: usize,
    found: RoaringBitmap,
}

// === impl Plan ===

impl Plan<'_> {
    fn narrow(&self, mut found: RoaringBitmap) -> RoaringBitmap {
        for term in &self.terms {
            if found.is_empty() {
                break;
            }
            term.postings.narrow(&mut found, term.op);
        }
        found
    }

    /// Parts a set by how many of the denied keys they have: none, one, and so on.
    fn by_denied(&self, found: RoaringBitmap) -> Vec<RoaringBitmap> {
        let mut groups = vec![found];
        for there in &self.denied {
            let mut one_more = RoaringBitmap::new();
            for group in &mut groups {
                let having = &*group & *there;
                *group -= &having;
                *group |= std::mem::replace(&mut one_more, having);
            }
            if !one_more.is_empty() {
                groups.push(one_more);
            }
        }
        groups
    }
}

// === impl Best ===

impl Best {
    /// Some matches with `len` keys, of which `denied` are mentioned and make no difference.
    fn offer(&mut self, len: usize, denied: usize, some: RoaringBitmap) {
        if some.is_empty() {
            return;
        }
        let unmentioned = len - denied;
        match unmentioned.cmp(&self.unmentioned) {
            Ordering::Less => *self = Self { unmentioned, found: some },
            Ordering::Equal => self.found |= some,
            Ordering::Greater => {}
        }
    }
}

/// The keys that a match may have although no condition asks for them: they are mentioned, but only to deny a value.
/// Conditions on one key stand together.
fn denied(conditions: &[Condition]) -> impl Iterator<Item = &str> {
    let by_key = conditions.chunk_by(|one, other| one.key == other.key);
    let denies = |condition: &Condition| matches!(condition.op, Op::NotEquals(_) | Op::NotIn(_));
    by_key.filter(move |some| some.iter().all(denies)).map(|some| some[0].key.as_str())
}
