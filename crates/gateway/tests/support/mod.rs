//! An API server on a free port, and clients.

#![allow(dead_code, reason = "every test crate uses another part")]
#![allow(clippy::unwrap_used, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyserve_cluster::RegistryConfig;
use anyserve_cluster::policy::LeastWait;
use anyserve_gateway::{Fleet, Gateway, GatewayConfig};
use anyserve_proto::v1::capability_value::Value as Written;
use anyserve_proto::v1::registry_client::RegistryClient;
use anyserve_proto::v1::{CapabilityValue, HeartbeatRequest, Load, Offer, RegisterRequest};
use anyserve_server::{Drained, Listener, Server, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// An API server under test; ends with it.
pub struct Running {
    pub address: SocketAddr,
    pub fleet: Arc<Fleet>,
    config: GatewayConfig,
    server: JoinHandle<Drained>,
}

pub fn start() -> Running {
    start_with(GatewayConfig::default(), RegistryConfig::default())
}

pub fn start_with(config: GatewayConfig, registry: RegistryConfig) -> Running {
    start_of(config, Arc::new(Fleet::new(registry, Box::new(LeastWait))))
}

pub fn start_of(config: GatewayConfig, fleet: Arc<Fleet>) -> Running {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr();
    let gateway = Gateway::try_new(&config, Arc::clone(&fleet)).unwrap();
    let server = Server::of(&ServerConfig::default(), gateway, config.leaving.clone()).unwrap();
    let serving = server.serve(listener, config.leaving.clone());
    let server = tokio::spawn(async move { serving.await.unwrap() });
    Running { address, fleet, config, server }
}

impl Running {
    pub async fn registry(&self) -> RegistryClient<Channel> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        RegistryClient::new(channel)
    }

    /// The answer to one HTTP/1 request, such as `GET /`.
    pub async fn http(&self, request: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let mut lines = vec![format!("{request} HTTP/1.1"), "host: x".into(), "connection: close".into()];
        lines.extend([format!("content-length: {length}"), "content-type: application/json".into()]);
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let request = lines.join("\r\n") + "\r\n\r\n" + body;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        watchdog(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// Status and JSON of the answer to one HTTP/1 request.
    pub async fn json(&self, request: &str, body: &str) -> (u16, Value) {
        let answer = self.http(request, &[], body).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}")))
    }

    pub fn begin_to_leave(&self) {
        self.config.leaving.cancel();
    }

    /// Leaves, and waits for the end.
    pub async fn drained(self) -> Drained {
        self.begin_to_leave();
        watchdog(self.server).await.unwrap()
    }
}

/// Fails the test instead of hanging it.
pub async fn watchdog<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("nothing happened for 30 seconds")
}

/// Waits until a condition holds that nothing tells about.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

pub const READY: Load = Load { ready: true, saturated: false, pending: 0, wait_us: 0, service_us: 1000 };

/// `type=<kind>`, ready.
pub fn offer(kind: &str) -> Offer {
    let capability = [("type".to_owned(), CapabilityValue { value: Some(Written::Text(kind.into())) })].into();
    Offer { capability, idempotent: false, slots: 1, load: Some(READY) }
}

pub fn registration(id: &str, epoch: u64, seq: u64, kinds: &[&str]) -> RegisterRequest {
    let (id, endpoint) = (id.to_owned(), format!("http://{id}:8000"));
    RegisterRequest {
        id,
        epoch,
        seq,
        endpoint,
        draining: false,
        offers: kinds.iter().map(|kind| offer(kind)).collect(),
        upgrades: Vec::new(),
    }
}

pub fn beat(id: &str, seq: u64, registered: u64, loads: usize) -> HeartbeatRequest {
    HeartbeatRequest { id: id.to_owned(), epoch: 1, seq, registered, draining: false, loads: vec![READY; loads] }
}
