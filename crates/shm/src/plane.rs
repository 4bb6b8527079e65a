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

mod inner;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyserve_core::{
    Code, Error, HeldObject, Lease, LocalObjects, ObjRef, ObjectRoom, StoreId, TensorMemory, TensorRoom,
};
use bytes::Bytes;
use parking_lot::Mutex;

use self::inner::{Inner, State, Workers};
use crate::layout::Layout;
use crate::memory::{Hold, Room};
use crate::pins::PinTable;
use crate::protocol::Pin;
use crate::segment::Segment;
use crate::table::{Table, TableError, Usage};
use crate::{BlockId, Extent, Owner, Writer};

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

/// Why there is no object plane, or no object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// What the table says.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The reference is of another replica's store.
    #[error("object of store {theirs}, and this is store {ours}")]
    Elsewhere {
        /// The reference's store.
        theirs: StoreId,
        /// This one.
        ours: StoreId,
    },
    /// The pages of a block cannot be had: somebody else filled the file system.
    #[error(
        "/dev/shm is full: no {len} more bytes for the object store; free some, or give it less with --object-store"
    )]
    FileSystem {
        /// Bytes that were wanted.
        len: u64,
    },
    /// Less is free than the arena is to have.
    #[error(
        "/dev/shm has {left} bytes left, and the object store is to have {wanted}: free some, enlarge it \
         (mount -o remount,size=…; docker run --shm-size=…), or give it less with --object-store"
    )]
    Left {
        /// Bytes that are free.
        left: u64,
        /// Bytes that are wanted.
        wanted: u64,
    },
    /// The segment cannot be made.
    #[error("shared memory for the object store cannot be made")]
    Io(#[from] io::Error),
}

