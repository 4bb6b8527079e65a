//! One request in JSON: read, carried, answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, Parameter};
use anyserve_proto::inference::ModelInferResponse;
use anyserve_server::parts::{Budget, CallHead, Charge};
use bytes::Buf;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::events::Events;
use super::paid::Paid;
use super::request::Untyped;
use super::signatures::{Signature, Subject};
use super::{Failure, JSON, body, check_origin, request, response, signatures};
use crate::body::{Body, boxed};
use crate::proxy::{Answer, Ask, Asked, Message, Proxy, Refused, Responses, carry, copy_trail, of_http, within};

/// The header that says how many seconds the caller waits.
const TIMEOUT: &str = "x-timeout-s";

/// What was taken for granted of inputs that were given without a datatype.
struct Guess {
    /// Whose signature was looked at, if one was known.
    subject: Option<Subject>,
    untyped: Vec<Untyped>,
}

/// Answers with the one response.
pub(super) async fn infer(proxy: &Arc<Proxy>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let counted = proxy.in_flight.begin();
    let mut responses = begin(proxy, Ask::Infer, request).await?;
    let mut message = None;
    let trailers = loop {
        match responses.next().await {
            Some(Answer::Message(one)) if message.is_none() => message = Some(one),
            Some(Answer::Message(_)) => return Err(Error::internal("a replica answered more than once").into()),
            Some(Answer::Ended(ended)) => break ended?,
            None => return Err(Error::internal("an answer has no end").into()),
        }
    };
    let message = message.ok_or_else(|| Error::internal("a replica answered without a message"))?;
    let json = json(&proxy.budget, message)?;
    // It is in flight until the last byte is taken.
    let body = json.map_frame(move |frame| {
        let _ = &counted;
        frame
    });
    let mut response = Response::new(boxed(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    copy_trail(&trailers, response.headers_mut());
    Ok(response)
}

/// Answers with events. A request that fails before its first response has the status of its error.
pub(super) async fn stream(proxy: &Arc<Proxy>, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let mut responses = begin(proxy, Ask::Stream, request).await?;
    let first = match responses.next().await {
        Some(Answer::Ended(Err(refused))) => return Err(refused.into()),
        Some(answer) => answer,
        None => return Err(Error::internal("an answer has no end").into()),
    };
    let mut response = Response::new(boxed(Events::new(first, responses, &proxy.budget)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn json(budget: &Budget, message: Message) -> Result<Paid, Error> {
    let mut json = Paid::new(budget);
    let answer: Decoded<ModelInferResponse> = decoded(budget, &message)?;
    drop(message);
    write(&answer.message, &mut json)?;
    Ok(json)
}

/// A message that was decoded, and the memory that it takes.
pub(super) struct Decoded<M> {
    pub(super) message: M,
    _charge: Charge,
}

/// Decodes a message of a replica.
///
/// # Errors
/// `OVERLOADED` where there is no memory for it, `INTERNAL` if it is none.
pub(super) fn decoded<M: prost::Message + Default>(budget: &Budget, message: &Message) -> Result<Decoded<M>, Error> {
    let mut charge = budget.charge();
    charge.grow(message.reader().remaining())?;
    let decoded = M::decode(message.reader());
    let message = decoded
        .map_err(|error| Error::internal(format!("the answer of a replica is no ModelInferResponse: {error}")))?;
    Ok(Decoded { message, _charge: charge })
}

/// Writes a response as JSON.
///
/// # Errors
/// `OVERLOADED` where there is no memory for it, and what [`response::render`] says.
pub(super) fn write(answer: &ModelInferResponse, json: &mut Paid) -> Result<(), Error> {
    let rendered = response::render(answer, &mut *json);
    json.refused().map_or(rendered, Err)
}

/// Has a request begin to be answered.
async fn begin(proxy: &Arc<Proxy>, ask: Ask, request: Request<Incoming>) -> Result<Responses, Failure> {
    let now = Instant::now();
    proxy.check_open()?;
    let (head, body) = request.into_parts();
    check_origin(&head.headers)?;
    let mut call = CallHead::read(&head.headers, now)?;
    if let Some(timeout) = timeout(&head.headers)? {
        call.set_deadline(now.checked_add(timeout));
    }
    let (asked, guess) = read(proxy, ask, &call, &head.headers, body).await?;
    let begun = carry(proxy, &asked).await.map_err(|refused| guess.explain(proxy, refused))?;
    Ok(Responses::of(proxy, begun, None))
}

async fn read(
    proxy: &Proxy,
    ask: Ask,
    call: &CallHead,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Asked, Guess), Failure> {
    let (json, _charge) = within(call.deadline(), body::read(proxy, headers, body)).await??;
    let body = request::parse(&json)?;
    let known = if body.is_untyped() { signature(proxy, call, &body).await? } else { None };
    let (subject, signature) = known.unzip();
    let (message, untyped) = body.request(&signature.unwrap_or_default(), &proxy.limits)?;
    let message = Message::framed(&message)?;
    let headers = Arc::new(of_http(headers));
    let asked = Asked::read(proxy, ask, call, headers, message)?;
    if asked.is_of_nothing() {
        let message = "nothing is asked for: give a model, a capability, or headers such as X-Capability-Type";
        return Err(Error::invalid(message).into());
    }
    Ok((asked, Guess { subject, untyped }))
}

/// The signature of what a body asks for, as far as it is known.
async fn signature(
    proxy: &Proxy,
    call: &CallHead,
    body: &request::Body<'_>,
) -> Result<Option<(Subject, Signature)>, Error> {
    let capability = body.capability()?.map(Parameter::Text);
    let query = call.query(capability.as_ref(), body.model())?;
    Ok(signatures::of(proxy, &query, call.deadline()).await)
}

// === impl Guess ===

impl Guess {
    /// Tells whoever left a datatype out that it was guessed, if the refusal is about that. What was remembered of the
    /// model is not believed any more.
    fn explain(&self, proxy: &Proxy, mut refused: Refused) -> Refused {
        let error = &mut refused.error;
        if error.code != Code::InvalidInput || !error.message.contains("datatype") {
            return refused;
        }
        let named = |one: &&Untyped| error.message.contains(&format!("'{}'", one.input));
        if let Some(Untyped { input, datatype }) = self.untyped.iter().find(named) {
            let hint = format!(
                "; it was given without a datatype and taken for {datatype}: say which in the long form, \
                 {{\"name\": \"{input}\", \"datatype\": …, \"data\": …}}"
            );
            error.message.push_str(&hint);
            self.subject.iter().for_each(|subject| proxy.signatures.forget(subject));
        }
        refused
    }
}

/// How long the caller waits, if he says so.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0.0);
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wrong = || Error::invalid(format!("header 'X-Timeout-S' is {value:?}, expected seconds such as 2.5"));
    timeout.map(Some).ok_or_else(wrong)
}
