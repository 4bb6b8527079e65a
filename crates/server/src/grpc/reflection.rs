//! Server reflection, in both versions that tools ask for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic_reflection::server::Builder;
use tower::ServiceExt;

use super::generated::{Boxed, boxed};

/// The reflection services with the prefixes of their paths.
pub(super) fn services(leaving: &CancellationToken) -> [(&'static str, Boxed); 2] {
    let v1 = builder().build_v1().expect("our own descriptors are valid");
    let v1alpha = builder().build_v1alpha().expect("our own descriptors are valid");
    [
        ("/grpc.reflection.v1.ServerReflection/", until(v1, leaving.clone())),
        ("/grpc.reflection.v1alpha.ServerReflection/", until(v1alpha, leaving.clone())),
    ]
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(anyserve_proto::inference::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn until<T>(service: T, leaving: CancellationToken) -> Boxed
where
    T: tower::Service<Request<Until>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    boxed(service.map_request(move |request: Request<Incoming>| {
        request.map(|body| Until { body, leaving: Box::pin(leaving.clone().cancelled_owned()) })
    }))
}

/// The body of a request that ends when the server leaves: a tool that keeps its stream open must not hold up the
/// drain.
struct Until {
    body: Incoming,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.leaving.as_mut().poll(cx).map(|()| None)
    }
}
