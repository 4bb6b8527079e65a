//! A server that does what the model's name says.

#![allow(dead_code, reason = "every test crate uses another part")]
#![allow(clippy::unwrap_used)] // A test that cannot be set up fails here, by its line.

mod alone;
pub(crate) mod registry;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::alone::Alone;
use anyserve_client::{Call, Client, Tls};
use anyserve_core::{Datatype, Error, Response as Answer, Tensor};
use anyserve_proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use anyserve_proto::inference::model_metadata_response::TensorMetadata;
use anyserve_proto::inference::*;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

/// Longer than anything takes that works.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(20);

/// A running server. Dropping it ends it and every connection.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) started: UnboundedReceiver<()>,
    pub(crate) cancelled: UnboundedReceiver<()>,
    said: Arc<Mutex<Said>>,
    server: Alone,
}

/// What every request is told, and how often.
#[derive(Default)]
struct Said {
    refusal: Option<anyserve_core::Code>,
    requests: usize,
}

struct Service {
    started: UnboundedSender<()>,
    cancelled: UnboundedSender<()>,
    said: Arc<Mutex<Said>>,
}

/// Tells that the call it belongs to was dropped.
struct Witness(UnboundedSender<()>);

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

// === impl Fake ===

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None).await
    }

    #[allow(clippy::unused_async, reason = "it is awaited like any other start")]
    pub(crate) async fn start_at(address: SocketAddr, tls: Option<ServerTlsConfig>) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (started_sender, started) = unbounded_channel();
        let (cancelled_sender, cancelled) = unbounded_channel();
        let said = Arc::<Mutex<Said>>::default();
        let service = Service { started: started_sender, cancelled: cancelled_sender, said: Arc::clone(&said) };
        let service = GrpcInferenceServiceServer::new(service).max_decoding_message_size(1 << 30);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let server = Alone::run(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            server.add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, started, cancelled, said, server }
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.address.to_string())
    }

    /// Refuses every request from now on.
    pub(crate) fn refuse(&self, code: anyserve_core::Code) {
        self.said.lock().unwrap().refusal = Some(code);
    }

    /// Requests that came so far.
    pub(crate) fn requests(&self) -> usize {
        self.said.lock().unwrap().requests
    }

    /// Ends it with every connection.
    pub(crate) async fn end(self) {
        self.server.end().await;
    }

    /// Waits until the server saw a call go away.
    pub(crate) async fn saw_a_cancel(&mut self) {
        within(self.cancelled.recv()).await.unwrap();
    }
}

pub(crate) fn client(endpoint: &str) -> Client {
    Client::try_new(endpoint.parse().unwrap(), &Tls::default()).unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WATCHDOG, future).await.expect("it hangs")
}

pub(crate) fn call(model: &str) -> Call {
    Call { model: model.into(), id: "7".into(), inputs: vec![tensor(b"12345678")], ..Call::default() }
}

pub(crate) fn tensor(data: &'static [u8]) -> Tensor {
    let shape = vec![i64::try_from(data.len() / 4).unwrap()];
    Tensor { name: "x".into(), datatype: Datatype::Fp32, shape, data: data.into(), parameters: vec![] }
}

pub(crate) async fn collect(client: &Client, call: &Call) -> Vec<Result<Answer, Error>> {
    within(client.stream(call).unwrap().collect()).await
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// The inputs as outputs.
fn echo(request: ModelInferRequest) -> ModelInferResponse {
    let output = |input: model_infer_request::InferInputTensor| InferOutputTensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        parameters: input.parameters,
        contents: None,
    };
    ModelInferResponse {
        model_name: request.model_name,
        model_version: "1".into(),
        id: request.id,
        parameters: request.parameters,
        outputs: request.inputs.into_iter().map(output).collect(),
        raw_output_contents: request.raw_input_contents,
    }
}

/// A failure with the code that the request's id names.
fn named_failure(id: &str) -> Status {
    let code = anyserve_core::Code::from_name(id).unwrap();
    let mut status = Status::new(Code::from_i32(code.grpc()), format!("it is {id}"));
    status.metadata_mut().insert("x-anyserve-code", id.parse().unwrap());
    status
}

fn last(mut response: ModelInferResponse) -> ModelInferResponse {
    response.parameters.insert("triton_final_response".into(), parameter(ParameterChoice::BoolParam(true)));
    response
}

// === impl Service ===

impl Service {
    fn comes(&self) -> Result<(), Status> {
        let mut said = self.said.lock().unwrap();
        said.requests += 1;
        said.refusal.map_or(Ok(()), |code| Err(named_failure(code.name())))
    }
}

type Item = Result<ModelStreamInferResponse, Status>;
type Items = Pin<Box<dyn Stream<Item = Item> + Send>>;

