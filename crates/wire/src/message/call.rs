//! What handlers call, and what comes back.

use super::{Failed, Request, Response};

/// `Call`: a handler calls another capability. The body is the inputs' bytes, in order. Answered by `CallResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Call {
    /// The request whose handler calls.
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    /// What the capability must satisfy, as a selector; empty means the model's name.
    #[prost(string, tag = "2")]
    pub selector: String,
    /// Any number of results may come; otherwise one.
    #[prost(bool, tag = "3")]
    pub stream: bool,
    /// What the other handler is to get; always set. Handler, slot, attempt and destinations mean nothing here.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

/// `CallResult`: one result of a call, or its end. The body is the outputs' bytes, in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CallResult {
    /// The result; of its fields, `compute_ns` and `written` mean nothing here.
    #[prost(message, optional, tag = "1")]
    pub response: Option<Response>,
    /// Why there is none; it is the end.
    #[prost(message, optional, tag = "2")]
    pub failed: Option<Failed>,
    /// Nothing comes after it.
    #[prost(bool, tag = "3")]
    pub end: bool,
    /// Id of the response.
    #[prost(string, tag = "4")]
    pub id: String,
    /// Model name of the response.
    #[prost(string, tag = "5")]
    pub model: String,
    /// Version that served it.
    #[prost(string, tag = "6")]
    pub version: String,
    /// What it takes of the call's window, until a `Credit` gives it back.
    #[prost(uint64, tag = "7")]
    pub cost: u64,
}
