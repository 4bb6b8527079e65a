//! Large outputs on their way: into the arena, or by their place where they are in it already.

use anyserve_shm::{ALIGNMENT, Attached, BlockId, Extent};
use anyserve_wire::message;
use pyo3::prelude::*;

use super::reply::Piece;
use super::session::Session;

/// A response whose large tensors are in the arena.
pub(super) struct Shared {
    /// What still goes over the socket.
    pub(super) inline: Vec<Piece>,
    /// Where the rest is.
    pub(super) places: Vec<message::Place>,
    /// Bytes of the rest.
    pub(super) len: usize,
}

/// Puts those pieces, given with their tensors' numbers, into the arena that are large enough. Where there is no room, they go over the socket.
///
/// A piece that lies in the arena, such as an input that is returned, is not copied; its block gets one pin more, which
/// the runtime gives back.
pub(super) fn share(py: Python<'_>, session: &Session, pieces: Vec<(u32, Piece)>) -> PyResult<Shared> {
    let mut on_way = Shared { inline: Vec::new(), places: Vec::new(), len: 0 };
    let arena = session.link.memory.plane.as_ref();
    let threshold = arena.map_or(usize::MAX, |plane| plane.threshold().max(1));
    let (Some(arena), true) = (arena, pieces.iter().any(|(_, piece)| piece.len() >= threshold)) else {
        on_way.inline = pieces.into_iter().map(|(_, piece)| piece).collect();
        return Ok(on_way);
    };
    let ways: Vec<_> = pieces.iter().map(|(_, piece)| Way::of(arena, piece, threshold)).collect();
    let moving =
        pieces.iter().zip(&ways).filter(|(_, way)| matches!(way, Way::Moves)).map(|((_, piece), _)| piece.len());
    let room = room_for(py, session, moving)?;
    let mut next = 0;
    for ((number, piece), way) in pieces.into_iter().zip(ways) {
        let place = match (way, &room) {
            (Way::There(block, offset), _) => Some((block, offset)),
            (Way::Moves, Some(room)) => {
                let offset = next;
                next += (piece.len() as u64).next_multiple_of(ALIGNMENT);
                write(py, arena, room, offset, piece.as_slice()).then_some((room.block, offset))
            }
            (Way::Socket, _) | (Way::Moves, None) => None,
        };
        match place {
            Some((block, offset)) => on_way.add(number, block, offset, piece.len()),
            None => on_way.inline.push(piece),
        }
    }
    on_way.hand_over(arena, room.map(|room| room.block));
    Ok(on_way)
}

/// How a piece gets to the runtime.
enum Way {
    Socket,
    /// It is to be copied into the arena.
    Moves,
    /// It lies in the arena.
    There(BlockId, u64),
}

// === impl Way ===

impl Way {
    fn of(plane: &Attached, piece: &Piece, threshold: usize) -> Self {
        if piece.len() < threshold {
            return Self::Socket;
        }
        plane.locate(piece.as_slice()).map_or(Self::Moves, |(block, offset)| Self::There(block, offset))
    }
}

fn room_for(py: Python<'_>, session: &Session, lens: impl Iterator<Item = usize>) -> PyResult<Option<Extent>> {
    let len: u64 = lens.map(|len| (len as u64).next_multiple_of(ALIGNMENT)).sum();
    if len == 0 { Ok(None) } else { session.room(py, len).map(Result::ok) }
}

/// Bytes from which on it is worth letting other threads run while they are copied.
const LONG: usize = 256 << 10;

fn write(py: Python<'_>, plane: &Attached, room: &Extent, offset: u64, bytes: &[u8]) -> bool {
    if bytes.len() < LONG { plane.write(room, offset, bytes) } else { py.detach(|| plane.write(room, offset, bytes)) }
}

// === impl Shared ===

impl Shared {
    fn add(&mut self, tensor: u32, BlockId { index, generation }: BlockId, offset: u64, len: usize) {
        let memory = Some(message::Memory::Block(message::Block { index, generation }));
        self.places.push(message::Place { tensor, offset, memory });
        self.len += len;
    }

    /// Gives the runtime one pin of each block that was pinned before.
    fn hand_over(&self, plane: &Attached, granted: Option<BlockId>) {
        let mut blocks: Vec<BlockId> = Vec::new();
        for place in &self.places {
            let Some(message::Memory::Block(block)) = &place.memory else { continue };
            let block = BlockId { index: block.index, generation: block.generation };
            if Some(block) != granted && !blocks.contains(&block) {
                plane.hand_over(block);
                blocks.push(block);
            }
        }
    }
}
