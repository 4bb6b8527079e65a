//! The object table: what every block of the arena is for, and when it is free again.
//!
//! A state machine fed with events and instants; it touches no memory, reads no clock and knows no process. What
//! workers have to see it says as [`Change`]s, which are to be carried out before [`Table::sweep`] is asked: a block is
//! free only after nobody can find it and then nobody has pinned it. The states are drawn at `entry::State`.

mod reclaim;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::alloc::{Allocator, rounded};
use crate::entry::{Entry, Object, State};
use crate::lease::bounded;
use crate::{BlockId, Extent, Lease, Writer};

/// What workers know of the blocks that they read.
pub trait Pins {
    /// Whether a worker reads the block at this place.
    fn is_pinned(&self, index: u32) -> bool;

    /// When a worker last pinned the block at this place, in the table's count of time; `None` if none has.
    fn last_used(&self, index: u32) -> Option<u32>;
}

/// What workers are to see from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The block can be found and pinned, until that instant if there is one.
    Publish(Extent, Option<Instant>),
    /// The block cannot be found any more.
    Withdraw(u32),
}

/// Why there is no block, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The arena has no room, also after everything that may be evicted is gone.
    #[error(
        "the object store has no room for {len} bytes: {free} of {capacity} are free, {longest} in one piece; give it more \
         with --object-store, or delete objects"
    )]
    Full {
        /// Bytes that were asked for.
        len: u64,
        /// Bytes that are free.
        free: u64,
        /// The longest free run.
        longest: u64,
        /// All bytes.
        capacity: u64,
    },
    /// As many blocks as the table has places for.
    #[error("the object store holds {max} objects and tensors, as many as it can; give it more with --object-store")]
    Crowded {
        /// How many.
        max: u32,
    },
    /// Nothing is there: it never was, or is gone.
    #[error("no such object: it was deleted, evicted, or its lease is over")]
    Gone,
    /// More than the block has was said to be in use, or the caller is not who writes to it.
    #[error("block {index} cannot be sealed with {len} bytes by this writer")]
    NotYours {
        /// The block's place.
        index: u32,
        /// Bytes that were said to be in use.
        len: u64,
    },
}

/// What the table holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the arena.
    pub capacity: u64,
    /// Bytes of blocks that are written to or hold something.
    pub used: u64,
    /// The longest free run, in bytes.
    pub longest_free: u64,
    /// Sealed objects.
    pub objects: u64,
    /// Tensors of requests and responses.
    pub tensors: u64,
    /// Blocks that nobody finds any more and somebody still reads.
    pub withdrawn: u64,
    /// Objects that were evicted since the start.
    pub evicted: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Table {
    allocator: Allocator,
    entries: Vec<Entry>,
    max_entries: u32,
    vacant: Vec<u32>,
    by_start: BTreeMap<u64, u32>,
    keys: HashMap<String, u32>,
    expiries: BTreeSet<(Instant, u32)>,
    /// Objects that may be evicted, by when they were last used as far as it is known here.
    evictable: BTreeSet<(u32, u32)>,
    withdrawn: VecDeque<u32>,
    /// What blocks of ingress take.
    ingress: u64,
    /// What blocks take that were granted ahead of their use.
    ahead: u64,
    objects: u64,
    tensors: u64,
    evicted: u64,
    began: Instant,
    changes: Vec<Change>,
}

// === impl Table ===

impl Table {
    /// An empty table for an arena of `capacity` bytes.
    pub fn new(capacity: u64, max_entries: u32, now: Instant) -> Self {
        Self {
            allocator: Allocator::new(capacity),
            entries: Vec::new(),
            max_entries,
            vacant: Vec::new(),
            by_start: BTreeMap::new(),
            keys: HashMap::new(),
            expiries: BTreeSet::new(),
            evictable: BTreeSet::new(),
            withdrawn: VecDeque::new(),
            ingress: 0,
            ahead: 0,
            objects: 0,
            tensors: 0,
            evicted: 0,
            began: now,
            changes: Vec::new(),
        }
    }

    /// What workers are to see, in order; to be carried out before anything else is asked.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether there are changes to be carried out.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

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

    fn forget_ahead(&mut self, index: u32) {
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

    /// What the table holds.
    pub fn usage(&self) -> Usage {
        Usage {
            capacity: self.allocator.capacity(),
            used: self.allocator.used() - self.ahead,
            longest_free: self.allocator.longest(),
            objects: self.objects,
            tensors: self.tensors,
            withdrawn: self.withdrawn.len() as u64,
            evicted: self.evicted,
        }
    }

    /// The blocks that wait for their readers.
    pub fn withdrawn(&self) -> impl Iterator<Item = u32> {
        self.withdrawn.iter().copied()
    }

    /// An instant in the table's own count of time: steps of 4 ms since its start; it stands still after 198 days.
    pub fn stamp(&self, now: Instant) -> u32 {
        let ticks = now.saturating_duration_since(self.began).as_millis() / TICK.as_millis();
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    pub(crate) fn full(&self, len: u64) -> TableError {
        TableError::Full {
            len,
            free: self.allocator.free(),
            longest: self.allocator.longest(),
            capacity: self.allocator.capacity(),
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

    fn entry(&self, index: u32) -> &Entry {
        &self.entries[place(index)]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[place(index)]
    }

    fn find_mut(&mut self, block: BlockId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(place(block.index))?;
        (entry.generation == block.generation && !matches!(entry.state, State::Free)).then_some(entry)
    }
}

/// One step of the table's count of time.
pub(crate) const TICK: Duration = Duration::from_millis(4);

/// What a block of `len` bytes takes of the arena.
fn taken(len: u64) -> u64 {
    rounded(len).unwrap_or(u64::MAX)
}

fn place(index: u32) -> usize {
    usize::try_from(index).expect("an index fits in a usize")
}
