//! Server reflection, in both versions that tools ask for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyserve_core::{Code, Error};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::generated::Boxed;
use super::status;
use crate::body::{Body, BodyError};

/// The reflection services with the prefixes of their paths.
pub(super) fn services(leaving: &CancellationToken) -> [(&'static str, Boxed); 2] {
    let v1 = builder().build_v1().expect("our own descriptors are valid");
    let v1alpha = builder().build_v1alpha().expect("our own descriptors are valid");
    [
        ("/grpc.reflection.v1.ServerReflection/", boxed(v1, leaving)),
        ("/grpc.reflection.v1alpha.ServerReflection/", boxed(v1alpha, leaving)),
    ]
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(anyserve_proto::inference::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn boxed<T>(service: T, leaving: &CancellationToken) -> Boxed
where
    T: tower::Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let leaving = leaving.clone();
    let until = move |response: Response<tonic::body::Body>| {
        let leaving = Some(Box::pin(leaving.clone().cancelled_owned()));
        response.map(|body| Body::boxed(Until { body, leaving }))
    };
    BoxCloneSyncService::new(service.map_response(until))
}

/// A body that ends when the server leaves: a tool that keeps its stream open must not hold up the drain.
struct Until {
    body: tonic::body::Body,
    /// `None` once the body has ended for that reason.
    leaving: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(leaving) = &mut this.leaving else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if leaving.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.leaving = None;
        let error = Error::new(Code::Draining, "the server is leaving");
        Poll::Ready(Some(Ok(Frame::trailers(status::failed(&error)))))
    }
}
