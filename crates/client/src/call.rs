//! What a caller asks for.

use std::time::Duration;

use anyserve_core::{Capability, Parameters, Tensor};

/// One inference, to be sent as often as wanted: tensors are shared, not copied.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Model name; with `capability` it is only what the response echoes.
    pub model: String,
    /// Version of the model; empty leaves the choice to the server.
    pub version: String,
    /// Comes back in the response; empty is none.
    pub id: String,
    /// The keys and values that the serving capability must have. They win over `model`.
    pub capability: Option<Capability>,
    /// Input tensors: shape, datatype and bytes agree.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs that are wanted; empty is all.
    pub outputs: Vec<String>,
    /// Parameters of the request.
    pub parameters: Parameters,
    /// Metadata to send along; names are lower-cased.
    pub headers: Vec<(String, String)>,
    /// How long the caller waits, for a stream until its last response. The server is told.
    pub timeout: Option<Duration>,
}
