//! Which part of the API server answers a request: by its path, the hottest path first.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyserve_core::{Code, Error, Limits};
use anyserve_server::Answers;
use anyserve_server::parts::{Budget, failed_http, panicked};
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, boxed, status_only};
use crate::in_flight::InFlight;
use crate::proxy::{self, Ask, Refused};
use crate::replicas::{ReplicaTlsError, Replicas, ReplicasConfig};
use crate::{Fleet, json};

/// What can be set about the API server's ingress, beside its port.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Bounds of what clients and replicas send. Of these `max_message`, `max_rank` and `max_tensors` are used.
    pub limits: Limits,
    /// Bytes of messages in transit, of everybody together, that may be held at the same time. Messages of less than one
    /// HTTP/2 frame are not counted. Beyond it requests are refused with `OVERLOADED`.
    pub max_buffered: usize,
    /// Bytes of one JSON body.
    pub max_json: usize,
    /// Requests that one `ModelStreamInfer` call may have in flight; the client waits beyond that.
    pub max_stream_requests: usize,
    /// Name that `ServerMetadata` tells.
    pub server_id: String,
    /// Version that `ServerMetadata` tells.
    pub version: String,
    /// Connections to replicas.
    pub replicas: ReplicasConfig,
}

/// Everything that requests share.
#[derive(Debug)]
pub struct Gateway {
    /// Who is there, and who gets a request.
    pub(crate) fleet: Arc<Fleet>,
    /// Connections to them.
    pub(crate) replicas: Replicas,
    /// Bounds of messages.
    pub(crate) limits: Limits,
    /// Bytes of one JSON body.
    pub(crate) max_json: usize,
    /// Requests that one stream may have in flight.
    pub(crate) max_stream_requests: usize,
    /// Memory of messages in transit.
    pub(crate) budget: Budget,
    /// Requests on their way.
    pub(crate) in_flight: InFlight,
    /// Cancelled once this server leaves.
    pub(crate) leaving: CancellationToken,
    /// Name and version of this server.
    pub(crate) named: (String, String),
}

// === impl GatewayConfig ===

impl Default for GatewayConfig {
    /// The limits of a replica, 4 GiB of messages in transit, JSON of 64 MiB, 256 requests a stream.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            max_buffered: 4 << 30,
            max_json: 64 << 20,
            max_stream_requests: 256,
            server_id: "anyserve".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replicas: ReplicasConfig::default(),
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// An ingress in front of a fleet. `leaving` is what its [`Server`](anyserve_server::Server) is given, too.
    ///
    /// # Errors
    /// [`ReplicaTlsError`] if there is a file of replicas' authorities that cannot be used.
    pub fn try_new(
        config: &GatewayConfig,
        fleet: Arc<Fleet>,
        leaving: CancellationToken,
    ) -> Result<Arc<Self>, ReplicaTlsError> {
        Ok(Arc::new(Self {
            fleet,
            replicas: Replicas::try_new(&config.replicas)?,
            limits: config.limits,
            max_json: config.max_json,
            max_stream_requests: config.max_stream_requests.max(1),
            budget: Budget::of(config.max_buffered),
            in_flight: InFlight::default(),
            leaving,
            named: (config.server_id.clone(), config.version.clone()),
        }))
    }

    async fn route(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let answer = match request.uri().path() {
            proxy::INFER => self.infer(request).await,
            proxy::STREAM_INFER => self.stream_infer(request),
            path if path.starts_with(proxy::SERVICE) => Box::pin(proxy::questions(self, request)).await,
            path if path.starts_with(proxy::HEALTH) => return Box::pin(proxy::health(self, request)).await,
            json::INFER | json::STREAM => return Box::pin(json::answer(self, request)).await,
            _ => return rest(&request),
        };
        answer.unwrap_or_else(|refused| status_only(&refused.trailers))
    }

    async fn infer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        self.check_open()?;
        proxy::infer(self, Ask::Infer, request).await
    }

    fn stream_infer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        self.check_open()?;
        proxy::stream_infer(self, request)
    }

    /// Refuses a request once this server leaves.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.leaving.is_cancelled() { Err(leaving()) } else { Ok(()) }
    }
}

impl Answers for Gateway {
    type Body = Body;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, _: IpAddr) -> Result<Response<Body>, Infallible> {
        let answer = AssertUnwindSafe(self.route(request)).catch_unwind().await;
        Ok(answer.unwrap_or_else(|panic| status_only(&Refused::from(panicked(&*panic)).trailers)))
    }

    fn in_flight(&self) -> u64 {
        self.in_flight.count()
    }
}

/// Everything else: the registry's services and the pages have their place here.
fn rest(request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let grpc = request.headers().get(http::header::CONTENT_TYPE);
    if grpc.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        let unknown = Error::new(Code::Unsupported, format!("unknown method {path}"));
        return status_only(&Refused::from(unknown).trailers);
    }
    failed_http(&Error::new(Code::NotFound, format!("unknown path {path}"))).map(boxed)
}

/// The error of a request that comes too late.
pub(crate) fn leaving() -> Error {
    Error::new(Code::Draining, "the server is leaving: send further requests elsewhere")
}
