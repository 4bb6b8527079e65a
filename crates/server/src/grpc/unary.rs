//! `ModelInfer`: one message in, one message out.

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Code, Error, Expects, Explanation, Reply, Response as Answer};
use anyserve_proto::inference::ModelInferRequest;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

use super::compression::Encoding;
use super::decode::{Decode, decode};
use super::encode::{Encoder, Envelope};
use super::framing::{FrameLimits, Message, Messages};
use super::metadata::Metadata;
use super::reply::Asked;
use super::shared::Sharing;
use super::{status, timeout};
use crate::Upstream;
use crate::body::{Body, Chunks};
use crate::explain;
use crate::metrics::Call;
use crate::route::App;

/// Answers a `ModelInfer` call.
pub(crate) async fn infer<S: Upstream>(app: &Arc<App<S>>, request: Request<Incoming>) -> Response<Body> {
    let now = Instant::now();
    let (head, body) = request.into_parts();
    let metadata = match Metadata::read(&head.headers, now) {
        Ok(metadata) => metadata,
        Err(error) => return status::refusal(&error),
    };
    // The request's headers are not needed any more while the handler runs.
    drop(head);
    let mut explained = None;
    let mut response = match answer(app, body, &metadata, now, &mut explained).await {
        Ok((chunks, call)) => success(chunks, metadata.answer, call),
        Err(error) => status::refusal(&error),
    };
    if let Some(explanation) = explained {
        explain::put(response.headers_mut(), &explanation);
    }
    response
}

async fn answer<S: Upstream>(
    app: &App<S>,
    body: Incoming,
    metadata: &Metadata,
    now: Instant,
    explained: &mut Option<Box<Explanation>>,
) -> Result<(Chunks, Call), Error> {
    let limits =
        FrameLimits { max_message: app.limits.max_message, encoding: metadata.encoding, budget: app.budget.clone() };
    // Kept until there is an answer: to drop it would tell the client that its request is not wanted.
    let mut messages = Messages::new(body, limits);
    let message = timeout::within(metadata.deadline, messages.next()).await?;
    let message = message.ok_or_else(|| Error::invalid("the call has no message"))?;
    let Message { data, charge: _charge } = message;
    let message: ModelInferRequest = data.decode().map_err(|error| malformed(&error))?;
    let mut call = app.begin(&message.model_name, now);
    let ended = timeout::within(metadata.deadline, serve(app, message, metadata, explained)).await;
    call.finish(ended.as_ref().err().map(|error| error.code));
    ended.map(|chunks| (chunks, call))
}

/// Has the request answered. What becomes of it is put into `explained` before, if that is asked for.
async fn serve<S: Upstream>(
    app: &App<S>,
    message: ModelInferRequest,
    metadata: &Metadata,
    explained: &mut Option<Box<Explanation>>,
) -> Result<Chunks, Error> {
    let decoded = decode(message, metadata, Expects::One, &app.limits, Sharing::of(app))?;
    let Decode { request, shared, charge: _charge, .. } = decoded;
    if metadata.explains {
        *explained = Some(Box::new(app.upstream.explain(&request)));
    }
    let asked = Asked::of(&request, shared);
    let reply = app.upstream.clone().oneshot(request).await?;
    let mut response = one(reply, &asked.model)?;
    asked.check(&response)?;
    asked.restore(&mut response)?;
    let encoder = Encoder { envelope: Envelope::Unary, encoding: metadata.answer, max_message: app.limits.max_message };
    let mut chunks = Chunks::default();
    encoder.response(response, &mut chunks)?;
    Ok(chunks)
}

fn one(reply: Reply, model: &str) -> Result<Answer, Error> {
    match reply {
        Reply::One(response) => Ok(response),
        Reply::Many(_) => {
            let message = format!("model '{model}' answers with a stream: call ModelStreamInfer");
            Err(Error::new(Code::Unsupported, message))
        }
    }
}

/// Bytes that are no `ModelInferRequest`.
pub(super) fn malformed(error: &prost::DecodeError) -> Error {
    Error::invalid(format!("the message is no ModelInferRequest: {error}"))
}

fn success(chunks: Chunks, encoding: Encoding, call: Call) -> Response<Body> {
    let mut response = Response::new(Body::whole(chunks, Some(status::succeeded()), Some(call)));
    put_headers(&mut response, encoding);
    response
}

/// The headers of a response that is no error from the start.
pub(super) fn put_headers(response: &mut Response<Body>, encoding: Encoding) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if encoding != Encoding::Identity {
        headers.insert("grpc-encoding", HeaderValue::from_static(encoding.name()));
    }
}
