//! Memory that this process shares with workers, as requests and responses name it.

use std::sync::Arc;

use anyserve_core::{Destination, FarObjects, Request, Tensor};
use anyserve_shm::{BlockId, Located, Owner, Plane, Regions};
use anyserve_wire::{Places, message};
use bytes::Bytes;

use crate::pending::Parcel;

/// What a pool's requests may find tensors in, beside the socket.
#[derive(Clone, Debug, Default)]
pub struct SharedMemory {
    /// The object plane, if there is one.
    pub plane: Option<Plane>,
    /// What clients share, if they may.
    pub regions: Option<Arc<Regions>>,
    /// Objects of other replicas, and durable ones, if there are any to be had.
    pub far: Option<Arc<dyn FarObjects>>,
}

/// The places in a frame of a worker's, which are blocks of the arena.
pub(crate) struct ResponsePlaces<'a> {
    plane: Option<&'a Plane>,
    owner: Owner,
    destinations: &'a [Destination],
    /// Bytes of each block that are in use, from its start.
    used: Vec<(BlockId, u64)>,
    taken: Vec<(BlockId, Bytes)>,
}

// === impl SharedMemory ===

impl SharedMemory {
    /// Where some bytes lie, if in memory that workers have mapped too.
    pub(crate) fn locate(&self, bytes: &[u8]) -> Option<(message::Memory, u64)> {
        if let Some((BlockId { index, generation }, offset)) = self.plane.as_ref().and_then(|plane| plane.locate(bytes))
        {
            return Some((message::Memory::Block(message::Block { index, generation }), offset));
        }
        let (region, offset) = self.region(bytes)?;
        Some((message::Memory::Region(region), offset))
    }

    fn region(&self, bytes: &[u8]) -> Option<(message::Region, u64)> {
        let Located { id, path, start, len, offset } = self.regions.as_ref()?.locate(bytes)?;
        Some((message::Region { id, path, start, len }, offset))
    }

    /// Pins the blocks of a request for the worker that it goes to.
    pub(crate) fn lend(&self, parcel: &Parcel, owner: Owner) {
        let Some(plane) = &self.plane else { return };
        for block in &parcel.blocks {
            plane.lend(*block, owner);
        }
    }

    /// Where those outputs of a response are that lie in the arena.
    pub(crate) fn place_outputs(&self, outputs: &[Tensor]) -> Vec<message::Place> {
        let Some(plane) = &self.plane else { return Vec::new() };
        let locate = |(tensor, output): (u32, &Tensor)| {
            let (block, offset) = plane.locate(Some(&output.data).filter(|data| !data.is_empty())?)?;
            let memory = message::Memory::Block(message::Block { index: block.index, generation: block.generation });
            Some(message::Place { tensor, offset, memory: Some(memory) })
        };
        (0..).zip(outputs).filter_map(locate).collect()
    }

    /// Pins the block of each place for the worker that is told of it. Whoever holds the bytes still does.
    pub(crate) fn lend_places(&self, places: &[message::Place], owner: Owner) {
        let Some(plane) = &self.plane else { return };
        places.iter().filter_map(block_of).for_each(|block| plane.lend(block, owner));
    }

    /// Writes into a request's metadata which of its tensors are in shared memory, and where outputs go.
    pub(crate) fn place(&self, request: &Request, frame: &mut message::Request) {
        if self.plane.is_none() && self.regions.is_none() {
            return;
        }
        let place = |(number, tensor): (u32, &Tensor)| {
            let (memory, offset) =
                Some(&tensor.data).filter(|data| !data.is_empty()).and_then(|data| self.locate(data))?;
            Some(message::Place { tensor: number, offset, memory: Some(memory) })
        };
        frame.places = (0..).zip(&request.inputs).filter_map(place).collect();
        let destination = |one: &Destination| {
            let (region, offset) = self.region(&one.room)?;
            let (output, len) = (one.output.clone(), one.room.len() as u64);
            Some(message::Destination { output, region: Some(region), offset, len })
        };
        frame.destinations = request.destinations.iter().filter_map(destination).collect();
    }
}

// === impl ResponsePlaces ===

impl<'a> ResponsePlaces<'a> {
    /// For these tensors of this worker's, and a request with these destinations.
    pub(crate) fn new(
        memory: &'a SharedMemory,
        owner: Owner,
        (places, tensors): (&[message::Place], &[message::Tensor]),
        destinations: &'a [Destination],
    ) -> Self {
        let mut used: Vec<(BlockId, u64)> = Vec::new();
        for place in places {
            let tensor = usize::try_from(place.tensor).ok().and_then(|number| tensors.get(number));
            let (Some(block), Some(tensor)) = (block_of(place), tensor) else { continue };
            let end = place.offset.saturating_add(tensor.len);
            match used.iter_mut().find(|(own, _)| *own == block) {
                Some((_, most)) => *most = end.max(*most),
                None => used.push((block, end)),
            }
        }
        Self { plane: memory.plane.as_ref(), owner, destinations, used, taken: Vec::new() }
    }

    fn block(&mut self, block: BlockId) -> Option<&Bytes> {
        if !self.taken.iter().any(|(own, _)| *own == block) {
            let used = self.used.iter().find(|(own, _)| *own == block).map_or(0, |(_, used)| *used);
            self.taken.push((block, self.plane?.take(block, self.owner, used).ok()?));
        }
        self.taken.iter().find(|(own, _)| *own == block).map(|(_, bytes)| bytes)
    }
}

impl Places for ResponsePlaces<'_> {
    fn find(&mut self, place: &message::Place, len: usize) -> Option<Bytes> {
        let bytes = self.block(block_of(place)?)?;
        let start = usize::try_from(place.offset).ok()?;
        let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
        Some(bytes.slice(start..end))
    }

    fn written(&mut self, output: &str, len: usize) -> Option<Bytes> {
        let destination = self.destinations.iter().find(|one| one.output == output)?;
        (len <= destination.room.len()).then(|| destination.room.slice(..len))
    }
}

/// The block that a place is in, if it is in one.
pub(crate) fn block_of(place: &message::Place) -> Option<BlockId> {
    match &place.memory {
        Some(message::Memory::Block(message::Block { index, generation })) => {
            Some(BlockId { index: *index, generation: *generation })
        }
        _ => None,
    }
}
