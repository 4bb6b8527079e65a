//! The places in requests: blocks of the arena, which are pinned as long as their bytes are kept.

use std::sync::Arc;

use anyserve_shm::{Attached, BlockId};
use anyserve_wire::{Places, message};
use bytes::Bytes;

/// The places of one request's inputs.
pub(super) struct RequestPlaces<'a> {
    plane: Option<&'a Arc<Attached>>,
}

// === impl RequestPlaces ===

impl<'a> RequestPlaces<'a> {
    pub(super) fn new(plane: Option<&'a Arc<Attached>>) -> Self {
        Self { plane }
    }
}

impl Places for RequestPlaces<'_> {
    fn find(&mut self, place: &message::Place, len: usize) -> Option<Bytes> {
        let message::Memory::Block(message::Block { index, generation }) = *place.memory.as_ref()? else { return None };
        let block = self.plane?.view(BlockId { index, generation })?;
        let start = usize::try_from(place.offset).ok()?;
        let end = start.checked_add(len).filter(|end| *end <= block.len())?;
        Some(block.slice(start..end))
    }

    fn written(&mut self, _: &str, _: usize) -> Option<Bytes> {
        None
    }
}
