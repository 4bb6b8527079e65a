//! What workers ask of the object plane, and are told.

use super::{Block, Failed};

/// `Put`: the worker wants a block of the arena to write to. Answered by `View`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// Its bytes.
    #[prost(uint64, tag = "1")]
    pub len: u64,
    /// Only if there is plenty: it is asked for ahead of its use.
    #[prost(bool, tag = "2")]
    pub ahead: bool,
}

/// `Sealed`: a block is written and is an object from now on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sealed {
    /// The block, as `View` gave it.
    #[prost(message, optional, tag = "1")]
    pub block: Option<Block>,
    /// Bytes of it that are in use, from its start.
    #[prost(uint64, tag = "2")]
    pub len: u64,
    /// Name under which it can be looked up; empty for none.
    #[prost(string, tag = "3")]
    pub key: String,
    /// Milliseconds that it lives, at least 1.
    #[prost(uint64, tag = "4")]
    pub ttl_ms: u64,
    /// It may be evicted when room is needed.
    #[prost(bool, tag = "5")]
    pub cacheable: bool,
    /// It is to outlive this replica.
    #[prost(bool, tag = "6")]
    pub durable: bool,
    /// Whether the worker waits for a `View`.
    #[prost(bool, tag = "7")]
    pub answer: bool,
}

/// `Get`: the worker asks for an object. Answered by `View`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Get {
    /// Which one.
    #[prost(oneof = "Wanted", tags = "1, 2")]
    pub wanted: Option<Wanted>,
    /// Microseconds until the deadline, plus one; 0 is no deadline.
    #[prost(uint64, tag = "3")]
    pub remaining_us: u64,
    /// Whether it is only to be described; with nothing wanted, the store is.
    #[prost(bool, tag = "4")]
    pub describe: bool,
}

/// What `Get` asks for.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Wanted {
    /// The object of a reference.
    #[prost(message, tag = "1")]
    Object(ObjectId),
    /// The newest object under a key.
    #[prost(string, tag = "2")]
    Key(String),
}

/// A reference to an object.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ObjectId {
    /// The store that it was made in.
    #[prost(fixed64, tag = "1")]
    pub store: u64,
    /// Its place in the store's directory.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// What no other object at that place has.
    #[prost(fixed64, tag = "3")]
    pub generation: u64,
}

/// `View`: the answer to `Put`, `Get`, `Release`, and to `Sealed` if it asks for one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct View {
    /// Why there is none.
    #[prost(message, optional, tag = "1")]
    pub failed: Option<Failed>,
    /// The block or object; not set where there is none under a key, or none to delete.
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectId>,
    /// Where it begins in the arena; to `Put` only.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Bytes of room; to `Put` only.
    #[prost(uint64, tag = "4")]
    pub len: u64,
    /// What was asked to be described.
    #[prost(message, optional, tag = "5")]
    pub stat: Option<Stat>,
}

/// An object, or the whole store, in numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Bytes of the object, or of all objects and tensors under way.
    #[prost(uint64, tag = "1")]
    pub len: u64,
    /// Milliseconds that the object lives; 0 for ever.
    #[prost(uint64, tag = "2")]
    pub remaining_ms: u64,
    /// The object's key; empty for none.
    #[prost(string, tag = "3")]
    pub key: String,
    /// The object may be evicted.
    #[prost(bool, tag = "4")]
    pub cacheable: bool,
    /// The object outlives this replica.
    #[prost(bool, tag = "5")]
    pub durable: bool,
    /// Bytes of the arena; of the store only.
    #[prost(uint64, tag = "6")]
    pub capacity: u64,
    /// Objects; of the store only.
    #[prost(uint64, tag = "7")]
    pub objects: u64,
    /// Objects that were evicted since the start; of the store only.
    #[prost(uint64, tag = "8")]
    pub evicted: u64,
}

/// `Release`: from a worker, this object is to be deleted (answered by `View`) or this unwritten block is given back (not
/// answered); from the runtime, a client's memory is not used any more.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Release {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectId>,
    /// The block.
    #[prost(message, optional, tag = "2")]
    pub block: Option<Block>,
    /// The number of the client's memory.
    #[prost(uint64, tag = "3")]
    pub region: u64,
}
