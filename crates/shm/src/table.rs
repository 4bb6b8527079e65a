//! The object table: what every block of the arena is for, and when it is free again.
//!
//! A state machine fed with events and instants; it touches no memory, reads no clock and knows no process. What
//! workers have to see it says as [`Change`]s, which are to be carried out before [`Table::sweep`] is asked: a block is
//! free only after nobody can find it and then nobody has pinned it. The states are drawn at `entry::State`.

mod error;
mod read;
mod reclaim;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::alloc::{Allocator, rounded};
use crate::entry::{Entry, State};
use crate::{BlockId, Extent};

pub use error::TableError;

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
