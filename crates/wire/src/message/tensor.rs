//! Tensors without their bytes, and where those lie if not in the body.

use super::KeyValue;

/// A tensor, without its bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Number of its datatype.
    #[prost(uint32, tag = "2")]
    pub datatype: u32,
    /// Dimensions.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    /// Bytes that it has in the body.
    #[prost(uint64, tag = "4")]
    pub len: u64,
    /// Its parameters.
    #[prost(message, repeated, tag = "5")]
    pub parameters: Vec<KeyValue>,
}

/// Where the bytes of a tensor lie, if not in the body. A tensor has one place at most.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Place {
    /// Which tensor, counted from 0 in the order of the metadata.
    #[prost(uint32, tag = "1")]
    pub tensor: u32,
    /// Where it begins, in bytes from the start of the memory. It has the tensor's own length.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Which memory; always set.
    #[prost(oneof = "Memory", tags = "3, 4")]
    pub memory: Option<Memory>,
}

/// Memory that both ends of the socket have mapped.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Memory {
    /// A block of the arena. On a request each place brings one pin along, which the worker takes over; on a response each
    /// block that the worker had not been granted brings one, which the runtime takes over.
    #[prost(message, tag = "3")]
    Block(Block),
    /// Memory that a client shares; on requests only.
    #[prost(message, tag = "4")]
    Region(Region),
}

/// A block of the arena, by its place in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Block {
    /// Its place in the directory.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// What no other block at that place has.
    #[prost(fixed64, tag = "2")]
    pub generation: u64,
}

/// Memory that a client shares with the runtime.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Region {
    /// Its number in this replica; never used again.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// File that it is mapped from, whole; there as long as a request that names it is under way.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Where it begins in the file.
    #[prost(uint64, tag = "3")]
    pub start: u64,
    /// Its bytes.
    #[prost(uint64, tag = "4")]
    pub len: u64,
}
