//! Which capabilities there are in a fleet, and which of them a query selects, while replicas come and go.
//!
//! ```text
//!  acquire, release ──► one entry per different capability, with the number of its users
//!                           └──► tail (few, compared one by one) ──full──► segments (core's Index each)
//!  best ──► cache ──known, some changes behind──► the changes are applied
//!              └──new──► the best of every segment and of the tail
//! ```
//!
//! A fleet has many replicas and few different capabilities, so most announcements change nothing here. One that brings
//! something new never rebuilds more than one segment. The definition is that of [`matches_of`].

mod cache;
mod changes;
mod segments;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyserve_core::{Capability, Names, Query, Value, matches_of};
use slab::Slab;

use self::cache::Cache;
use self::changes::Changes;
use self::segments::Segments;

/// The different capabilities of a fleet. Each has a number for as long as somebody uses it.
#[derive(Default)]
pub struct CapabilityIndex {
    known: Slab<Known>,
    numbers: HashMap<Box<[u8]>, u32>,
    names: Names,
    segments: Segments,
    changes: Changes,
    cache: Cache,
}

/// A capability with its users.
pub(crate) struct Known {
    capability: Arc<Capability>,
    users: u32,
}

/// The most specific matches that were found, all with so many keys that the query does not mention.
#[derive(Clone, Debug, Default)]
pub(crate) struct Best {
    unmentioned: usize,
    /// Sorted.
    numbers: Vec<u32>,
}

// === impl CapabilityIndex ===

impl CapabilityIndex {
    /// One more uses this capability. The number is the same for equal capabilities.
    pub fn acquire(&mut self, capability: &Capability) -> u32 {
        let spelled = spelled(capability);
        if let Some(number) = self.numbers.get(&spelled) {
            self.known[wide(*number)].users += 1;
            return *number;
        }
        let number = narrow(self.known.insert(Known { capability: Arc::new(capability.clone()), users: 1 }));
        self.numbers.insert(spelled, number);
        self.names.add(capability);
        self.segments.insert(number, &self.known);
        self.changes.push(number);
        number
    }

    /// One fewer uses it. True if nobody does any more; then its number means nothing, or later another capability.
    pub fn release(&mut self, number: u32) -> bool {
        let known = &mut self.known[wide(number)];
        known.users -= 1;
        if known.users > 0 {
            return false;
        }
        let known = self.known.remove(wide(number));
        self.numbers.remove(&spelled(&known.capability));
        self.names.remove(&known.capability);
        self.segments.remove(number, &self.known);
        self.changes.push(number);
        true
    }

    /// The capability with this number, which somebody uses.
    pub fn capability(&self, number: u32) -> &Arc<Capability> {
        &self.known[wide(number)].capability
    }

    /// How many use the capability with this number.
    pub fn users(&self, number: u32) -> usize {
        wide(self.known[wide(number)].users)
    }

    /// Every capability with its number, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<Capability>)> {
        self.known.iter().map(|(number, known)| (narrow(number), &known.capability))
    }

    /// How many different capabilities there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The most specific matches, by rising number. What was asked before is looked up.
    pub fn best(&mut self, query: &Query) -> Arc<[u32]> {
        match query {
            Query::All(_) => self.cached(query),
            Query::Model(name) => {
                let models = self.cached(&named("model", name));
                if models.is_empty() { self.cached(&named("type", name)) } else { models }
            }
        }
    }

    /// The most specific matches among those that `keep` says yes to, as if there were no others. It is worked out anew
    /// every time.
    pub fn best_where(&self, query: &Query, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let find = |query: &Query| self.segments.best(query, &self.known, &keep).numbers;
        match query {
            Query::All(_) => find(query),
            Query::Model(name) => {
                let models = find(&named("model", name));
                if models.is_empty() { find(&named("type", name)) } else { models }
            }
        }
    }

    /// What a query that selects nothing was meant to say, as [`Names::meant`] has it.
    pub fn meant(&self, query: &Query) -> Option<String> {
        self.names.meant(query)
    }

    fn cached(&mut self, query: &Query) -> Arc<[u32]> {
        let Self { known, segments, changes, cache, .. } = self;
        let find = || segments.best(query, known, &|_| true);
        cache.get(query, changes, |best, number| best.reconsider(query, number, known), find)
    }
}

impl fmt::Debug for CapabilityIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapabilityIndex").field("capabilities", &self.len()).finish_non_exhaustive()
    }
}

// === impl Best ===

impl Best {
    /// Takes a match in, if it is as good as the best.
    fn add(&mut self, unmentioned: usize, number: u32) {
        if self.numbers.is_empty() || unmentioned < self.unmentioned {
            *self = Self { unmentioned, numbers: vec![number] };
        } else if unmentioned == self.unmentioned
            && let Err(place) = self.numbers.binary_search(&number)
        {
            self.numbers.insert(place, number);
        }
    }

    /// A number came, went, or has another meaning. False if what is left is not known to be the best: the last one
    /// went.
    fn reconsider(&mut self, query: &Query, number: u32, known: &Slab<Known>) -> bool {
        if let Ok(place) = self.numbers.binary_search(&number) {
            self.numbers.remove(place);
            if self.numbers.is_empty() {
                return false;
            }
        }
        let capability = known.get(wide(number)).map(|known| &*known.capability);
        if let Some(unmentioned) = capability.and_then(|capability| unmentioned(query, capability)) {
            self.add(unmentioned, number);
        }
        true
    }
}

// === impl Known ===

impl Known {
    pub(crate) fn capability(&self) -> &Capability {
        &self.capability
    }
}

/// A model name selects by `model` or else by `type`. With one of them mentioned the order among matches is the same as
/// with none, since all of them have it.
fn named(key: &str, name: &str) -> Query {
    Query::equal_to([(key, name)])
}

/// How many keys of a capability a query does not mention, if it matches.
fn unmentioned(query: &Query, capability: &Capability) -> Option<usize> {
    matches_of(query, std::iter::once(capability)).first().map(|found| found.unmentioned)
}

/// The same bytes for equal capabilities, and no others: lengths go before texts.
fn spelled(capability: &Capability) -> Box<[u8]> {
    let mut bytes = Vec::new();
    for (key, value) in capability.iter() {
        spell(&mut bytes, 0, key.as_bytes());
        match value {
            Value::Text(text) => spell(&mut bytes, 1, text.as_bytes()),
            Value::Int(number) => spell(&mut bytes, 2, &number.to_le_bytes()),
            Value::Float(number) => spell(&mut bytes, 3, &number.to_le_bytes()),
            Value::Bool(truth) => spell(&mut bytes, 4, &[u8::from(*truth)]),
        }
    }
    bytes.into()
}

fn spell(bytes: &mut Vec<u8>, tag: u8, text: &[u8]) {
    bytes.push(tag);
    bytes.extend_from_slice(&text.len().to_le_bytes());
    bytes.extend_from_slice(text);
}

pub(crate) fn narrow(place: usize) -> u32 {
    u32::try_from(place).expect("2^32 of them don't fit in memory")
}

pub(crate) fn wide(number: u32) -> usize {
    usize::try_from(number).expect("a u32 fits")
}
