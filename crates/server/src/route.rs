//! Which part of the ingress answers a request: by its path, the hottest path first.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Error, Limits};
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::budget::Budget;
use crate::metrics::{Call, Metrics};
use crate::{ServerConfig, Upstream, grpc, http as rest};

const SERVICE: &str = "/inference.GRPCInferenceService/";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Everything that requests share.
pub(crate) struct App<S> {
    /// Who answers.
    pub(crate) upstream: S,
    /// Bounds of requests.
    pub(crate) limits: Limits,
    /// Requests that one stream may have in flight.
    pub(crate) max_stream_requests: usize,
    /// Memory of request messages.
    pub(crate) budget: Budget,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Cancelled once this server leaves.
    pub(crate) leaving: CancellationToken,
    generated: grpc::Generated,
    http: axum::Router,
}

// === impl App ===

impl<S: Upstream> App<S> {
    pub(crate) fn new(config: &ServerConfig, upstream: S, leaving: &CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|app| Self {
            upstream: upstream.clone(),
            limits: config.limits,
            max_stream_requests: config.max_stream_requests.max(1),
            budget: Budget::new(config.max_buffered),
            metrics: Metrics::new(),
            leaving: leaving.clone(),
            generated: grpc::Generated::new(config, upstream, leaving),
            http: rest::router(app.clone()),
        })
    }

    /// Answers one request. It never fails: a panic is an answer, too.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let answer = AssertUnwindSafe(self.route(request)).catch_unwind().await;
        Ok(answer.unwrap_or_else(|panic| grpc::refusal(&panicked(&*panic))))
    }

    /// Begins to count a request for `model`.
    pub(crate) fn begin(&self, model: &str, arrived: Instant) -> Call {
        self.metrics.begin(model, arrived, || self.upstream.catalog())
    }

    /// Whether requests should come here.
    pub(crate) fn ready(&self) -> bool {
        !self.leaving.is_cancelled() && self.upstream.catalog().ready()
    }

    async fn route(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            INFER => grpc::infer(self, request).await,
            STREAM_INFER => grpc::stream_infer(self, request),
            path if path.starts_with(SERVICE) || is_grpc(&request) => Box::pin(self.generated.call(request)).await,
            _ => Box::pin(self.http(request)).await,
        }
    }

    fn http(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + use<S> {
        let router = self.http.clone();
        async move {
            let answer = tower::ServiceExt::oneshot(router, request.map(axum::body::Body::new)).await;
            answer.unwrap_or_else(|never| match never {}).map(Body::boxed)
        }
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
