//! Everything of KServe but inference. What is about one model is asked of a replica that serves it, as it came; what is
//! about the fleet is answered here; what is about one process is that process's own business.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyserve_core::{Code, Error, Handler};
use anyserve_proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use anyserve_proto::inference::repository_index_response::ModelIndex;
#[allow(clippy::wildcard_imports)] // Forty messages, each named once below.
use anyserve_proto::inference::*;
use anyserve_server::parts::{failed, succeeded};
use bytes::Bytes;
use http::Response as Answer;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

use super::asked::Ask;
use super::failure::Refused;
use super::front::Proxy;
use super::message::Message;
use super::unary::infer;
use crate::body::{Body, boxed, grpc};

const MODEL_READY: &str = "/inference.GRPCInferenceService/ModelReady";

/// Methods that are about one model, which the first field of their messages names.
const OF_ONE_MODEL: [&str; 4] = [
    MODEL_READY,
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
];

/// Triton's names of the states of a model.
const STATES: [(bool, &str, &str); 2] = [(true, "READY", ""), (false, "UNAVAILABLE", "no worker is ready")];

/// The generated service's other half. Inference and questions about one model never come here.
struct Questions(Arc<Proxy>);

/// Answers a call of any method but the two of inference.
///
/// # Errors
/// [`Refused`] if no replica answers a question about a model.
pub(crate) async fn questions(proxy: &Arc<Proxy>, request: http::Request<Incoming>) -> Result<Answer<Body>, Refused> {
    let path = request.uri().path();
    if let Some(path) = OF_ONE_MODEL.into_iter().find(|own| *own == path) {
        return about_model(proxy, path, request).await;
    }
    let service = GrpcInferenceServiceServer::new(Questions(Arc::clone(proxy)));
    let answer = service.oneshot(request).await.unwrap_or_else(|never| match never {});
    Ok(answer.map(boxed))
}

async fn about_model(
    proxy: &Arc<Proxy>,
    path: &'static str,
    request: http::Request<Incoming>,
) -> Result<Answer<Body>, Refused> {
    match infer(proxy, Ask::Question(path), request).await {
        Err(refused) if path == MODEL_READY && is_not_ready(refused.error.code) => {
            let message = Message::framed(&ModelReadyResponse { ready: false })?;
            Ok(whole(message))
        }
        answer => answer,
    }
}

/// Whether an error means that nobody can serve the model now.
fn is_not_ready(code: Code) -> bool {
    use Code::{Draining, NoCapability, NotFound, Starting, Unavailable, WorkerLost};
    matches!(code, NoCapability | NotFound | Unavailable | Draining | Starting | WorkerLost)
}

/// An answer that is there.
fn whole(message: Message) -> Answer<Body> {
    let (pieces, _) = message.into_pieces();
    let data = pieces.into_iter().map(Frame::data);
    let frames = data.chain([Frame::trailers(succeeded())]).map(Ok::<Frame<Bytes>, std::convert::Infallible>);
    grpc(StreamBody::new(futures_util::stream::iter(frames)))
}

type Told<T> = Result<Response<T>, Status>;

/// What only one replica can do.
fn of_one_replica<T>(what: &str) -> Told<T> {
    let message = format!("{what} is of one replica: ask the replica itself; GET /registry tells where each one is");
    Err(status(&Error::new(Code::Unsupported, message)))
}

fn status(error: &Error) -> Status {
    let unread = || Status::new(tonic::Code::from_i32(error.code.grpc()), error.message.clone());
    Status::from_header_map(&failed(error)).unwrap_or_else(unread)
}

// === impl Questions ===

impl Questions {
    /// Rows of the index: every version of every model that somebody offers.
    fn index(&self, only_ready: bool) -> Vec<ModelIndex> {
        let leaving = self.0.leaving.is_cancelled();
        let mut models = BTreeMap::new();
        self.0.fleet.with(|registry, _| {
            for (capability, warm) in registry.offered() {
                let handler = Handler::new((**capability).clone());
                *models.entry((handler.model_name(), handler.version())).or_insert(false) |= warm && !leaving;
            }
        });
        let rows = models.into_iter().filter(|(_, ready)| *ready || !only_ready);
        rows.map(|((name, version), ready)| row(name, version, ready)).collect()
    }
}

fn row(name: String, version: String, ready: bool) -> ModelIndex {
    let (_, state, reason) = STATES[usize::from(!ready)];
    ModelIndex { name, version, state: state.to_owned(), reason: reason.to_owned() }
}

#[tonic::async_trait]
impl GrpcInferenceService for Questions {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Told<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Told<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Told<ServerMetadataResponse> {
        let (name, version) = self.0.named.clone();
        Ok(Response::new(ServerMetadataResponse { name, version, extensions: Vec::new() }))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Told<RepositoryIndexResponse> {
        Ok(Response::new(RepositoryIndexResponse { models: self.index(request.into_inner().ready) }))
    }

    async fn model_ready(&self, _: Request<ModelReadyRequest>) -> Told<ModelReadyResponse> {
        of_one_replica("this")
    }

    async fn model_metadata(&self, _: Request<ModelMetadataRequest>) -> Told<ModelMetadataResponse> {
        of_one_replica("this")
    }

    async fn model_config(&self, _: Request<ModelConfigRequest>) -> Told<ModelConfigResponse> {
        of_one_replica("this")
    }

    async fn model_statistics(&self, _: Request<ModelStatisticsRequest>) -> Told<ModelStatisticsResponse> {
        of_one_replica("this")
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Told<TraceSettingResponse> {
        of_one_replica("a trace setting")
    }

    async fn log_settings(&self, _: Request<LogSettingsRequest>) -> Told<LogSettingsResponse> {
        of_one_replica("a log setting")
    }

    async fn repository_model_load(&self, _: Request<RepositoryModelLoadRequest>) -> Told<RepositoryModelLoadResponse> {
        of_one_replica("loading a model")
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Told<RepositoryModelUnloadResponse> {
        of_one_replica("unloading a model")
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Told<SystemSharedMemoryStatusResponse> {
        of_one_replica("shared memory")
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Told<SystemSharedMemoryRegisterResponse> {
        of_one_replica("shared memory")
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Told<SystemSharedMemoryUnregisterResponse> {
        of_one_replica("shared memory")
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Told<CudaSharedMemoryStatusResponse> {
        of_one_replica("shared memory")
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Told<CudaSharedMemoryRegisterResponse> {
        of_one_replica("shared memory")
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Told<CudaSharedMemoryUnregisterResponse> {
        of_one_replica("shared memory")
    }

    async fn model_infer(&self, _: Request<ModelInferRequest>) -> Told<ModelInferResponse> {
        of_one_replica("this")
    }

    type ModelStreamInferStream = futures_util::stream::Empty<Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(&self, _: Request<Streaming<ModelInferRequest>>) -> Told<Self::ModelStreamInferStream> {
        of_one_replica("this")
    }
}
