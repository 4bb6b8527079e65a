//! The one request type that every protocol turns its requests into, and what comes back.

use std::pin::Pin;
use std::time::Instant;

use futures_core::Stream;

use crate::{Destination, Error, Parameters, Query, Tensor};

/// How many responses the caller can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// Exactly one: a unary call. A streaming capability is refused.
    One,
    /// Any number, none included.
    Many,
}

/// A request, whatever protocol it came by.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's id, echoed; empty if none was given.
    pub id: String,
    /// The model name that the caller used, echoed; empty if the query came by other means.
    pub model: String,
    /// The version that the caller asked for; empty leaves the choice to the replica.
    pub version: String,
    /// What a capability must satisfy to serve this.
    pub query: Query,
    /// Input tensors, checked: shape, datatype and bytes agree.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs that are wanted; empty is all.
    pub outputs: Vec<String>,
    /// Outputs that are written to memory of the caller's; each is also among `outputs`.
    pub destinations: Vec<Destination>,
    /// Parameters of the request.
    pub parameters: Parameters,
    /// Metadata of the call, lower-case names.
    pub headers: Vec<(String, String)>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// How many responses the caller can take.
    pub expects: Expects,
}

/// One response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The request's id.
    pub id: String,
    /// The request's model name.
    pub model: String,
    /// The version that served it.
    pub version: String,
    /// Output tensors.
    pub outputs: Vec<Tensor>,
    /// Parameters of the response.
    pub parameters: Parameters,
}

/// Responses of a streaming capability, in order. Dropping it cancels the request.
pub type Responses = Pin<Box<dyn Stream<Item = Result<Response, Error>> + Send>>;

/// The answer to one request.
pub enum Reply {
    /// An ordinary capability answers once.
    One(Response),
    /// A streaming capability answers any number of times; the stream's end is the request's end.
    Many(Responses),
}

// === impl Request ===

impl Request {
    /// Bytes of all input tensors.
    pub fn body_len(&self) -> usize {
        self.inputs.iter().map(|tensor| tensor.data.len()).sum()
    }
}

// === impl Reply ===

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(response) => f.debug_tuple("One").field(response).finish(),
            Self::Many(_) => f.write_str("Many(..)"),
        }
    }
}