fn holding(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

/// Three answers, and what the model's name says about the end.
fn items(request: ModelInferRequest) -> Vec<Item> {
    assert!(request.parameters.contains_key("triton_enable_empty_final_response"));
    let model = request.model_name.clone();
    let answer = echo(ModelInferRequest { parameters: [].into(), ..request });
    let mut items = vec![Ok(holding(answer.clone())), Ok(holding(answer.clone())), Ok(holding(answer.clone()))];
    match model.as_str() {
        "no mark" => {}
        "ordinary" => items = vec![Ok(holding(last(answer)))],
        "message" => {
            let code = parameter(ParameterChoice::StringParam("OVERLOADED".into()));
            let named =
                ModelInferResponse { parameters: [("x-anyserve-code".into(), code)].into(), ..Default::default() };
            items.push(Ok(ModelStreamInferResponse { error_message: "full".into(), infer_response: Some(named) }));
            items.push(Ok(holding(answer)));
        }
        "status" => items.push(Err(named_failure("POISON"))),
        _ => items.push(Ok(holding(last(ModelInferResponse::default())))),
    }
    items
}

macro_rules! service {
    ($($rest:ident: $request:ident -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl GrpcInferenceService for Service {
            type ModelStreamInferStream = Items;

            async fn model_infer(
                &self,
                request: Request<ModelInferRequest>,
            ) -> Result<Response<ModelInferResponse>, Status> {
                self.comes()?;
                let header = request.metadata().get("x-capability-type").cloned();
                let request = request.into_inner();
                match request.model_name.as_str() {
                    "wait" => {
                        let _witness = Witness(self.cancelled.clone());
                        self.started.send(()).unwrap();
                        std::future::pending().await
                    }
                    "fail" => Err(named_failure(&request.id)),
                    "nonsense" => {
                        let mut response = echo(request);
                        response.raw_output_contents = vec!["too short".into()];
                        Ok(Response::new(response))
                    }
                    _ => {
                        let mut response = echo(request);
                        if let Some(kind) = header {
                            response.model_version = kind.to_str().unwrap().to_owned();
                        }
                        Ok(Response::new(response))
                    }
                }
            }

            async fn model_stream_infer(
                &self,
                request: Request<Streaming<ModelInferRequest>>,
            ) -> Result<Response<Items>, Status> {
                self.comes()?;
                assert_eq!(request.metadata().get("triton_grpc_error").unwrap(), "true");
                let request = request.into_inner().message().await?.unwrap();
                if request.model_name != "endless" {
                    return Ok(Response::new(Box::pin(tokio_stream::iter(items(request)))));
                }
                let (witness, answer) = (Witness(self.cancelled.clone()), echo(request));
                let endless = tokio_stream::once(Ok(holding(answer))).chain(tokio_stream::pending());
                Ok(Response::new(Box::pin(endless.map(move |item| {
                    let _ = &witness;
                    item
                }))))
            }

            async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
                Ok(Response::new(ServerLiveResponse { live: true }))
            }

            async fn server_ready(
                &self,
                _: Request<ServerReadyRequest>,
            ) -> Result<Response<ServerReadyResponse>, Status> {
                Ok(Response::new(ServerReadyResponse { ready: false }))
            }

            async fn model_ready(
                &self,
                request: Request<ModelReadyRequest>,
            ) -> Result<Response<ModelReadyResponse>, Status> {
                let ModelReadyRequest { name, version } = request.into_inner();
                Ok(Response::new(ModelReadyResponse { ready: name == "echo" && version == "2" }))
            }

            async fn model_metadata(
                &self,
                request: Request<ModelMetadataRequest>,
            ) -> Result<Response<ModelMetadataResponse>, Status> {
                let (name, versions) = (request.into_inner().name, vec!["1".to_owned(), "2".to_owned()]);
                let input = TensorMetadata { name: "x".into(), datatype: "FP32".into(), shape: vec![-1, 3] };
                let (platform, outputs) = ("python".to_owned(), vec![]);
                let response = ModelMetadataResponse { name, versions, platform, inputs: vec![input], outputs };
                Ok(Response::new(response))
            }

            $(
                async fn $rest(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                    Err(Status::unimplemented("no test calls it"))
                }
            )*
        }
    };
}

service! {
    server_metadata: ServerMetadataRequest -> ServerMetadataResponse,
    model_config: ModelConfigRequest -> ModelConfigResponse,
    model_statistics: ModelStatisticsRequest -> ModelStatisticsResponse,
    repository_index: RepositoryIndexRequest -> RepositoryIndexResponse,
    repository_model_load: RepositoryModelLoadRequest -> RepositoryModelLoadResponse,
    repository_model_unload: RepositoryModelUnloadRequest -> RepositoryModelUnloadResponse,
    system_shared_memory_status: SystemSharedMemoryStatusRequest -> SystemSharedMemoryStatusResponse,
    system_shared_memory_register: SystemSharedMemoryRegisterRequest -> SystemSharedMemoryRegisterResponse,
    system_shared_memory_unregister: SystemSharedMemoryUnregisterRequest -> SystemSharedMemoryUnregisterResponse,
    cuda_shared_memory_status: CudaSharedMemoryStatusRequest -> CudaSharedMemoryStatusResponse,
    cuda_shared_memory_register: CudaSharedMemoryRegisterRequest -> CudaSharedMemoryRegisterResponse,
    cuda_shared_memory_unregister: CudaSharedMemoryUnregisterRequest -> CudaSharedMemoryUnregisterResponse,
    trace_setting: TraceSettingRequest -> TraceSettingResponse,
    log_settings: LogSettingsRequest -> LogSettingsResponse,
}