/// Pages are reserved in such steps, in bytes.
const STEP: u64 = 64 << 20;
/// Withdrawn blocks that an ordinary event looks at.
const SWEEP: usize = 8;

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

    /// Takes a block for a writer. Evicts what may be evicted if there is no room otherwise, unless it is taken `ahead` of
    /// its use, which is granted only where there is plenty.
    ///
    /// # Errors
    /// There is no room.
    pub fn grant(&self, len: u64, writer: Writer, ahead: bool) -> Result<Extent, PlaneError> {
        let generation = self.inner.generation();
        self.inner.event(|state, now| {
            state.table.sweep(&state.workers, SWEEP);
            if ahead && !state.table.has_plenty(len) {
                return Err(state.table.full(len).into());
            }
            loop {
                match state.table.grant(len, writer, generation) {
                    Ok(extent) => {
                        let extent = self.inner.back(state, extent, writer)?;
                        if ahead {
                            state.table.mark_ahead(extent.block);
                        }
                        return Ok(extent);
                    }
                    Err(full) if ahead || !self.inner.make_room(state, (len, writer), now) => return Err(full.into()),
                    Err(_) => {}
                }
            }
        })
    }

    /// Room for an object of `len` bytes that this process writes.
    ///
    /// # Errors
    /// There is no room.
    pub fn create(&self, len: usize) -> Result<Room, PlaneError> {
        self.room(len, Writer::Runtime)
    }

    fn room(&self, len: usize, writer: Writer) -> Result<Room, PlaneError> {
        let extent = self.grant(len as u64, writer, false)?;
        Ok(Room::new(self.clone(), extent, writer))
    }

    /// A written block is an object from now on.
    ///
    /// # Errors
    /// It is not this writer's block, or has not so many bytes.
    pub fn seal(&self, block: BlockId, writer: Writer, len: u64, lease: Lease) -> Result<ObjRef, PlaneError> {
        self.inner.event(|state, now| state.table.seal(block, writer, len, lease, now))?;
        Ok(self.objref(block))
    }

    /// A written block is a tensor from now on, which lives as long as the bytes.
    ///
    /// # Errors
    /// It is not this writer's block, or has not so many bytes.
    pub fn adopt(&self, block: BlockId, writer: Writer, len: u64) -> Result<Bytes, PlaneError> {
        let extent = self.inner.event(|state, _| state.table.adopt(block, writer, len))?;
        Ok(self.bytes(extent))
    }

    /// Gives an unwritten block back. Does nothing for any other.
    pub fn discard(&self, block: BlockId, writer: Writer) {
        self.inner.event(|state, _| state.table.discard(block, writer));
    }

    /// What a worker hands over in a response: a block that it was granted and has written `len` bytes of, or one that it
    /// has pinned; that one pin is given back whatever comes of this.
    ///
    /// # Errors
    /// The block is neither.
    pub fn take(&self, block: BlockId, owner: Owner, len: u64) -> Result<Bytes, PlaneError> {
        let extent = self.inner.event(|state, _| {
            let writer = Writer::Worker(owner);
            if state.table.is_granted(block, writer) {
                return state.table.adopt(block, writer, len);
            }
            let pin = state.workers.0.get(&owner).and_then(|pins| pins.pin(block.index));
            let pin = pin.filter(|pin| pin.is_pinned()).ok_or(TableError::Gone)?;
            let held = state.table.hold_pinned(block);
            pin.unpin();
            held
        })?;
        Ok(self.bytes(extent))
    }

    /// Pins a block for a worker that is about to be told of it, and gives the pin back. Whoever calls this holds the block,
    /// so it may have been withdrawn.
    pub fn lend(&self, block: BlockId, owner: Owner) {
        let state = self.inner.state.lock();
        state.workers.0.get(&owner).and_then(|pins| pins.pin(block.index)).into_iter().for_each(Pin::again);
    }

    /// An object of this store.
    ///
    /// # Errors
    /// It is gone, or of another store.
    pub fn object(&self, objref: ObjRef) -> Result<HeldObject, PlaneError> {
        let block = self.own(objref)?;
        let (extent, lease) = self.inner.event(|state, now| {
            let (_, lease) = state.table.lease(block, now).ok_or(TableError::Gone)?;
            Ok::<_, TableError>((state.table.hold(block, now)?, lease))
        })?;
        Ok(HeldObject { bytes: self.bytes(extent), lease })
    }

    /// What an object was made with, how long it still lives, and its bytes.
    ///
    /// # Errors
    /// It is gone, or of another store.
    pub fn lease(&self, objref: ObjRef) -> Result<(Lease, u64), PlaneError> {
        let block = self.own(objref)?;
        let found = self.inner.state.lock().table.lease(block, Instant::now());
        let (extent, lease) = found.ok_or(TableError::Gone)?;
        Ok((lease, extent.len))
    }

    /// The newest object under a key.
    pub fn lookup(&self, key: &str) -> Option<ObjRef> {
        let found = self.inner.state.lock().table.lookup(key, Instant::now());
        found.map(|block| self.objref(block))
    }

    /// Whoever looks for the object finds it no more. False if it was gone already, or is of another store.
    pub fn delete(&self, objref: ObjRef) -> bool {
        let Ok(block) = self.own(objref) else { return false };
        self.inner.event(|state, _| state.table.delete(block))
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

    /// The block that some bytes lie in, and where in it; `None` for bytes that are not in the arena.
    pub fn locate(&self, bytes: &[u8]) -> Option<(BlockId, u64)> {
        let arena = self.inner.arena().addr();
        let offset = u64::try_from(bytes.as_ptr().addr().checked_sub(arena)?).ok()?;
        if offset >= self.inner.layout.capacity {
            return None;
        }
        let extent = self.inner.state.lock().table.containing(offset)?;
        Some((extent.block, offset - extent.start))
    }

    pub(crate) fn unhold(&self, block: BlockId) {
        self.inner.event(|state, now| {
            state.table.unhold(block);
            self.inner.carry_out(state, now);
            state.table.sweep(&state.workers, SWEEP);
        });
    }

    pub(crate) fn address(&self, extent: &Extent) -> *mut u8 {
        let start = usize::try_from(extent.start).expect("the arena was mapped");
        self.inner.arena().wrapping_add(start)
    }

    fn objref(&self, block: BlockId) -> ObjRef {
        ObjRef { store: self.inner.store, index: block.index, generation: block.generation }
    }

    fn own(&self, objref: ObjRef) -> Result<BlockId, PlaneError> {
        let ObjRef { store, index, generation } = objref;
        if store != self.inner.store {
            return Err(PlaneError::Elsewhere { theirs: store, ours: self.inner.store });
        }
        Ok(BlockId { index, generation })
    }

    fn bytes(&self, extent: Extent) -> Bytes {
        Hold::new(self.clone(), extent).into_bytes()
    }
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plane").field("store", &self.inner.store).field("layout", &self.inner.layout).finish()
    }
}

impl TensorMemory for Plane {
    fn threshold(&self) -> usize {
        self.inner.threshold
    }

    fn allocate(&self, len: usize) -> Option<Box<dyn TensorRoom>> {
        Some(Box::new(self.room(len, Writer::Ingress).ok()?))
    }
}

impl LocalObjects for Plane {
    fn store(&self) -> StoreId {
        Self::store(self)
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.inner.layout.capacity).expect("the arena was mapped")
    }

    fn object(&self, objref: ObjRef) -> Result<HeldObject, Error> {
        Ok(Self::object(self, objref)?)
    }

    fn create(&self, len: usize) -> Result<Box<dyn ObjectRoom>, Error> {
        Ok(Box::new(Self::create(self, len)?))
    }
}

// === impl PlaneError ===

impl From<PlaneError> for Error {
    fn from(error: PlaneError) -> Self {
        let code = match &error {
            PlaneError::Table(TableError::Gone) | PlaneError::Elsewhere { .. } => Code::NotFound,
            PlaneError::Table(TableError::NotYours { .. }) => Code::InvalidInput,
            PlaneError::Table(_) | PlaneError::FileSystem { .. } | PlaneError::Left { .. } => Code::ObjectStoreFull,
            PlaneError::Io(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
