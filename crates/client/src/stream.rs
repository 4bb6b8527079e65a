//! One call whose answers come one by one.
//!
//! `ModelStreamInfer` is made for many requests on one stream; a call here has a stream of its own. So dropping it
//! cancels that call and no other, and its failure can end the stream with a gRPC status, details included.

use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Error, Parameter, Response, Responses};
use anyserve_proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use futures_util::StreamExt as _;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};

use crate::client::Grpc;
use crate::{Endpoint, Failed, decode, encode, failure};

/// Asks for a last, empty response when a request is done: the only way to know it of a capability that streams.
const ASK_FOR_FINAL: &str = "triton_enable_empty_final_response";
/// Marks the last response of a request.
const FINAL: &str = "triton_final_response";
/// Asks for a failure to end the stream with its gRPC status instead of a message inside it.
const ASK_FOR_STATUS: &str = "triton_grpc_error";

/// The answers to one request. Nothing is sent before the first poll.
pub(crate) fn responses(reader: Reader) -> Responses {
    Box::pin(futures_util::stream::unfold(reader, |mut reader| async {
        let item = reader.next().await?;
        Some((item.map_err(|failed| failed.error), reader))
    }))
}

/// The answers to one request, of which the first has come, or the end.
pub(crate) async fn begun(mut reader: Reader) -> Result<Responses, Failed> {
    let first = reader.next().await.transpose()?;
    Ok(Box::pin(futures_util::stream::iter(first.map(Ok)).chain(responses(reader))))
}

/// When the caller stops waiting, and the timeout that this comes from.
type Deadline = (Instant, Duration);

/// Reads the answers to one request.
pub(crate) struct Reader {
    grpc: Grpc,
    endpoint: Arc<Endpoint>,
    deadline: Option<Deadline>,
    state: State,
}

/// Unsent --sent--> Open --last response, end or error--> Ended
enum State {
    Unsent(Box<Request<ModelInferRequest>>),
    Open(Box<Streaming<ModelStreamInferResponse>>),
    Ended,
}

// === impl Reader ===

impl Reader {
    /// A reader of the answers to a request that is not sent yet. The timeout counts from now.
    pub(crate) fn new(
        grpc: Grpc,
        endpoint: Arc<Endpoint>,
        mut request: Request<ModelInferRequest>,
        timeout: Option<Duration>,
    ) -> Self {
        request.get_mut().parameters.insert(ASK_FOR_FINAL.to_owned(), encode::parameter(&Parameter::Bool(true)));
        request.metadata_mut().insert(ASK_FOR_STATUS, MetadataValue::from_static("true"));
        let deadline = timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, timeout)));
        Self { grpc, endpoint, deadline, state: State::Unsent(Box::new(request)) }
    }

    async fn next(&mut self) -> Option<Result<Response, Failed>> {
        let item = match self.deadline {
            Some((deadline, timeout)) => match tokio::time::timeout_at(deadline, self.read()).await {
                Ok(item) => item,
                Err(_) => Err(Failed::after(failure::out_of_time(&self.endpoint, timeout))),
            },
            None => self.read().await,
        };
        if matches!(item, Err(_) | Ok(None)) {
            self.state = State::Ended;
        }
        item.transpose()
    }

    /// The next response, `None` at the end.
    async fn read(&mut self) -> Result<Option<Response>, Failed> {
        if matches!(self.state, State::Unsent(_)) {
            self.send().await?;
        }
        let State::Open(stream) = &mut self.state else { return Ok(None) };
        let message = stream.message().await;
        let message = message.map_err(|status| failed(&status, &self.endpoint, self.deadline))?;
        // An end without a final response is the end all the same: the status, OK, is what says so in gRPC.
        let Some(message) = message else { return Ok(None) };
        let (response, last) = open(message).map_err(Failed::after)?;
        if last {
            self.state = State::Ended;
        }
        Ok(response)
    }

    async fn send(&mut self) -> Result<(), Failed> {
        let State::Unsent(request) = std::mem::replace(&mut self.state, State::Ended) else { return Ok(()) };
        let request = with_remaining(*request, self.deadline)
            .map(|message| futures_util::stream::once(std::future::ready(message)));
        let answer: Result<_, Status> = self.grpc.model_stream_infer(request).await;
        let answer = answer.map_err(|status| failed(&status, &self.endpoint, self.deadline))?;
        self.state = State::Open(Box::new(answer.into_inner()));
        Ok(())
    }
}

fn failed(status: &Status, endpoint: &Endpoint, deadline: Option<Deadline>) -> Failed {
    Failed::of(status, endpoint, deadline.map(|(_, timeout)| timeout))
}

/// The request with what is left of its timeout.
fn with_remaining<T>(mut request: Request<T>, deadline: Option<Deadline>) -> Request<T> {
    if let Some((deadline, _)) = deadline.filter(|_| request.metadata().contains_key("grpc-timeout")) {
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    request
}

/// A message as a response, if it holds one, and whether it is the request's last.
fn open(message: ModelStreamInferResponse) -> Result<(Option<Response>, bool), Error> {
    let ModelStreamInferResponse { error_message, infer_response } = message;
    let response = infer_response.map(decode::response).transpose()?;
    if !error_message.is_empty() {
        let parameters = response.map(|response| response.parameters).unwrap_or_default();
        return Err(failure::from_stream_message(error_message, &parameters));
    }
    let Some(mut response) = response else { return Ok((None, true)) };
    let place = response.parameters.iter().position(|(name, _)| name == FINAL);
    let last = place.is_some_and(|place| response.parameters.remove(place).1 == Parameter::Bool(true));
    let bare = response.outputs.is_empty() && response.parameters.is_empty();
    Ok(((!last || !bare).then_some(response), last))
}
