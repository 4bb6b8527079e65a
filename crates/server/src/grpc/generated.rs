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
use super::replica::Replica;
use super::transfer::Transfer;
use super::{reflection, status};
use crate::body::Body;
use crate::{ServerConfig, Upstream};

/// A service whose type doesn't matter any more.
pub(super) type Boxed = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// How long such a call may take to begin its answer: its message is small. What then has to be waited for says so.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Services by the prefix of their paths.
pub(crate) struct Generated {
    services: Vec<(&'static str, Boxed)>,
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
            ("/inference.GRPCInferenceService/", boxed(inference)),
            ("/grpc.health.v1.Health/", boxed(health)),
            ("/anyserve.v1.Replica/", boxed(replica)),
        ];
        services.extend(reflection::services(leaving));
        let transfer = config.objects.clone().map(|objects| boxed(ObjectTransferServer::new(Transfer::new(objects))));
        services.extend(transfer.map(|service| ("/anyserve.v1.ObjectTransfer/", service)));
        Self { services }
    }

    /// Answers a call of any of the services; of any other, with UNIMPLEMENTED.
    pub(crate) async fn call(&self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let Some((_, service)) = self.services.iter().find(|(prefix, _)| path.starts_with(prefix)) else {
            return status::unimplemented(path);
        };
        let arrived = Arrived::default();
        request.extensions_mut().insert(arrived.clone());
        tokio::select! {
            answer = service.clone().oneshot(request) => answer.unwrap_or_else(|never| match never {}),
            () = arrived.missing() => {
                status::refusal(&Error::new(Code::Deadline, "the request's message did not arrive"))
            }
        }
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
