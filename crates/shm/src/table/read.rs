//! Blocks that are read: found, held, and withdrawn.

use std::time::Instant;

use super::{Table, TableError, place};
use crate::entry::{Entry, State};
use crate::{BlockId, Extent, Lease};

// === impl Table ===

impl Table {
    /// One more handle of this process on a block that can be found.
    ///
    /// # Errors
    /// [`TableError::Gone`].
    pub fn hold(&mut self, block: BlockId, now: Instant) -> Result<Extent, TableError> {
        let stamp = self.stamp(now);
        let entry = self.find_mut(block).filter(|entry| entry.is_readable()).ok_or(TableError::Gone)?;
        if matches!(&entry.state, State::Object(object) if object.expires <= now) {
            return Err(TableError::Gone);
        }
        entry.holds += 1;
        entry.used = stamp;
        Ok(entry.extent(block.index))
    }

    /// One more handle on a block that a worker has pinned, which may have been withdrawn meanwhile.
    ///
    /// # Errors
    /// [`TableError::Gone`].
    pub fn hold_pinned(&mut self, block: BlockId) -> Result<Extent, TableError> {
        let entry = self.find_mut(block).filter(|entry| !matches!(entry.state, State::Granted(_)));
        let entry = entry.ok_or(TableError::Gone)?;
        entry.holds += 1;
        Ok(entry.extent(block.index))
    }

    /// One handle less. The last one of a tensor withdraws it.
    pub fn unhold(&mut self, block: BlockId) {
        let Some(entry) = self.find_mut(block) else { return };
        entry.holds = entry.holds.saturating_sub(1);
        if entry.holds == 0 && matches!(entry.state, State::Tensor) {
            self.withdraw(block.index);
        }
    }

    /// The newest object under a key.
    pub fn lookup(&self, key: &str, now: Instant) -> Option<BlockId> {
        let index = *self.keys.get(key)?;
        let entry = self.entry(index);
        let live = matches!(&entry.state, State::Object(object) if object.expires > now);
        live.then_some(BlockId { index, generation: entry.generation })
    }

    /// What an object was made with, and how long it still lives.
    pub fn lease(&self, block: BlockId, now: Instant) -> Option<(Extent, Lease)> {
        let entry = self.entries.get(place(block.index)).filter(|entry| entry.generation == block.generation)?;
        let State::Object(object) = &entry.state else { return None };
        let ttl = object.expires.checked_duration_since(now).filter(|ttl| !ttl.is_zero())?;
        Some((entry.extent(block.index), Lease { ttl, ..object.lease.clone() }))
    }

    /// Whoever looks for the object finds it no more. False if it was gone already.
    pub fn delete(&mut self, block: BlockId) -> bool {
        let is_object = |entry: &mut Entry| matches!(entry.state, State::Object(_));
        let found = self.find_mut(block).is_some_and(is_object);
        if found {
            self.withdraw(block.index);
        }
        found
    }

    /// The block that holds this byte of the arena, if this process may read it.
    pub fn containing(&self, offset: u64) -> Option<Extent> {
        let (_, &index) = self.by_start.range(..=offset).next_back()?;
        let entry = self.entry(index);
        let inside = offset < entry.start + entry.len.max(1);
        (inside && (entry.is_readable() || entry.holds > 0)).then(|| entry.extent(index))
    }
}
