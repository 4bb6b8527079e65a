//! Blocks that are written to: taken, given back, and made an object or a tensor.

use std::time::Instant;

use super::{Change, Table, TableError, place, taken};
use crate::entry::{Entry, Object, State};
use crate::lease::bounded;
use crate::{BlockId, Extent, Lease, Writer};

// === impl Table ===

impl Table {
    /// Takes a block of `len` bytes for a writer, without evicting anything. `generation` is one that was never given.
    ///
    /// # Errors
    /// [`TableError::Full`] or [`TableError::Crowded`]; nothing has happened then.
    pub fn grant(&mut self, len: u64, writer: Writer, generation: u64) -> Result<Extent, TableError> {
        let ingress = writer == Writer::Ingress;
        if !self.may_have(len, writer) {
            return Err(self.full(len));
        }
        let index = self.vacant.last().copied().or_else(|| self.next_index());
        let index = index.ok_or(TableError::Crowded { max: self.max_entries })?;
        let start = self.allocator.allocate(len).ok_or_else(|| self.full(len))?;
        let entry =
            Entry { generation, start, len, state: State::Granted(writer), holds: 0, ingress, ahead: false, used: 0 };
        let extent = entry.extent(index);
        self.put(index, entry);
        self.by_start.insert(start, index);
        tracing::trace!(index, len, "granted");
        self.ingress += if ingress { taken(len) } else { 0 };
        Ok(extent)
    }

    /// Whether a writer may have a block of `len` bytes at all, if there is room for it. Where not, nothing need be evicted.
    pub fn may_have(&self, len: u64, writer: Writer) -> bool {
        let (already, most) = match writer {
            Writer::Ingress => (self.ingress, self.allocator.capacity() / 2),
            Writer::Runtime | Writer::Worker(_) => (0, self.allocator.capacity()),
        };
        already.saturating_add(taken(len)) <= most
    }

    /// A block that was just granted is not needed yet.
    pub fn mark_ahead(&mut self, block: BlockId) {
        let Some(entry) = self.find_mut(block).filter(|entry| matches!(entry.state, State::Granted(_))) else { return };
        entry.ahead = true;
        let len = entry.len;
        self.ahead += taken(len);
    }

    pub(super) fn forget_ahead(&mut self, index: u32) {
        let entry = self.entry_mut(index);
        if std::mem::take(&mut entry.ahead) {
            let len = entry.len;
            self.ahead -= taken(len);
        }
    }

    /// Whether a block may be granted ahead of its use: it is small beside the arena, so that it does not stand in the way of a
    /// large one; all of these together take an eighth at most, since nobody sees them; and a quarter stays free.
    pub fn has_plenty(&self, len: u64) -> bool {
        let capacity = self.allocator.capacity();
        len <= capacity / 64
            && self.ahead + taken(len) <= capacity / 8
            && self.allocator.free().saturating_sub(len) > capacity / 4
    }

    /// A written block is an object from now on. If it has a key, the older object under it is found no more by it, and
    /// may be evicted.
    ///
    /// # Errors
    /// [`TableError::Gone`] or [`TableError::NotYours`]; nothing has happened then.
    pub fn seal(
        &mut self,
        block: BlockId,
        writer: Writer,
        len: u64,
        lease: Lease,
        now: Instant,
    ) -> Result<(), TableError> {
        self.trim(block, writer, len)?;
        let (index, lease) = (block.index, bounded(lease));
        let expires = now + lease.ttl;
        if let Some(key) = &lease.key {
            let older = self.keys.insert(key.clone(), index);
            if let Some(older) = older {
                self.lose_key(older);
            }
        }
        self.expiries.insert((expires, index));
        let stamp = self.stamp(now);
        let queued = lease.cacheable.then_some(stamp);
        self.evictable.extend(queued.map(|stamp| (stamp, index)));
        let entry = self.entry_mut(index);
        entry.state = State::Object(Object { lease, expires, queued });
        entry.used = stamp;
        let extent = entry.extent(index);
        self.objects += 1;
        self.changes.push(Change::Publish(extent, Some(expires)));
        Ok(())
    }

    /// A written block is a tensor under way from now on, held once.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn adopt(&mut self, block: BlockId, writer: Writer, len: u64) -> Result<Extent, TableError> {
        self.trim(block, writer, len)?;
        let entry = self.entry_mut(block.index);
        (entry.state, entry.holds) = (State::Tensor, 1);
        let extent = entry.extent(block.index);
        self.tensors += 1;
        self.changes.push(Change::Publish(extent, None));
        Ok(extent)
    }

    /// Gives an unwritten block back. Does nothing for any other.
    pub fn discard(&mut self, block: BlockId, writer: Writer) {
        if self.is_granted(block, writer) {
            self.vacate(block.index);
        }
    }

    fn next_index(&self) -> Option<u32> {
        u32::try_from(self.entries.len()).ok().filter(|next| *next < self.max_entries)
    }

    fn put(&mut self, index: u32, entry: Entry) {
        if self.vacant.pop().is_some() {
            *self.entry_mut(index) = entry;
        } else {
            self.entries.push(entry);
        }
    }

    /// Whether this writer is writing to the block.
    pub fn is_granted(&self, block: BlockId, writer: Writer) -> bool {
        let entry = self.entries.get(place(block.index)).filter(|entry| entry.generation == block.generation);
        entry.is_some_and(|entry| matches!(entry.state, State::Granted(own) if own == writer))
    }

    /// Gives back what a writer did not use of its block.
    fn trim(&mut self, block: BlockId, writer: Writer, len: u64) -> Result<(), TableError> {
        let index = block.index;
        let room = self.find_mut(block).ok_or(TableError::Gone)?.len;
        if !self.is_granted(block, writer) || len > room {
            return Err(TableError::NotYours { index, len });
        }
        self.forget_ahead(index);
        let (start, ingress) = (self.entry(index).start, self.entry(index).ingress);
        self.allocator.shrink(start, room, len);
        self.ingress -= if ingress { taken(room) - taken(len) } else { 0 };
        self.entry_mut(index).len = len;
        Ok(())
    }

    fn lose_key(&mut self, index: u32) {
        let used = self.entry(index).used;
        let State::Object(object) = &mut self.entry_mut(index).state else { return };
        object.lease.key = None;
        object.lease.cacheable = true;
        if object.queued.is_none() {
            self.requeue(used, index);
        }
    }
}
