//! The calls that are not hot: everything of KServe but inference, health, reflection and what other
//! replicas pull, by generated services.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use anyserve_proto::v1::object_transfer_server::ObjectTransferServer;
use anyserve_proto::v1::replica_server::ReplicaServer;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::health::Health;
use super::meta::Meta;
use super::reflection::Reflection;
use super::replica::Replica;
use super::services::Services;
use super::status;
use super::transfer::Transfer;
use crate::body::Body;
use crate::{ServerConfig, Upstream};

/// A service whose type doesn't matter any more.
pub(super) type Boxed = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// How long such a call may take to begin its answer: its message is small. What then has to be waited for says so.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Services by their names.
pub(crate) struct Generated {
    services: Vec<(&'static str, Boxed)>,
    reflection: Reflection,
    known: Services,
}

/// A call's own word that its message has arrived and that its answer takes its time.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived(Arc<AtomicBool>);

// === impl Arrived ===

impl Arrived {
    pub(super) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Done when time is up and nobody has told.
    async fn missing(self) {
        tokio::time::sleep(TIMEOUT).await;
        if self.0.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

// === impl Generated ===

impl Generated {
    pub(crate) fn new<S: Upstream>(config: &ServerConfig, upstream: S, leaving: &CancellationToken) -> Self {
        let meta = Meta::new(config, upstream.clone(), leaving.clone());
        let inference = GrpcInferenceServiceServer::new(meta)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        let health = HealthServer::new(Health::new(upstream.clone(), leaving.clone()));
        let replica = ReplicaServer::new(Replica::new(upstream, leaving.clone()));
        let mut services = vec![
            ("inference.GRPCInferenceService", boxed(inference)),
            ("grpc.health.v1.Health", boxed(health)),
            ("anyserve.v1.Replica", boxed(replica)),
        ];
        let transfer = config.objects.clone().map(|objects| boxed(ObjectTransferServer::new(Transfer::new(objects))));
        services.extend(transfer.map(|service| ("anyserve.v1.ObjectTransfer", service)));
        let names = services.iter().map(|(name, _)| *name);
        let known = Services::new(names.chain(Reflection::SERVICES));
        Self { services, reflection: Reflection::new(&known, leaving), known }
    }

    /// Answers a call of any of the services; of any other, and of a method that there is not, with `UNSUPPORTED`.
    pub(crate) async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let uri = request.uri().clone();
        let path = uri.path();
        let answer = match self.of(path) {
            _ if Reflection::takes(path) => self.reflection.answer(request).await.map(Body::boxed),
            Some(service) => begun(service.clone(), request).await,
            None => return status::refusal(&self.known.unknown(path)),
        };
        let missed = self.known.missed(answer.headers(), path);
        missed.map_or(answer, |error| status::refusal(&error))
    }

    fn of(&self, path: &str) -> Option<&Boxed> {
        let (name, _) = path.strip_prefix('/')?.split_once('/')?;
        self.services.iter().find(|(own, _)| *own == name).map(|(_, service)| service)
    }
}

/// The answer of a service, if it begins in time.
async fn begun(service: Boxed, mut request: Request<Incoming>) -> Response<Body> {
    let arrived = Arrived::default();
    request.extensions_mut().insert(arrived.clone());
    tokio::select! {
        answer = service.oneshot(request) => answer.unwrap_or_else(|never| match never {}),
        () = arrived.missing() => status::refusal(&Error::new(Code::Deadline, "the request's message did not arrive")),
    }
}

/// Boxes a generated service.
pub(super) fn boxed<T>(service: T) -> Boxed
where
    T: tower::Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response| response.map(Body::boxed)))
}
