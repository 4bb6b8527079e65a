//! A KServe service that echoes, and tells what it was asked.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use anyserve_proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::*;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Script, tell};

/// A request that came.
pub(crate) struct Asked {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) request: ModelInferRequest,
}

struct Service {
    script: Arc<Mutex<Script>>,
    asked: UnboundedSender<Asked>,
}

pub(super) fn service(
    script: &Arc<Mutex<Script>>,
    asked: UnboundedSender<Asked>,
) -> GrpcInferenceServiceServer<impl GrpcInferenceService> {
    GrpcInferenceServiceServer::new(Service { script: Arc::clone(script), asked })
}

// === impl Service ===

impl Service {
    fn comes(&self, metadata: &tonic::metadata::MetadataMap, request: ModelInferRequest) -> Result<(), Status> {
        let headers = metadata.clone().into_headers();
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        tell(&self.asked, Asked { headers, request });
        let Some(code) = self.script.lock().failure else { return Ok(()) };
        let mut status = Status::new(Code::from_i32(code.grpc()), "as told");
        status.metadata_mut().insert("x-anyserve-code", code.name().parse().unwrap());
        Err(status)
    }
}

fn answer(request: ModelInferRequest) -> ModelInferResponse {
    ModelInferResponse { model_name: request.model_name, id: request.id, ..Default::default() }
}

/// A response, and whether it is the last.
fn part(request: &ModelInferRequest, last: bool) -> ModelStreamInferResponse {
    let mut response = answer(request.clone());
    let choice = Some(ParameterChoice::BoolParam(last));
    response.parameters.insert("triton_final_response".into(), InferParameter { parameter_choice: choice });
    response
        .parameters
        .insert("part".into(), InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) });
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

type Parts = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

macro_rules! service {
    ($($rest:ident: $request:ident -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl GrpcInferenceService for Service {
            type ModelStreamInferStream = Parts;

            async fn model_infer(
                &self,
                request: Request<ModelInferRequest>,
            ) -> Result<Response<ModelInferResponse>, Status> {
                self.comes(request.metadata(), request.get_ref().clone())?;
                Ok(Response::new(answer(request.into_inner())))
            }

            async fn model_stream_infer(
                &self,
                request: Request<Streaming<ModelInferRequest>>,
            ) -> Result<Response<Parts>, Status> {
                let metadata = request.metadata().clone();
                let request = request.into_inner().message().await?.unwrap();
                self.comes(&metadata, request.clone())?;
                let parts = [part(&request, false), part(&request, false), part(&request, true)];
                Ok(Response::new(Box::pin(tokio_stream::iter(parts.map(Ok)))))
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
    server_live: ServerLiveRequest -> ServerLiveResponse,
    server_ready: ServerReadyRequest -> ServerReadyResponse,
    model_ready: ModelReadyRequest -> ModelReadyResponse,
    model_metadata: ModelMetadataRequest -> ModelMetadataResponse,
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
