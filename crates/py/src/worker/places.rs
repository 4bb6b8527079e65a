//! The places in requests: blocks of the arena, which are pinned as long as their bytes are kept, and memory of clients.

use std::path::Path;
use std::sync::Arc;

use anyserve_shm::{Attached, BlockId, RegionPlace, RegionViews};
use anyserve_wire::{Places, message};
use bytes::Bytes;

/// The places of one request's inputs.
pub(super) struct RequestPlaces<'a> {
    memory: &'a Memory,
}

/// Memory that this worker has mapped.
#[derive(Clone)]
pub(super) struct Memory {
    /// The object plane, if this replica has one.
    pub(super) plane: Option<Arc<Attached>>,
    /// What clients share.
    pub(super) regions: Arc<RegionViews>,
}

// === impl RequestPlaces ===

impl<'a> RequestPlaces<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self { memory }
    }
}

impl Places for RequestPlaces<'_> {
    fn find(&mut self, place: &message::Place, len: usize) -> Option<Bytes> {
        let block = match place.memory.as_ref()? {
            message::Memory::Block(message::Block { index, generation }) => {
                self.memory.plane.as_ref()?.lent(BlockId { index: *index, generation: *generation })?
            }
            message::Memory::Region(region) => {
                return self.memory.regions.view(&region_place(region), place.offset, len as u64).ok();
            }
        };
        let start = usize::try_from(place.offset).ok()?;
        let end = start.checked_add(len).filter(|end| *end <= block.len())?;
        Some(block.slice(start..end))
    }

    fn written(&mut self, _: &str, _: usize) -> Option<Bytes> {
        None
    }
}

/// A region, as it is mapped.
pub(super) fn region_place(region: &message::Region) -> RegionPlace<'_> {
    let message::Region { id, path, start, len } = region;
    RegionPlace { id: *id, path: Path::new(path), start: *start, len: *len }
}

/// The numbers of the regions that inputs lie in.
pub(super) fn regions(places: &[message::Place]) -> impl Iterator<Item = u64> {
    places.iter().filter_map(|place| match &place.memory {
        Some(message::Memory::Region(region)) => Some(region.id),
        _ => None,
    })
}

/// What is said of memory that its client took away.
pub(super) const TRUNCATED: &str =
    "a shared memory region of this request was truncated while the request was under way";
