//! The body of every answer.

use anyserve_server::BodyError;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};

/// What is written after the headers.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that somebody else drives.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A gRPC response that is nothing but a status.
pub(crate) fn status_only(trailers: &HeaderMap) -> Response<Body> {
    let mut response = grpc(Empty::new());
    response.headers_mut().extend(trailers.clone());
    response
}

/// A gRPC response with this body.
pub(crate) fn grpc<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    let mut response = Response::new(boxed(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
