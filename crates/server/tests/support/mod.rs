//! A replica without workers, a server in front of it on a free port, and clients.

#![allow(dead_code, reason = "every test crate uses another part")]
#![allow(clippy::unwrap_used)]

mod fake;
mod operated;
pub(crate) mod raw;
pub(crate) mod shelf;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyserve_core::TensorMemory;
use anyserve_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use anyserve_proto::inference::model_infer_request::InferInputTensor;
use anyserve_proto::inference::{InferParameter, ModelInferRequest, infer_parameter::ParameterChoice};
use anyserve_server::{Drained, Listener, Server, ServerConfig};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub(crate) use fake::Fake;

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// A server under test; ends with it.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) fake: Fake,
    shutdown: CancellationToken,
    server: JoinHandle<Drained>,
}

pub(crate) async fn start() -> Running {
    start_with(ServerConfig::default()).await
}

pub(crate) async fn start_with(config: ServerConfig) -> Running {
    start_with_memory(config, None).await
}

#[allow(clippy::unused_async, reason = "it needs the runtime of the test")]
pub(crate) async fn start_with_memory(config: ServerConfig, memory: Option<Arc<dyn TensorMemory>>) -> Running {
    let fake = Fake::new(config.regions.clone());
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (address, shutdown) = (listener.local_addr(), CancellationToken::new());
    let server = Server::with_memory(&config, fake.clone(), memory).unwrap();
    let serving = server.serve(listener, shutdown.clone());
    let server = tokio::spawn(async move { serving.await.unwrap() });
    Running { address, fake, shutdown, server }
}

impl Running {
    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let client = GrpcInferenceServiceClient::new(self.channel().await);
        client.max_decoding_message_size(1 << 30).max_encoding_message_size(1 << 30)
    }

    /// The answer to one HTTP/1 request, such as `GET /`.
    pub(crate) async fn http(&self, request: &str, headers: &[(&str, &str)]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut lines = vec![format!("{request} HTTP/1.1"), "host: x".into(), "connection: close".into()];
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let request = lines.join("\r\n") + "\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        watchdog(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    /// Status and JSON of the answer to one HTTP/1 request.
    pub(crate) async fn json(&self, request: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let answer = self.http(request, headers).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    /// How many fingerprints are quarantined.
    pub(crate) fn fake_quarantined(&self) -> usize {
        anyserve_core::Directory::quarantined(&self.fake).len()
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
