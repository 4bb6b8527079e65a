//! Everything of KServe that is not inference: what there is, whether it is ready, how it is configured, what has been
//! counted.

use std::sync::Arc;

use anyserve_core::{Code, Error, Order};
use anyserve_proto::inference::grpc_inference_service_server::GrpcInferenceService;
#[allow(clippy::wildcard_imports)] // Forty messages, each named once below.
use anyserve_proto::inference::*;
use anyserve_shm::Regions;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::generated::Arrived;
use super::models::{self, Model};
use super::settings::{LogSettings, TraceSettings};
use super::status::status;
use super::{describe, regions, repository};
use crate::{AdminToken, ServerConfig, Upstream, guard, orders};

/// The generated service's other half. `ModelInfer` and `ModelStreamInfer` never come here.
pub(super) struct Meta<S> {
    upstream: S,
    leaving: CancellationToken,
    server: ServerMetadataResponse,
    regions: Option<Arc<Regions>>,
    admin_token: Option<AdminToken>,
    traces: TraceSettings,
    logs: LogSettings,
}

type Answer<T> = Result<Response<T>, Status>;

// === impl Meta ===

impl<S: Upstream> Meta<S> {
    pub(super) fn new(config: &ServerConfig, upstream: S, leaving: CancellationToken) -> Self {
        let mut extensions = config.extensions.clone();
        extensions.extend(config.regions.is_some().then(|| SHARED_MEMORY.to_owned()));
        let server =
            ServerMetadataResponse { name: config.server_id.clone(), version: config.version.clone(), extensions };
        let (regions, traces, logs) = (config.regions.clone(), TraceSettings::default(), LogSettings::default());
        let admin_token = config.admin_token.clone();
        Self { upstream, leaving, server, regions, admin_token, traces, logs }
    }

    fn leaves(&self) -> bool {
        self.leaving.is_cancelled()
    }

    fn regions(&self) -> Result<&Regions, Status> {
        regions::on(self.regions.as_deref())
    }

    /// Lets an order of an administrator pass, and tells the transport that it takes its time.
    fn orders<T>(&self, request: &Request<T>) -> Result<(), Error> {
        if let Some(arrived) = request.extensions().get::<Arrived>() {
            arrived.tell();
        }
        // The metadata of a call are its headers.
        let headers = request.metadata().clone().into_headers();
        guard::check(self.admin_token.as_ref(), &headers, request.extensions())
    }

    async fn obey(&self, order: Result<Order, Error>) -> Result<(), Error> {
        let order = order?;
        tracing::info!(?order, "an administrator orders");
        orders::obey(&self.upstream, order, &self.leaving).await
    }

    /// The versions of a model that a request asks for; at least one.
    fn find(&self, name: &str, version: &str) -> Result<Vec<Model>, Status> {
        models::find(&self.upstream.catalog(), name, version).map_err(|error| status(&error))
    }
}

fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status(&error))
}

fn unsupported<T>(message: impl Into<String>) -> Answer<T> {
    answer(Err(Error::new(Code::Unsupported, message)))
}

/// Triton's name of the extension.
const SHARED_MEMORY: &str = "system_shared_memory";

#[tonic::async_trait]
impl<S: Upstream> GrpcInferenceService for Meta<S> {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answer<ServerLiveResponse> {
        answer(Ok(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answer<ServerReadyResponse> {
        answer(Ok(ServerReadyResponse { ready: !self.leaves() && self.upstream.catalog().ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answer<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let catalog = self.upstream.catalog();
        let found = models::find(&catalog, &name, &version);
        let ready = found.is_ok_and(|found| found.iter().any(|model| model.ready));
        answer(Ok(ModelReadyResponse { ready: ready && !catalog.draining && !self.leaves() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answer<ServerMetadataResponse> {
        answer(Ok(self.server.clone()))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answer<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let found = self.find(&name, &version)?;
        let versions = models::versions(&self.upstream.catalog(), &name);
        answer(Ok(describe::metadata(name, versions, &found[0].handler)))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answer<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let found = self.find(&name, &version)?;
        answer(Ok(ModelConfigResponse { config: Some(describe::config(name, &found[0].handler)) }))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Answer<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let catalog = self.upstream.catalog();
        let found = if name.is_empty() { models::all(&catalog) } else { self.find(&name, &version)? };
        let model_stats = found.iter().map(|model| {
            let counted = model.places.iter().filter_map(|place| self.upstream.statistics(*place));
            describe::statistics(model, counted)
        });
        answer(Ok(ModelStatisticsResponse { model_stats: model_stats.collect() }))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Answer<RepositoryIndexResponse> {
        let only_ready = request.into_inner().ready;
        let catalog = self.upstream.catalog();
        let draining = catalog.draining || self.leaves();
        let mut models = repository::index(&catalog, &self.upstream.status(), draining);
        models.retain(|model| model.state == describe::READY || !only_ready);
        answer(Ok(RepositoryIndexResponse { models }))
    }

    async fn trace_setting(&self, request: Request<TraceSettingRequest>) -> Answer<TraceSettingResponse> {
        let TraceSettingRequest { settings, model_name } = request.into_inner();
        // Under the model's own name, so that clients cannot make up new ones.
        let model =
            if model_name.is_empty() { model_name } else { self.find(&model_name, "")?[0].handler.model_name() };
        answer(self.traces.update(&model, settings))
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Answer<LogSettingsResponse> {
        answer(self.logs.update(request.into_inner().settings))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let given = self.orders(&request);
        let (request, catalog) = (request.into_inner(), self.upstream.catalog());
        let model = request.model_name.clone();
        let order = given.and_then(|()| repository::load(request, &catalog));
        let loaded = self.obey(order).await.map(|()| RepositoryModelLoadResponse {});
        loaded.map(Response::new).map_err(|error| repository::load_failed(&model, &error))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        let given = self.orders(&request);
        let (request, catalog) = (request.into_inner(), self.upstream.catalog());
        let model = request.model_name.clone();
        let order = given.and_then(|()| repository::unload(request, &catalog));
        let unloaded = self.obey(order).await.map(|()| RepositoryModelUnloadResponse {});
        unloaded.map(Response::new).map_err(|error| repository::unload_failed(&model, &error))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answer<SystemSharedMemoryStatusResponse> {
        regions::list(self.regions()?, &request.into_inner().name).map(Response::new)
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answer<SystemSharedMemoryRegisterResponse> {
        regions::register(self.regions()?, &request.into_inner())?;
        answer(Ok(SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<SystemSharedMemoryUnregisterResponse> {
        regions::unregister(self.regions()?, &request.into_inner().name);
        answer(Ok(SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Answer<CudaSharedMemoryStatusResponse> {
        answer(Ok(CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Answer<CudaSharedMemoryRegisterResponse> {
        let name = request.into_inner().name;
        let message = format!("failed to register CUDA shared memory region '{name}': this server has no CUDA");
        answer(Err(Error::invalid(message)))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<CudaSharedMemoryUnregisterResponse> {
        answer(Ok(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn model_infer(&self, _: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        unsupported("ModelInfer is served by another part")
    }

    type ModelStreamInferStream = tokio_stream::Empty<Result<ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        unsupported("ModelStreamInfer is served by another part")
    }
}
