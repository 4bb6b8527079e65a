//! Blocks between this process and its workers: granted, written, handed over, held.

use anyserve_core::{Lease, ObjRef};
use bytes::Bytes;

use super::{Plane, PlaneError};
use crate::memory::{Hold, Room};
use crate::protocol::Pin;
use crate::table::TableError;
use crate::{BlockId, Extent, Owner, Writer};

/// Withdrawn blocks that an ordinary event looks at.
const SWEEP: usize = 8;

// === impl Plane ===

impl Plane {
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

    pub(super) fn room(&self, len: usize, writer: Writer) -> Result<Room, PlaneError> {
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

    pub(super) fn bytes(&self, extent: Extent) -> Bytes {
        Hold::new(self.clone(), extent).into_bytes()
    }
}
