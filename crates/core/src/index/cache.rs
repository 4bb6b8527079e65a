//! What queries came to, bounded: callers write the queries.

use std::sync::Arc;

use quick_cache::sync::{Cache as Concurrent, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::Query;

/// Queries that are remembered at most. What comes to nothing is remembered too.
const ENTRIES: u64 = 4096;

/// Bytes that an entry counts for at least; 16 MiB is the most that all take together.
const LEAST: u64 = 4096;

/// Few enough that a list of all of 100 000 capabilities is not too long for one.
const SHARDS: usize = 16;

#[derive(Clone)]
struct Bytes;

/// Answers by query. The hash is keyed at random, since callers choose what is hashed.
pub(super) struct Cache(Concurrent<Query, Arc<[u32]>, Bytes>);

// === impl Bytes ===

impl Weighter<Query, Arc<[u32]>> for Bytes {
    fn weight(&self, query: &Query, found: &Arc<[u32]>) -> u64 {
        let bytes = query.heap_size() + size_of_val(&**found);
        u64::try_from(bytes).map_or(u64::MAX, |bytes| bytes.max(LEAST))
    }
}

// === impl Cache ===

impl Cache {
    pub(super) fn new() -> Self {
        let entries = usize::try_from(ENTRIES).expect("a small number");
        let mut options = OptionsBuilder::new();
        options.shards(SHARDS).estimated_items_capacity(entries).weight_capacity(ENTRIES * LEAST);
        let options = options.build().expect("both capacities are set");
        Self(Concurrent::with_options(options, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default()))
    }

    /// What a query came to before or, if that is not known any more, comes to now.
    pub(super) fn get_or_find(&self, query: &Query, find: impl FnOnce() -> Arc<[u32]>) -> Arc<[u32]> {
        if let Some(known) = self.0.get(query) {
            return known;
        }
        let found = find();
        self.0.insert(query.clone(), Arc::clone(&found));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(cache: &Cache, queries: u32, found: &[u32]) {
        for number in 0..queries {
            cache.get_or_find(&Query::model(number.to_string()), || found.into());
        }
    }

    #[test]
    fn what_was_found_is_not_searched_for_again() {
        let cache = Cache::new();
        for found in [&[][..], &[1, 2]] {
            let query = Query::model(found.len().to_string());
            assert_eq!(*cache.get_or_find(&query, || found.into()), *found);
            assert_eq!(*cache.get_or_find(&query, || unreachable!("it is known")), *found);
        }
    }

    #[test]
    fn it_keeps_no_more_than_its_entries_and_no_more_than_its_bytes() {
        let cache = Cache::new();
        fill(&cache, 10_000, &[]);
        assert!((2_000..=4_096).contains(&cache.0.len()), "{} entries", cache.0.len());
        let cache = Cache::new();
        fill(&cache, 1_000, &vec![0; 25_000]);
        assert!((60..=168).contains(&cache.0.len()), "{} entries of 100 000 bytes", cache.0.len());
    }

    #[test]
    fn a_long_query_counts_for_its_length() {
        let cache = Cache::new();
        let long = |number: u32| Query::equal_to([(number.to_string(), "x".repeat(1 << 20))]);
        (0..100).for_each(|number| _ = cache.get_or_find(&long(number), || [].into()));
        assert!(cache.0.len() <= 16, "{} entries of 1 MiB", cache.0.len());
    }
}
