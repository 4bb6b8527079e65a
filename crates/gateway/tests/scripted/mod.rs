//! An API server on a free port, replicas that do what tests want, and a client that knows nothing of gRPC.

#![allow(dead_code, reason = "every test crate uses another part")]
#![allow(clippy::unwrap_used)]

pub(crate) mod peer;
pub(crate) mod raw;
pub(crate) mod replica;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyserve_cluster::policy::{Policy, RoundRobin};
use anyserve_cluster::{Announce, Load, Offer, RegistryConfig};
use anyserve_core::{Capability, Upgrades, Value};
use anyserve_gateway::{Fleet, Gateway, GatewayConfig, ProxyConfig};
use anyserve_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use anyserve_proto::inference::model_infer_request::InferInputTensor;
use anyserve_proto::inference::{InferParameter, ModelInferRequest, infer_parameter::ParameterChoice};
use anyserve_server::{Drained, Listener, Server, ServerConfig};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub(crate) use replica::{Call, Replica, Reply};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

pub(crate) const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
pub(crate) const STREAM: &str = "inference.GRPCInferenceService/ModelStreamInfer";

/// An API server under test; ends with it.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) fleet: Arc<Fleet>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
    server: JoinHandle<Drained>,
}

pub(crate) fn start() -> World {
    start_with(&ProxyConfig::default(), Box::new(RoundRobin))
}

pub(crate) fn start_with(config: &ProxyConfig, policy: Box<dyn Policy>) -> World {
    // Nobody says here again that he is there.
    let registry = RegistryConfig { lease: Duration::from_hours(1), ..RegistryConfig::default() };
    let fleet = Arc::new(Fleet::new(registry, policy));
    let (leaving, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let config = GatewayConfig { proxy: config.clone(), leaving: leaving.clone(), ..GatewayConfig::default() };
    let gateway = Gateway::try_new(&config, Arc::clone(&fleet)).unwrap();
    let server = Server::of(&ServerConfig::default(), Arc::clone(&gateway), leaving).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (address, until) = (listener.local_addr(), shutdown.clone());
    let server = tokio::spawn(async move { server.serve(listener, until).await.unwrap() });
    World { address, fleet, gateway, shutdown, server }
}

impl World {
    /// Registers somebody who takes requests there for these capabilities.
    pub(crate) fn register(&self, id: &str, endpoint: &str, capabilities: &[&str], idempotent: bool) {
        let load = Load { ready: true, ..Load::default() };
        let offer = |text: &&str| Offer { capability: capability(text), idempotent, slots: 8, load };
        let announce = Announce {
            id: id.to_owned(),
            epoch: 1,
            seq: 1,
            endpoint: endpoint.to_owned(),
            draining: false,
            offers: capabilities.iter().map(offer).collect(),
            upgrades: Upgrades::default(),
        };
        self.fleet.with(|registry, now| registry.announce(&announce, now).unwrap());
    }

    /// Starts a replica that serves these capabilities.
    pub(crate) async fn replica<F, R>(&self, id: &str, capabilities: &[&str], serve: F) -> Replica
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let replica = Replica::start(serve).await;
        self.register(id, &replica.endpoint(), capabilities, false);
        replica
    }

    pub(crate) async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(1 << 30)
    }

    pub(crate) fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.gateway)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        anyserve_server::Answers::in_flight(&*self.gateway)
    }

    pub(crate) fn begin_to_leave(&self) {
        self.shutdown.cancel();
    }

    /// Begins to leave if it has not, and waits for the end.
    pub(crate) async fn drained(self) -> Drained {
        self.shutdown.cancel();
        watchdog(self.server).await.unwrap()
    }
}

/// What echoes a call once the gate has a permit for it.
pub(crate) fn gated() -> (Arc<Semaphore>, impl Fn(Call) -> BoxFuture<'static, Reply>) {
    gated_with(|call| call.echo())
}

/// The same with another answer.
pub(crate) fn gated_with(
    answer: impl Fn(Call) -> Reply + Copy + Send + 'static,
) -> (Arc<Semaphore>, impl Fn(Call) -> BoxFuture<'static, Reply>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let serve = move |call: Call| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            answer(call)
        }
        .boxed()
    };
    (opened, serve)
}

/// `a=b,c=d`, all texts.
pub(crate) fn capability(text: &str) -> Capability {
    let pairs = text.split(',').map(|pair| pair.split_once('=').unwrap());
    Capability::try_new(pairs.map(|(key, value)| (key.to_owned(), Value::Text(value.to_owned())))).unwrap()
}

/// Fails the test instead of hanging it.
pub(crate) async fn watchdog<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("nothing happened for 30 seconds")
}

/// Waits until a condition holds that nothing tells about.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    watchdog(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A request with one FP32 input "x" of these raw bytes.
pub(crate) fn request(model: &str, data: impl Into<Bytes>) -> ModelInferRequest {
    let data = data.into();
    let shape = vec![i64::try_from(data.len() / 4).unwrap()];
    let input = InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape, ..Default::default() };
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![input],
        raw_input_contents: vec![data],
        ..Default::default()
    }
}

/// The request with an id.
pub(crate) fn with_id(id: &str, request: ModelInferRequest) -> ModelInferRequest {
    ModelInferRequest { id: id.into(), ..request }
}

/// The request with a parameter.
pub(crate) fn with(name: &str, value: ParameterChoice, mut request: ModelInferRequest) -> ModelInferRequest {
    request.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
    request
}
