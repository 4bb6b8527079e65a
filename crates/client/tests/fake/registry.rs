//! An API server that names the replicas it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyserve_proto::v1::registry_server::{Registry, RegistryServer};
use anyserve_proto::v1::*;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::alone::Alone;

/// A running API server. Dropping it ends it and every connection.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    server: Alone,
}

#[derive(Default)]
struct Script {
    /// Id, endpoint and lease of replicas, the best first.
    replicas: Vec<(String, String, u64)>,
    asked: Vec<ResolveRequest>,
    hangs: bool,
}

struct Service(Arc<Mutex<Script>>);

// === impl Names ===

impl Names {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    #[allow(clippy::unused_async, reason = "it is awaited like any other start")]
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let service = RegistryServer::new(Service(Arc::clone(&script)));
        let server = Alone::run(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, script, server }
    }

    /// Has one more replica to name.
    pub(crate) fn add(&self, id: &str, address: &SocketAddr, lease_ms: u64) {
        self.script.lock().unwrap().replicas.push((id.into(), format!("http://{address}"), lease_ms));
    }

    /// Does not answer any more.
    pub(crate) fn hang(&self) {
        self.script.lock().unwrap().hangs = true;
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<ResolveRequest> {
        self.script.lock().unwrap().asked.clone()
    }

    /// Ends it with every connection.
    pub(crate) async fn end(self) {
        self.server.end().await;
    }
}

#[tonic::async_trait]
impl Registry for Service {
    type HeartbeatStream = tokio_stream::Empty<Result<HeartbeatResponse, Status>>;

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let asked = request.into_inner();
        let (named, hangs) = {
            let mut script = self.0.lock().unwrap();
            script.asked.push(asked.clone());
            let named = script.replicas.iter().find(|(id, ..)| !asked.avoid.contains(id)).cloned();
            (named, script.hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let (replica_id, endpoint, lease_ms) = named.ok_or_else(|| Status::not_found("nobody serves it"))?;
        Ok(Response::new(ResolveResponse { replica_id, epoch: 1, endpoint, lease_ms, ..Default::default() }))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("no test calls it"))
    }

    async fn heartbeat(
        &self,
        _: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Err(Status::unimplemented("no test calls it"))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        Err(Status::unimplemented("no test calls it"))
    }
}
