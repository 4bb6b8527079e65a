//! Which part of the data path answers a request: by its path, the hottest path first.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyserve_core::{Code, Error, Limits};
use anyserve_server::parts::{Budget, Services, failed, panicked};
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::{Ask, ProxyConfig, Refused};
use super::{HEALTH, INFER, SERVICE, STREAM_INFER, health, infer, questions, stream_infer};
use crate::body::{Body, status_only};
use crate::in_flight::InFlight;
use crate::json::Signatures;
use crate::replicas::{ReplicaTlsError, Replicas};
use crate::{Fleet, json};

/// Everything that requests on their way to replicas share.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
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
    /// What is known of models' inputs, for requests in JSON.
    pub(crate) signatures: Arc<Signatures>,
    /// Requests on their way.
    pub(crate) in_flight: InFlight,
    /// Cancelled once this server leaves.
    pub(crate) leaving: CancellationToken,
    /// Name and version of this server.
    pub(crate) named: (String, String),
    /// The services of this server's port.
    services: Services,
}

// === impl Proxy ===

impl Proxy {
    /// The way to a fleet.
    ///
    /// # Errors
    /// [`ReplicaTlsError`] if TLS to replicas cannot be set up as it is wanted.
    pub(crate) fn try_new(
        config: &ProxyConfig,
        fleet: Arc<Fleet>,
        services: Services,
        leaving: CancellationToken,
    ) -> Result<Arc<Self>, ReplicaTlsError> {
        Ok(Arc::new(Self {
            fleet,
            replicas: Replicas::try_new(&config.replicas)?,
            limits: config.limits,
            max_json: config.max_json,
            max_stream_requests: config.max_stream_requests.max(1),
            budget: Budget::of(config.max_buffered),
            signatures: Arc::default(),
            in_flight: InFlight::default(),
            leaving,
            named: (config.server_id.clone(), config.version.clone()),
            services,
        }))
    }

    /// The same way with connections of its own, for another thread.
    pub(crate) fn beside(&self) -> Arc<Self> {
        Arc::new(Self { replicas: self.replicas.beside(), ..self.clone() })
    }

    /// Whether requests on this path are answered here.
    pub(crate) fn takes(path: &str) -> bool {
        path.starts_with(SERVICE) || path.starts_with(HEALTH) || path == json::INFER || path == json::STREAM
    }

    /// Answers a request on one of the paths that it takes.
    pub(crate) async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let answer = AssertUnwindSafe(self.route(request)).catch_unwind().await;
        answer.unwrap_or_else(|panic| status_only(&Refused::from(panicked(&*panic)).trailers))
    }

    /// Requests whose answers are not written yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.count()
    }

    async fn route(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let answer = match request.uri().path() {
            INFER => self.infer(request).await,
            STREAM_INFER => self.stream_infer(request),
            json::INFER | json::STREAM => return Box::pin(json::answer(self, request)).await,
            _ => Box::pin(self.asked(request)).await,
        };
        answer.unwrap_or_else(|refused| status_only(&refused.trailers))
    }

    /// Answers a call of any other method of KServe's or of health. One that there is not is told with those there are.
    async fn asked(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let uri = request.uri().clone();
        let answer =
            if uri.path().starts_with(HEALTH) { health(self, request).await } else { questions(self, request).await? };
        let missed = self.services.missed(answer.headers(), uri.path());
        Ok(missed.map_or(answer, |error| status_only(&failed(&error))))
    }

    async fn infer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        self.check_open()?;
        infer(self, Ask::Infer, request).await
    }

    fn stream_infer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        self.check_open()?;
        stream_infer(self, request)
    }

    /// Refuses a request once this server leaves.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.leaving.is_cancelled() { Err(leaving()) } else { Ok(()) }
    }
}

/// The error of a request that comes too late.
pub(crate) fn leaving() -> Error {
    Error::new(Code::Draining, "the server is leaving: send further requests elsewhere")
}
