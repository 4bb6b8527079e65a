//! What another ingress, such as the API server's, shares with this one, so that both say the same in the same words.
//!
//! ```text
//! calls    CallHead, Budget: how the head of a call is read, and what its bytes cost
//!          succeeded, failed, status_of, stream_error: how its end is told
//! methods  Services, Reflection: which services a port has, and what it says of others
//! guard    Peer, check_cluster: who may say what
//! http     answers and errors of plain HTTP
//! pages    style, files, events and metrics of what operators see
//! ```
//!
//! All of it says; nothing of it decides who gets a request.

use std::any::Any;

use ::http::HeaderMap;
use anyserve_core::{Error, Parameter};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use bytes::Bytes;

pub use crate::body::Chunks;
pub use crate::budget::{Budget, Charge};
pub use crate::grpc::{CallHead, Reflection, Services, status_of};
pub use crate::guard::{Peer, check_cluster};
use crate::{grpc, route};

/// Plain HTTP: JSON, and the one form of errors.
pub mod http {
    pub use crate::http::{answer, error, failed, not_allowed, unknown};
}

/// What operators see of a port.
pub mod pages {
    pub use crate::http::page::{STYLE, file};
    pub use crate::metrics::encode;
    pub use crate::pulse::Pulse;
}

/// The trailers of a call that ended well.
pub fn succeeded() -> HeaderMap {
    grpc::succeeded()
}

/// The trailers of a call that failed: `grpc-status` and what goes with it.
pub fn failed(error: &Error) -> HeaderMap {
    grpc::failed(error)
}

/// The value of a parameter.
pub fn parameter(choice: ParameterChoice) -> Parameter {
    grpc::from_choice(choice)
}

/// The message that tells of a failed request inside a `ModelStreamInfer` call, framed.
pub fn stream_error(error: &Error, id: &str) -> Bytes {
    grpc::stream_error(error, id)
}

/// What becomes of a panic: one line in the log, and an error that tells nothing of the inside.
pub fn panicked(panic: &(dyn Any + Send)) -> Error {
    route::panicked(panic)
}
