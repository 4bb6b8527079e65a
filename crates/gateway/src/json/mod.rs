//! Inference over plain HTTP, in JSON: `POST /infer`, and `POST /infer/stream` with server-sent events.
//!
//! ```text
//! {"model": "…" | "capability": {"type": "chat"} | "capability": "type=chat,size>=7",
//!  "id": "…", "model_version": "…", "parameters": {…},
//!  "inputs": [{"name", "shape", "datatype", "data"}] | {"text": ["hello"], "x": [[1.0, 2.0]]},
//!  "outputs": [{"name"}]}
//! ```
//!
//! What is asked for comes from headers `X-Capability-<key>`, from `capability`, or from `model`; the first that is there.
//! `X-Timeout-S` says in seconds how long the caller waits. A request becomes the `ModelInferRequest` that a gRPC client
//! would have sent, and goes the same way. Numbers that JSON has not are texts: "NaN", "Infinity", "-Infinity". An input
//! without a datatype has the one that the model declares, or else the one that its elements suggest.
//!
//! Source: KServe v2 inference protocol, "HTTP/REST", for the long form and for answers.

mod body;
mod elements;
mod events;
mod infer;
mod paid;
mod request;
mod response;
mod signatures;

use std::sync::Arc;

use anyserve_core::{Code, Error};
use anyserve_server::parts::http::failed as failed_http;
use http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::{Body, boxed};
use crate::proxy::Proxy;
use crate::proxy::{Refused, copy_trail};

pub(crate) use signatures::Signatures;

/// One request, one answer.
pub(crate) const INFER: &str = "/infer";
/// One request, any number of answers.
pub(crate) const STREAM: &str = "/infer/stream";

const JSON: &str = "application/json";

/// A request that has no answer.
enum Failure {
    /// It is longer than it may be.
    TooLarge(Error),
    Refused(Refused),
}

/// Answers one of the two paths.
pub(crate) async fn answer(proxy: &Arc<Proxy>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return not_allowed(&request);
    }
    let answer = match request.uri().path() {
        INFER => infer::infer(proxy, request).await,
        _ => infer::stream(proxy, request).await,
    };
    answer.unwrap_or_else(Failure::answer)
}

fn not_allowed(request: &Request<Incoming>) -> Response<Body> {
    let message = format!("{} is not allowed on {}: use POST", request.method(), request.uri().path());
    let mut response = failed_http(&Error::new(Code::Unsupported, message)).map(boxed);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// Refuses a request that a web page may have made without being asked whether it may: browsers ask before they send JSON
/// elsewhere, and nobody here says yes.
fn check_origin(headers: &HeaderMap) -> Result<(), Error> {
    let json = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(JSON.as_bytes()));
    if json || !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let message =
        "a request with an Origin header is from a web page, which has to send Content-Type: application/json";
    Err(Error::new(Code::Forbidden, message))
}

// === impl Failure ===

impl Failure {
    fn answer(self) -> Response<Body> {
        match self {
            Self::TooLarge(error) => {
                let mut response = failed_http(&error).map(boxed);
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                response
            }
            Self::Refused(refused) => {
                let mut response = failed_http(&refused.error).map(boxed);
                copy_trail(&refused.trailers, response.headers_mut());
                response
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
