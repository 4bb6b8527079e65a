//! The object plane as a worker has it: it finds and pins blocks by itself, and writes to those it was granted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyserve_core::StoreId;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::layout::{Layout, clock_ns, stamp};
use crate::pins::OwnPins;
use crate::protocol::{Cell, Pin};
use crate::segment::Mapping;
use crate::{BlockId, Extent};

/// What a worker is told of the object plane.
#[derive(Clone, Copy, Debug)]
pub struct PlaneAt<'a> {
    /// Number of the store.
    pub store: StoreId,
    /// File of the segment.
    pub segment: &'a Path,
    /// File of this worker's pins.
    pub pins: &'a Path,
    /// What is where.
    pub layout: Layout,
    /// Size in bytes from which on a tensor goes through the arena.
    pub threshold: usize,
}

/// A mapped object plane.
#[derive(Debug)]
pub struct Attached {
    store: StoreId,
    threshold: usize,
    layout: Layout,
    directory: Mapping,
    arena: Mapping,
    pins: OwnPins,
    /// What is pinned, by where it begins: to tell of bytes which block they are of.
    pinned: Mutex<BTreeMap<u64, Pinned>>,
}

#[derive(Clone, Copy, Debug)]
struct Pinned {
    extent: Extent,
    count: usize,
}

/// A block that cannot be reclaimed while this is there.
#[derive(Debug)]
struct View {
    plane: Arc<Attached>,
    extent: Extent,
    start: *const u8,
    len: usize,
}

// === impl Attached ===

impl Attached {
    /// Maps the segment and the pins.
    ///
    /// # Errors
    /// The files are not there, or are shorter than the layout says.
    pub fn open(at: &PlaneAt<'_>) -> io::Result<Arc<Self>> {
        let PlaneAt { store, segment, pins, layout, threshold } = *at;
        let len = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
        let directory = Mapping::open_read_only(segment, 0, len(layout.directory_len())?)?;
        let arena = Mapping::open(segment, layout.directory_len(), len(layout.capacity)?)?;
        let pins = OwnPins::open(pins, &layout)?;
        Ok(Arc::new(Self { store, threshold, layout, directory, arena, pins, pinned: Mutex::default() }))
    }

    /// Number of the store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Size in bytes from which on a tensor goes through the arena.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// All bytes of a block, if it can be found; they pin it as long as they live.
    pub fn view(self: &Arc<Self>, block: BlockId) -> Option<Bytes> {
        let extent = self.pin(block)?;
        Some(self.bytes(extent))
    }

    /// All bytes of a block that the runtime has pinned for this worker; the pin is theirs from now on. `None` for a block
    /// that cannot be one.
    pub fn lent(self: &Arc<Self>, block: BlockId) -> Option<Bytes> {
        let found = self.cell(block.index)?.pinned(block.generation)?;
        let extent = Extent { block, start: found.start, len: found.len };
        if !self.is_inside(&extent) {
            return None;
        }
        self.note(&extent);
        Some(self.bytes(extent))
    }

    /// The pinned block that some bytes lie in, and where in it; `None` for bytes that are not in the arena.
    pub fn locate(&self, bytes: &[u8]) -> Option<(BlockId, u64)> {
        let offset = bytes.as_ptr().addr().checked_sub(self.arena.start().addr())?;
        if offset >= self.arena.len() {
            return None;
        }
        let offset = u64::try_from(offset).ok()?;
        let pinned = self.pinned.lock();
        let (start, Pinned { extent, .. }) = pinned.range(..=offset).next_back()?;
        let inside = offset - start < extent.len.max(1) && bytes.len() as u64 <= extent.len - (offset - start);
        inside.then_some((extent.block, offset - start))
    }

    /// Pins a pinned block once more, for the runtime, which gives the pin back.
    pub fn hand_over(&self, block: BlockId) {
        self.pins.pin(block.index).into_iter().for_each(Pin::again);
    }

