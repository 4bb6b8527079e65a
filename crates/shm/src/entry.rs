//! One place of the object table.

use std::time::Instant;

use crate::Lease;

/// A worker process, by the number that it was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u32);

/// Who writes to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// This process, for an object.
    Runtime,
    /// This process, for a tensor that a client sends. All of these together have at most half of the arena.
    Ingress,
    /// A worker.
    Worker(Owner),
}

/// A block by its place and generation; both must be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockId {
    /// Place in the table and in the directory.
    pub index: u32,
    /// What no other block at that place has.
    pub generation: u64,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The block.
    pub block: BlockId,
    /// Bytes from the start of the arena; a multiple of 64.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
}

/// A block and what is known of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) generation: u64,
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) state: State,
    /// Handles that this process has on it.
    pub(crate) holds: u32,
    /// Counts among what ingress may have.
    pub(crate) ingress: bool,
    /// It was granted ahead of its use: nothing has been written to it.
    pub(crate) ahead: bool,
    /// When this process last handed it out, as [`Table`](crate::Table) counts time.
    pub(crate) used: u32,
}

/// ```text
/// Granted --seal--> Object --delete, lease over, evicted--> Withdrawn --nobody reads it--> Free
///    |  `--adopt--> Tensor --last hold gone---------------------^
///    `--discard, its writer died--> Free
/// ```
#[derive(Debug)]
pub(crate) enum State {
    Free,
    Granted(Writer),
    Object(Object),
    /// A tensor under way: there as long as this process holds it.
    Tensor,
    /// Nobody finds it any more; some may still read it.
    Withdrawn,
}

/// A sealed object.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) lease: Lease,
    pub(crate) expires: Instant,
    /// Its key in the order of eviction, if it is in it.
    pub(crate) queued: Option<u32>,
}

// === impl Entry ===

impl Entry {
    pub(crate) fn is_readable(&self) -> bool {
        matches!(self.state, State::Object(_) | State::Tensor)
    }

    pub(crate) fn extent(&self, index: u32) -> Extent {
        let block = BlockId { index, generation: self.generation };
        Extent { block, start: self.start, len: self.len }
    }
}
