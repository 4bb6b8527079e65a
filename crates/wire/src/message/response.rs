//! What becomes of a request: responses, or why there is none.

use super::{KeyValue, Place, Tensor};

/// `Chunk` and `Done`: a response, without the bytes of its tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// Outputs, in the order of their bytes in the body.
    #[prost(message, repeated, tag = "1")]
    pub outputs: Vec<Tensor>,
    /// Parameters of the response.
    #[prost(message, repeated, tag = "2")]
    pub parameters: Vec<KeyValue>,
    /// Nanoseconds in the handler; on `Done` only.
    #[prost(uint64, tag = "3")]
    pub compute_ns: u64,
    /// Outputs whose bytes are in the arena.
    #[prost(message, repeated, tag = "4")]
    pub places: Vec<Place>,
    /// Outputs that were written to their destinations, by their numbers as in `Place::tensor`.
    #[prost(uint32, repeated, tag = "5")]
    pub written: Vec<u32>,
}

/// `Failed`: why there is no answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Failed {
    /// Number of the code.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// One sentence for whoever acts next.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The handler's traceback; empty if it did not raise.
    #[prost(string, tag = "3")]
    pub traceback: String,
    /// Nanoseconds in the handler.
    #[prost(uint64, tag = "4")]
    pub compute_ns: u64,
    /// Milliseconds until another try may succeed, plus one; 0 is unknown.
    #[prost(uint64, tag = "5")]
    pub retry_after_ms: u64,
}

/// `Credit`: room for more of a stream, or of a call's results.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credit {
    /// Bytes that the client, or the calling handler, has taken.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
}
