//! An empty KServe v2 server: tonic, the generated service, an echo, and nothing behind it.
//!
//! What it reaches is the ceiling for any server built on the same transport. It knows no models,
//! checks nothing and starts no workers; everything but inference is `UNIMPLEMENTED`.

use std::io;
use std::iter;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;

use anyserve_proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_request::InferInputTensor;
use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use anyserve_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use futures_util::stream::{self, Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::forward::Forward;
use crate::inference_only::inference_only;

pub(crate) const STREAM_WINDOW: u32 = 32 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 256 << 20;
pub(crate) const MAX_FRAME: u32 = 1 << 20;

/// The most answers to one request of a stream.
const MAX_ANSWERS: usize = 1_000_000;

/// The empty server, bound and not yet serving.
#[derive(Debug)]
pub struct Ceiling {
    incoming: TcpIncoming,
    address: SocketAddr,
    /// Where everything is passed on to, if it is.
    upstream: Option<String>,
}

/// The service: outputs are the inputs, named `output_<name>`.
///
/// A request of a stream is answered as many times as its integer parameter `answers` says, once
/// without it.
#[derive(Debug)]
struct Echo;

type Answers = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

// === impl Ceiling ===

impl Ceiling {
    /// Binds `address`, `host:port`; port 0 lets the system choose. Needs a running tokio runtime.
    ///
    /// # Errors
    /// The address does not resolve or cannot be bound.
    pub fn bind(address: &str) -> io::Result<Self> {
        let unresolved = || io::Error::new(io::ErrorKind::NotFound, "no such host");
        let address = address.to_socket_addrs()?.next().ok_or_else(unresolved)?;
        let incoming = TcpIncoming::bind(address)?.with_nodelay(Some(true));
        let address = incoming.local_addr()?;
        Ok(Self { incoming, address, upstream: None })
    }

    /// The same, but an empty proxy: every call is decoded, and passed on to a server.
    pub fn in_front_of(self, upstream: Option<String>) -> Self {
        Self { upstream, ..self }
    }

    /// The address bound, with the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// The listener failed, or the upstream is no address.
    /// # Cancel safety
    /// Dropping the future closes the listener; connections end with the runtime.
    pub async fn serve(self) -> Result<(), tonic::transport::Error> {
        match self.upstream {
            None => serve(self.incoming, Echo).await,
            Some(upstream) => serve(self.incoming, Forward::try_new(&upstream)?).await,
        }
    }
}

async fn serve(incoming: TcpIncoming, service: impl GrpcInferenceService) -> Result<(), tonic::transport::Error> {
    let service = GrpcInferenceServiceServer::new(service)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
}

// === impl Echo ===

inference_only!(Echo, {
    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        Ok(Response::new(echo(request.into_inner())))
    }

    type ModelStreamInferStream = Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(Box::pin(request.into_inner().flat_map(answers))))
    }
});

fn echo(request: ModelInferRequest) -> ModelInferResponse {
    ModelInferResponse {
        model_name: request.model_name,
        model_version: request.model_version,
        id: request.id,
        parameters: request.parameters,
        outputs: request.inputs.into_iter().map(output).collect(),
        raw_output_contents: request.raw_input_contents,
    }
}

fn output(input: InferInputTensor) -> InferOutputTensor {
    InferOutputTensor {
        name: format!("output_{}", input.name),
        datatype: input.datatype,
        shape: input.shape,
        parameters: input.parameters,
        contents: input.contents,
    }
}

fn answers(request: Result<ModelInferRequest, Status>) -> Answers {
    let request = match request {
        Ok(request) => request,
        Err(status) => return Box::pin(stream::iter(iter::once(Err(status)))),
    };
    let count = answer_count(&request);
    let answer = ModelStreamInferResponse { error_message: String::new(), infer_response: Some(echo(request)) };
    Box::pin(stream::iter(iter::repeat_n(answer, count).map(Ok)))
}

fn answer_count(request: &ModelInferRequest) -> usize {
    let asked = request.parameters.get("answers").and_then(|answers| match answers.parameter_choice {
        Some(ParameterChoice::Int64Param(count)) => usize::try_from(count).ok(),
        _ => None,
    });
    asked.unwrap_or(1).min(MAX_ANSWERS)
}
