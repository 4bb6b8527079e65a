//! Server reflection, in both versions that tools ask for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyserve_proto::{inference, v1};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic_reflection::pb as reflected;
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::services::Services;

type Service = BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, Infallible>;

const V1: &str = "grpc.reflection.v1.ServerReflection";
const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// What a port tells of its services, over the two services of reflection.
#[derive(Clone, Debug)]
pub struct Reflection {
    v1: Service,
    v1alpha: Service,
}

// === impl Reflection ===

impl Reflection {
    /// The two services themselves, which are told too.
    pub const SERVICES: [&'static str; 2] = [V1, V1ALPHA];

    /// Tells of these services; each is one of KServe's, of AnyServe's own, of health or of reflection. Calls end when
    /// the server leaves, so that a tool which keeps its stream open does not hold up the drain.
    pub fn new(services: &Services, leaving: &CancellationToken) -> Self {
        let v1 = builder(services).build_v1().expect("our own descriptors are valid");
        let v1alpha = builder(services).build_v1alpha().expect("our own descriptors are valid");
        Self { v1: until(v1, leaving.clone()), v1alpha: until(v1alpha, leaving.clone()) }
    }

    /// Whether a call on this path is one of reflection.
    pub fn takes(path: &str) -> bool {
        service_of(path).is_some_and(|name| Self::SERVICES.contains(&name))
    }

    /// Answers a call on such a path.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<tonic::body::Body> {
        let service = if service_of(request.uri().path()) == Some(V1) { &self.v1 } else { &self.v1alpha };
        service.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

fn service_of(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(service, _)| service)
}

fn builder(services: &Services) -> Builder<'static> {
    let builder = Builder::configure()
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(inference::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(reflected::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(reflected::v1alpha::FILE_DESCRIPTOR_SET);
    services.names().fold(builder, Builder::with_service_name)
}

fn until<T>(service: T, leaving: CancellationToken) -> Service
where
    T: tower::Service<Request<Until>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    BoxCloneSyncService::new(service.map_request(move |request: Request<Incoming>| {
        request.map(|body| Until { body, leaving: Box::pin(leaving.clone().cancelled_owned()) })
    }))
}

/// The body of a request that ends when the server leaves.
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
