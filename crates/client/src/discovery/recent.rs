//! A map of bounded size that forgets what was not used for longest.

use std::collections::HashMap;
use std::hash::Hash;

/// At most so many pairs.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    max: usize,
    uses: u64,
    pairs: HashMap<K, (u64, V)>,
}

// === impl Recent ===

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// An empty map for `max` pairs, at least 1.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), uses: 0, pairs: HashMap::new() }
    }

    /// The value of a key, which is made if it is not there.
    pub(super) fn get_or_insert<E>(&mut self, key: &K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        self.uses += 1;
        if let Some((used, value)) = self.pairs.get_mut(key) {
            *used = self.uses;
            return Ok(value.clone());
        }
        let value = make()?;
        if self.pairs.len() >= self.max {
            let oldest = self.pairs.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.pairs.remove(&key));
        }
        self.pairs.insert(key.clone(), (self.uses, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let mut recent = Recent::new(2);
        let mut made = Vec::new();
        for key in [1, 2, 1, 3, 1, 2] {
            let value = recent.get_or_insert(&key, || {
                made.push(key);
                Ok::<_, ()>(key * 10)
            });
            assert_eq!(value, Ok(key * 10));
        }
        assert_eq!(made, [1, 2, 3, 2]);
        assert_eq!(recent.get_or_insert(&9, || Err("no")), Err("no"));
        assert_eq!(recent.pairs.len(), 2);
    }
}
