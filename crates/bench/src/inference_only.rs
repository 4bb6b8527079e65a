//! The generated KServe service with every method refused but those of inference.

/// Implements the service for a type: the given methods, and all others `UNIMPLEMENTED`.
macro_rules! inference_only {
    ($server:ty, { $($implemented:tt)* }) => {
        $crate::inference_only::inference_only! {
            @ $server, { $($implemented)* }
            model_ready(ModelReadyRequest) -> ModelReadyResponse;
            server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
            model_metadata(ModelMetadataRequest) -> ModelMetadataResponse;
            model_config(ModelConfigRequest) -> ModelConfigResponse;
            model_statistics(ModelStatisticsRequest) -> ModelStatisticsResponse;
            repository_index(RepositoryIndexRequest) -> RepositoryIndexResponse;
            repository_model_load(RepositoryModelLoadRequest) -> RepositoryModelLoadResponse;
            repository_model_unload(RepositoryModelUnloadRequest) -> RepositoryModelUnloadResponse;
            system_shared_memory_status(SystemSharedMemoryStatusRequest) -> SystemSharedMemoryStatusResponse;
            system_shared_memory_register(SystemSharedMemoryRegisterRequest) -> SystemSharedMemoryRegisterResponse;
            system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest)
                -> SystemSharedMemoryUnregisterResponse;
            cuda_shared_memory_status(CudaSharedMemoryStatusRequest) -> CudaSharedMemoryStatusResponse;
            cuda_shared_memory_register(CudaSharedMemoryRegisterRequest) -> CudaSharedMemoryRegisterResponse;
            cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest) -> CudaSharedMemoryUnregisterResponse;
            trace_setting(TraceSettingRequest) -> TraceSettingResponse;
            log_settings(LogSettingsRequest) -> LogSettingsResponse;
        }
    };
    (@ $server:ty, { $($implemented:tt)* } $($refused:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl anyserve_proto::inference::grpc_inference_service_server::GrpcInferenceService for $server {
            $($implemented)*

            async fn server_live(
                &self,
                _: Request<anyserve_proto::inference::ServerLiveRequest>,
            ) -> Result<Response<anyserve_proto::inference::ServerLiveResponse>, Status> {
                Ok(Response::new(anyserve_proto::inference::ServerLiveResponse { live: true }))
            }

            async fn server_ready(
                &self,
                _: Request<anyserve_proto::inference::ServerReadyRequest>,
            ) -> Result<Response<anyserve_proto::inference::ServerReadyResponse>, Status> {
                Ok(Response::new(anyserve_proto::inference::ServerReadyResponse { ready: true }))
            }

            $(
                async fn $refused(
                    &self,
                    _: Request<anyserve_proto::inference::$request>,
                ) -> Result<Response<anyserve_proto::inference::$response>, Status> {
                    Err(Status::unimplemented("this server knows inference only"))
                }
            )*
        }
    };
}

pub(crate) use inference_only;
