//! The object plane as the runtime has it: the table, the memory that it is about, and what workers see of both.
//!
//! ```text
//!  segment ┌ directory: a cell for each place ┬ arena: blocks on 64-byte boundaries ┐      pins of worker 7, of worker 8 …
//!          └──────────▲───────────────────────┴─────────▲───────────────────────────┘           │
//!          publish, withdraw                       Room, Bytes                               is_pinned
//!                 Table (pure) ◄── grant, seal, hold, unhold, expire, sweep ── Plane ◄───────────┘
//! ```
//!
//! Bytes that are handed out hold their block by themselves, so they may be kept, cloned and sliced as any others.

mod blocks;
mod error;
mod inner;
mod objects;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyserve_core::StoreId;
use parking_lot::Mutex;

use self::inner::{Inner, State, Workers};
use crate::Owner;
use crate::layout::Layout;
use crate::pins::PinTable;
use crate::protocol::Pin;
use crate::segment::Segment;
use crate::table::{Table, Usage};

pub use error::PlaneError;

/// How an object plane is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneConfig {
    /// Bytes of the arena; rounded up to 64 KiB.
    pub capacity: u64,
    /// Size in bytes from which on a tensor goes through the arena.
    pub threshold: usize,
}

/// The object plane of this replica; a cheap handle on it.
#[derive(Clone)]
pub struct Plane {
    inner: Arc<Inner>,
}

/// Pages are reserved in such steps, in bytes.
const STEP: u64 = 64 << 20;

// === impl Plane ===

impl Plane {
    /// Makes the segment. All of it must fit into what /dev/shm has left; the first pages are reserved.
    ///
    /// # Errors
    /// [`PlaneError::Left`], [`PlaneError::FileSystem`] or [`PlaneError::Io`].
    pub fn open(config: PlaneConfig) -> Result<Self, PlaneError> {
        let now = Instant::now();
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let layout = Layout::of(config.capacity, now).ok_or_else(too_large)?;
        let len = layout.segment_len();
        Segment::remove_leftovers();
        // Asked of a small one, since one that is far too large could not even be mapped.
        let left = Segment::create(1)?.left()?;
        if left < len {
            return Err(PlaneError::Left { left, wanted: len });
        }
        let segment = Segment::create(usize::try_from(len).map_err(|_| too_large())?)?;
        let first = layout.directory_len() + layout.capacity.min(STEP);
        segment.reserve(0, first).map_err(|_| PlaneError::FileSystem { len: first })?;
        let generations = RandomState::new();
        let state = State {
            table: Table::new(layout.capacity, layout.entries, now),
            workers: Workers::default(),
            reserved: layout.capacity.min(STEP),
        };
        let inner = Inner {
            store: StoreId(generations.hash_one((std::process::id(), "store"))),
            layout,
            segment,
            threshold: config.threshold,
            generations,
            next: AtomicU64::new(0),
            state: Mutex::new(state),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The number that its references carry.
    pub fn store(&self) -> StoreId {
        self.inner.store
    }

    /// What a worker needs to know to map it.
    pub fn layout(&self) -> Layout {
        self.inner.layout
    }

    /// The file that workers map, as long as this process lives.
    pub fn segment_path(&self) -> PathBuf {
        self.inner.segment.path()
    }

    /// Size in bytes from which on a tensor goes through the arena.
    pub fn threshold(&self) -> usize {
        self.inner.threshold
    }

    /// A worker may pin blocks from now on. Returns the file that its pins are in.
    ///
    /// # Errors
    /// Its pins cannot be made.
    pub fn add_worker(&self, owner: Owner) -> io::Result<PathBuf> {
        let pins = PinTable::create(&self.inner.layout)?;
        let path = pins.path();
        self.inner.state.lock().workers.0.insert(owner, pins);
        Ok(path)
    }

    /// A worker is dead: its pins are gone, and so is what it had begun to write.
    pub fn worker_gone(&self, owner: Owner) {
        self.inner.event(|state, _| {
            state.workers.0.remove(&owner);
            state.table.writer_gone(owner);
        });
        self.tick();
    }

    /// Withdraws what has lived its time and frees what nobody reads any more. To be called every now and then: workers do
    /// not say when they have stopped reading.
    pub fn tick(&self) {
        self.inner.event(|state, now| {
            state.table.expire(now);
            self.inner.carry_out(state, now);
            state.table.sweep(&state.workers, usize::MAX);
        });
    }

    /// What the arena holds.
    pub fn usage(&self) -> Usage {
        self.inner.state.lock().table.usage()
    }

    /// How many blocks that nobody finds any more each worker still reads.
    pub fn kept(&self) -> Vec<(Owner, usize)> {
        let state = self.inner.state.lock();
        let pinned = |pins: &PinTable| {
            state.table.withdrawn().filter(|index| pins.pin(*index).is_some_and(Pin::is_pinned)).count()
        };
        state.workers.0.iter().map(|(owner, pins)| (*owner, pinned(pins))).collect()
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("store", &self.inner.store).field("layout", &self.inner.layout).finish()
    }
}
