//! Answers to queries that were asked before, kept up with the fleet. Bounded: callers write the queries.

use std::sync::Arc;

use anyserve_core::Query;
use quick_cache::unsync::{Cache as Bounded, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Weighter};

use super::Best;
use super::changes::Changes;

/// Queries that are remembered at most. What comes to nothing is remembered too.
const ENTRIES: u64 = 4096;
/// Bytes that an entry counts for at least; 16 MiB is the most that all take together.
const LEAST: u64 = 4096;

/// An answer, and how many changes it knows of.
#[derive(Clone)]
struct Entry {
    count: u64,
    best: Best,
    shared: Arc<[u32]>,
}

#[derive(Clone)]
struct Bytes;

/// Answers by query. The hash is keyed at random, since callers choose what is hashed.
pub(super) struct Cache(Bounded<Query, Entry, Bytes>);

// === impl Bytes ===

impl Weighter<Query, Entry> for Bytes {
    fn weight(&self, query: &Query, entry: &Entry) -> u64 {
        // A condition takes about four times its text.
        let bytes = query.to_string().len() * 4 + size_of_val(&*entry.shared) * 2;
        u64::try_from(bytes).map_or(u64::MAX, |bytes| bytes.max(LEAST))
    }
}

// === impl Cache ===

impl Cache {
    /// What a query comes to. `reconsider` takes one change into an answer, or says that it cannot; `find` works one
    /// out.
    pub(super) fn get(
        &mut self,
        query: &Query,
        changes: &Changes,
        reconsider: impl Fn(&mut Best, u32) -> bool,
        find: impl Fn() -> Best,
    ) -> Arc<[u32]> {
        let known = self.0.get(query);
        if let Some(entry) = known.filter(|entry| entry.count == changes.count()) {
            return Arc::clone(&entry.shared);
        }
        let followed = known.and_then(|entry| {
            let mut best = entry.best.clone();
            let follows = changes.since(entry.count)?.all(|number| reconsider(&mut best, number));
            follows.then_some(best)
        });
        let best = followed.unwrap_or_else(find);
        let shared: Arc<[u32]> = best.numbers.as_slice().into();
        self.0.insert(query.clone(), Entry { count: changes.count(), best, shared: Arc::clone(&shared) });
        shared
    }
}

impl Default for Cache {
    fn default() -> Self {
        let entries = usize::try_from(ENTRIES).expect("a small number");
        Self(Bounded::with(entries, ENTRIES * LEAST, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default()))
    }
}
