//! What another ingress, such as the API server's, shares with this one, so that both say the same in the same words.

use std::any::Any;

use anyserve_core::{Error, Parameter};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use bytes::Bytes;
use http::{HeaderMap, Response};

pub use crate::body::Chunks;
pub use crate::budget::{Budget, Charge};
pub use crate::grpc::CallHead;
use crate::{grpc, http as rest, route};

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

/// The answer over HTTP to a request that failed: the one form of errors, with the code and when to come back.
pub fn failed_http(error: &Error) -> Response<axum::body::Body> {
    rest::failed(error)
}

/// What becomes of a panic: one line in the log, and an error that tells nothing of the inside.
pub fn panicked(panic: &(dyn Any + Send)) -> Error {
    route::panicked(panic)
}