    /// Writes to a block that the runtime granted to this worker. Nothing happens if it would not fit.
    #[allow(unsafe_code)]
    pub fn write(&self, granted: &Extent, offset: u64, bytes: &[u8]) -> bool {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= granted.len);
        let inside = granted.start.checked_add(granted.len).is_some_and(|end| end <= self.layout.capacity);
        if end.is_none() || !inside {
            return false;
        }
        let at = self.address(granted.start + offset);
        // SAFETY: the target is inside of the arena's mapping, as was just compared, its pages are reserved, and nobody
        // reads a granted block before it is sealed. `bytes` may lie in the arena too, in a block that is pinned: not in
        // this one.
        unsafe { std::ptr::copy(bytes.as_ptr(), at, bytes.len()) };
        true
    }

    /// Blocks that are pinned now.
    pub fn pinned(&self) -> usize {
        self.pinned.lock().len()
    }

    fn pin(&self, block: BlockId) -> Option<Extent> {
        let (pin, cell) = self.pins.pin(block.index).zip(self.cell(block.index))?;
        let found = pin.pin(cell, block.generation)?;
        let extent = Extent { block, start: found.start, len: found.len };
        let over = found.expires != 0 && found.expires <= clock_ns();
        if over || !self.is_inside(&extent) {
            pin.unpin();
            return None;
        }
        pin.note(stamp(self.layout.epoch_ns));
        self.note(&extent);
        Some(extent)
    }

    fn is_inside(&self, extent: &Extent) -> bool {
        extent.start.checked_add(extent.len).is_some_and(|end| end <= self.layout.capacity)
    }

    /// One pin more of it is held here.
    fn note(&self, extent: &Extent) {
        let mut pinned = self.pinned.lock();
        pinned.entry(extent.start).or_insert(Pinned { extent: *extent, count: 0 }).count += 1;
    }

    fn bytes(self: &Arc<Self>, extent: Extent) -> Bytes {
        let len = usize::try_from(extent.len).expect("it was compared with the arena");
        let start = self.address(extent.start).cast_const();
        Bytes::from_owner(View { plane: Arc::clone(self), extent, start, len })
    }

    fn unpin(&self, extent: &Extent) {
        let mut pinned = self.pinned.lock();
        if let Some(known) = pinned.get_mut(&extent.start) {
            known.count -= 1;
            if known.count == 0 {
                pinned.remove(&extent.start);
            }
        }
        drop(pinned);
        self.pins.pin(extent.block.index).into_iter().for_each(Pin::unpin);
    }

    fn address(&self, start: u64) -> *mut u8 {
        self.arena.start().wrapping_add(usize::try_from(start).expect("it was compared with the arena"))
    }

    #[allow(unsafe_code, clippy::cast_ptr_alignment)]
    fn cell(&self, index: u32) -> Option<&Cell> {
        if index >= self.layout.entries {
            return None;
        }
        let offset = usize::try_from(index).ok()? * size_of::<Cell>();
        // SAFETY: the mapping is the directory, page-aligned, with `entries` cells, which are only read here, as atomics,
        // for which every bit pattern is a value. The file has no name and is truncated by nobody.
        Some(unsafe { &*self.directory.start().add(offset).cast::<Cell>() })
    }
}

// === impl View ===

impl AsRef<[u8]> for View {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the extent was compared with the arena, whose mapping `plane` keeps. The block was sealed before it
        // could be found, and is not written again while it is pinned.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.plane.unpin(&self.extent);
    }
}

// SAFETY: the pointer is into memory that every thread of this process has mapped, and is only read through.
#[allow(unsafe_code)]
unsafe impl Send for View {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Owner, Plane, PlaneConfig};

    #[test]
    fn there_is_a_cell_for_each_entry_and_no_other() {
        let plane = Plane::open(PlaneConfig { capacity: 8 << 20, threshold: 1 }).unwrap();
        let (segment, pins) = (plane.segment_path(), plane.add_worker(Owner(1)).unwrap());
        let (store, layout) = (plane.store(), plane.layout());
        let worker = Attached::open(&PlaneAt { store, segment: &segment, pins: &pins, layout, threshold: 1 }).unwrap();
        assert_eq!((layout.entries, worker.cell(2047).is_some()), (2048, true));
        assert!([2048, 2049, u32::MAX].iter().all(|index| worker.cell(*index).is_none()));
    }

    #[test]
    fn a_layout_that_is_larger_than_the_files_is_not_mapped() {
        let plane = Plane::open(PlaneConfig { capacity: 8 << 20, threshold: 1 }).unwrap();
        let (segment, pins) = (plane.segment_path(), plane.add_worker(Owner(1)).unwrap());
        let (store, good) = (plane.store(), plane.layout());
        let open = |layout| Attached::open(&PlaneAt { store, segment: &segment, pins: &pins, layout, threshold: 1 });
        assert!(open(good).is_ok());
        for (entries, capacity) in
            [(2049, good.capacity), (1 << 20, good.capacity), (2048, good.capacity + 1), (2048, u64::MAX >> 1)]
        {
            assert!(open(Layout { entries, capacity, ..good }).is_err(), "{entries} {capacity}");
        }
    }
}
