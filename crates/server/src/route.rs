//! Which part of the ingress answers a request: by its path, the hottest path first.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Catalog, Error, Limits, Status};
use anyserve_shm::Regions;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::accept::Answers;
use crate::body::Body;
use crate::budget::Budget;
use crate::guard::Peer;
use crate::metrics::{Call, Metrics};
use crate::pulse::Pulse;
use crate::rooms::Rooms;
use crate::{AdminToken, CertificateDates, ServerConfig, Upstream, grpc, http as rest};

const SERVICE: &str = "/inference.GRPCInferenceService/";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Everything that requests share.
pub struct App<S> {
    /// Who answers.
    pub(crate) upstream: S,
    /// Bounds of requests.
    pub(crate) limits: Limits,
    /// Requests that one stream may have in flight.
    pub(crate) max_stream_requests: usize,
    /// Memory of request messages, and of their large tensors.
    pub(crate) budget: Budget,
    /// Memory that clients share, if they may.
    pub(crate) regions: Option<Arc<Regions>>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// When certificates expire.
    pub(crate) certificates: CertificateDates,
    /// Cancelled once this server leaves.
    pub(crate) leaving: CancellationToken,
    /// Who knows it may administrate.
    pub(crate) admin_token: Option<AdminToken>,
    /// Who watches the status.
    pub(crate) pulse: Pulse,
    generated: grpc::Generated,
    http: axum::Router,
}

// === impl App ===

impl<S: Upstream> App<S> {
    pub(crate) fn new(config: &ServerConfig, upstream: S, rooms: Rooms, leaving: &CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|app| Self {
            upstream: upstream.clone(),
            limits: config.limits,
            max_stream_requests: config.max_stream_requests.max(1),
            budget: Budget::new(config.max_buffered, rooms),
            regions: config.regions.clone(),
            metrics: Metrics::new(),
            certificates: config.certificates.clone(),
            leaving: leaving.clone(),
            admin_token: config.admin_token.clone(),
            pulse: Pulse::new(),
            generated: grpc::Generated::new(config, upstream, leaving),
            http: rest::router(app),
        })
    }

    /// Begins to count a request for `model`.
    pub(crate) fn begin(&self, model: &str, arrived: Instant) -> Call {
        self.metrics.begin(model, arrived, || self.upstream.catalog())
    }

    /// Whether the replica has begun to leave.
    pub(crate) fn draining(&self, catalog: &Catalog) -> bool {
        catalog.draining || self.leaving.is_cancelled()
    }

    /// The inside of the replica now. Answers that are still being written are in flight, too: a stop would cut them off.
    pub(crate) fn status(&self) -> Status {
        let (status, unsent) = (self.upstream.status(), self.metrics.in_flight());
        Status {
            draining: status.draining || self.leaving.is_cancelled(),
            in_flight: status.in_flight.max(unsent),
            safe_to_stop: status.safe_to_stop && unsent == 0,
            ..status
        }
    }

    async fn route(self: &Arc<Self>, mut request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        match request.uri().path() {
            INFER => grpc::infer(self, request).await,
            STREAM_INFER => grpc::stream_infer(self, request),
            path if path.starts_with(SERVICE) || is_grpc(&request) => {
                request.extensions_mut().insert(Peer(peer));
                Box::pin(self.generated.call(request)).await
            }
            _ => Box::pin(self.http(request, peer)).await,
        }
    }

    fn http(&self, mut request: Request<Incoming>, peer: IpAddr) -> impl Future<Output = Response<Body>> + use<S> {
        let router = self.http.clone();
        request.extensions_mut().insert(Peer(peer));
        async move {
            let answer = tower::ServiceExt::oneshot(router, request.map(axum::body::Body::new));
            let answer = AssertUnwindSafe(answer)
                .catch_unwind()
                .await
                .map(|answer| answer.unwrap_or_else(|never| match never {}));
            answer.unwrap_or_else(|panic| rest::failed(&panicked(&*panic))).map(Body::boxed)
        }
    }
}

impl<S: Upstream> Answers for App<S> {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Result<Response<Body>, Infallible> {
        let answer = AssertUnwindSafe(self.route(request, peer)).catch_unwind().await;
        Ok(answer.unwrap_or_else(|panic| grpc::refusal(&panicked(&*panic))))
    }

    fn in_flight(&self) -> u64 {
        self.metrics.in_flight()
    }

    fn give_up(&self) {
        self.upstream.give_up();
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What becomes of a panic: one line in the log, and an error that tells nothing of the inside.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    tracing::error!(panic = text, "a request panicked");
    Error::internal("the server failed on this request")
}
