//! An empty proxy: tonic in front, tonic behind, every message decoded and encoded again.
//!
//! It chooses nothing, so it is what a proxy on the generated code costs at least.

use anyserve_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use anyserve_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use futures_util::StreamExt;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Request, Response, Status, Streaming};

use crate::ceiling::{CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW};
use crate::inference_only::inference_only;

/// The proxy, with one connection to its server.
#[derive(Debug)]
pub(crate) struct Forward {
    client: GrpcInferenceServiceClient<Channel>,
}

// === impl Forward ===

impl Forward {
    /// A proxy of the server at `host:port`; it connects with the first call.
    pub(crate) fn try_new(upstream: &str) -> Result<Self, Error> {
        let channel = Endpoint::from_shared(format!("http://{upstream}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .connect_lazy();
        let client = GrpcInferenceServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Self { client })
    }
}

inference_only!(Forward, {
    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        self.client.clone().model_infer(request.into_inner()).await
    }

    type ModelStreamInferStream = Streaming<ModelStreamInferResponse>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        // A broken request ends the stream; its status is the client's own.
        let messages = request.into_inner().take_while(|message| std::future::ready(message.is_ok()));
        let messages = messages.filter_map(|message| std::future::ready(message.ok()));
        self.client.clone().model_stream_infer(messages).await
    }
});
