//! What has changed lately, so that answers can follow instead of being forgotten.

use std::collections::VecDeque;

/// Changes that an answer follows at most. Beyond that it is cheaper to ask anew.
const KEPT: usize = 128;

/// The numbers that came or went, the newest last.
#[derive(Debug, Default)]
pub(super) struct Changes {
    recent: VecDeque<u32>,
    /// How many there have been.
    count: u64,
}

// === impl Changes ===

impl Changes {
    /// A number came or went.
    pub(super) fn push(&mut self, number: u32) {
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(number);
        self.count += 1;
    }

    /// How many there have been.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Those that came after so many; `None` if some of them are not known any more.
    pub(super) fn since(&self, count: u64) -> Option<impl Iterator<Item = u32>> {
        let behind = usize::try_from(self.count - count).ok()?;
        let skipped = self.recent.len().checked_sub(behind)?;
        Some(self.recent.iter().skip(skipped).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_changes_are_known_as_are_kept() {
        let mut changes = Changes::default();
        (0..200).for_each(|number| changes.push(number));
        assert_eq!(changes.since(200).unwrap().count(), 0);
        assert_eq!(changes.since(199).unwrap().collect::<Vec<_>>(), [199]);
        assert_eq!(changes.since(72).unwrap().count(), KEPT);
        assert!(changes.since(71).is_none());
    }
}
