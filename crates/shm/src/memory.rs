//! Handles of this process on blocks of the arena: room that is written, and bytes that are read.

use anyserve_core::{Error, ObjRef, ObjectRoom, TensorRoom};
use bytes::Bytes;

use crate::plane::{Plane, PlaneError};
use crate::{BlockId, Extent, Lease, Writer};

/// Room for an object or a tensor that this process writes from front to back. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    plane: Plane,
    extent: Extent,
    writer: Writer,
    filled: u64,
    done: bool,
}

/// One hold on a block; dropping it gives it back.
pub(crate) struct Hold {
    plane: Plane,
    block: BlockId,
    start: *const u8,
    len: usize,
}

// === impl Room ===

impl Room {
    pub(crate) fn new(plane: Plane, extent: Extent, writer: Writer) -> Self {
        Self { plane, extent, writer, filled: 0, done: false }
    }

    /// Bytes that are still to come.
    pub fn missing(&self) -> usize {
        usize::try_from(self.extent.len - self.filled).expect("the block was mapped")
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// More than are missing.
    #[allow(unsafe_code)]
    pub fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.missing(), "{} bytes for {} missing ones", bytes.len(), self.missing());
        let filled = usize::try_from(self.filled).expect("the block was mapped");
        // SAFETY: the block is inside of the arena, whose mapping `plane` keeps, has pages, and was granted to this room
        // alone, which has just compared its length; `bytes` is Rust's own and cannot lie in a block that is not yet read.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.plane.address(&self.extent).add(filled), bytes.len());
        }
        self.filled += bytes.len() as u64;
    }

    /// The object; what is missing was not needed.
    ///
    /// # Errors
    /// None that is not a defect.
    pub fn seal(mut self, lease: Lease) -> Result<ObjRef, PlaneError> {
        self.done = true;
        self.plane.seal(self.extent.block, self.writer, self.filled, lease)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.done {
            self.plane.discard(self.extent.block, self.writer);
        }
    }
}

impl TensorRoom for Room {
    fn missing(&self) -> usize {
        Self::missing(self)
    }

    fn write(&mut self, bytes: &[u8]) {
        Self::write(self, bytes);
    }

    fn freeze(mut self: Box<Self>) -> Bytes {
        assert_eq!(self.missing(), 0, "a tensor is whole when it is read");
        self.done = true;
        let adopted = self.plane.adopt(self.extent.block, self.writer, self.filled);
        adopted.expect("the block was granted to this room and is sealed once")
    }
}

impl ObjectRoom for Room {
    fn missing(&self) -> usize {
        Self::missing(self)
    }

    fn write(&mut self, bytes: &[u8]) {
        Self::write(self, bytes);
    }

    fn seal(self: Box<Self>, lease: Lease) -> Result<ObjRef, Error> {
        Ok(Self::seal(*self, lease)?)
    }
}

// === impl Hold ===

impl Hold {
    pub(crate) fn new(plane: Plane, extent: Extent) -> Self {
        let start = plane.address(&extent).cast_const();
        Self { plane, block: extent.block, start, len: usize::try_from(extent.len).expect("the block was mapped") }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Hold {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the block is inside of the arena, whose mapping `plane` keeps, and stays this block's until the hold is
        // given back. It was sealed before it could be held, so nobody of ours writes to it. A worker that breaks that
        // rule changes what is sent, nothing else: no byte is believed twice.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.plane.unhold(self.block);
    }
}

// SAFETY: the pointer is into memory that every thread of this process has mapped, and is only read through.
#[allow(unsafe_code)]
unsafe impl Send for Hold {}
