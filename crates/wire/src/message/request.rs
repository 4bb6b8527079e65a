//! What a handler gets: one request, or several in a batch.

use super::{Header, KeyValue, Place, Region, Tensor};

/// `Request`: what the handler gets, without the bytes of its tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// Place of the handler in the worker's table.
    #[prost(uint32, tag = "1")]
    pub handler: u32,
    /// Place of the request in the slot table.
    #[prost(uint32, tag = "2")]
    pub slot: u32,
    /// 1 for the first time that it is sent.
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
    /// Microseconds until the deadline, plus one; 0 is no deadline.
    #[prost(uint64, tag = "4")]
    pub remaining_us: u64,
    /// Model name as the caller used it.
    #[prost(string, tag = "5")]
    pub model: String,
    /// Version as the caller used it.
    #[prost(string, tag = "6")]
    pub version: String,
    /// The caller's id.
    #[prost(string, tag = "7")]
    pub id: String,
    /// Inputs, in the order of their bytes in the body.
    #[prost(message, repeated, tag = "8")]
    pub inputs: Vec<Tensor>,
    /// Wanted outputs.
    #[prost(string, repeated, tag = "9")]
    pub outputs: Vec<String>,
    /// Parameters of the request.
    #[prost(message, repeated, tag = "10")]
    pub parameters: Vec<KeyValue>,
    /// Metadata of the call.
    #[prost(message, repeated, tag = "11")]
    pub headers: Vec<Header>,
    /// Inputs whose bytes are not in the body.
    #[prost(message, repeated, tag = "12")]
    pub places: Vec<Place>,
    /// Outputs that are written to memory of the caller's.
    #[prost(message, repeated, tag = "13")]
    pub destinations: Vec<Destination>,
}

/// An output that is written to memory of the caller's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Destination {
    /// Name of the output.
    #[prost(string, tag = "1")]
    pub output: String,
    /// The memory.
    #[prost(message, optional, tag = "2")]
    pub region: Option<Region>,
    /// Where the room begins, in bytes from the start of the region.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Bytes of room.
    #[prost(uint64, tag = "4")]
    pub len: u64,
}

/// `Batch`: requests for one call of a handler that takes a list. The body is the members' bodies, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// The requests, at least one.
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<Member>,
}

/// One request of a batch. It is answered by a frame of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// The request's id, as it would stand in the header of its own frame.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Bytes that it has in the body.
    #[prost(uint64, tag = "2")]
    pub len: u64,
    /// The rest; always set.
    #[prost(message, optional, tag = "3")]
    pub request: Option<Request>,
}
