//! A small question to a replica that is no request of a client: one message out, one in, and not for long.

use std::sync::Arc;
use std::time::Duration;

use anyserve_cluster::Target;
use anyserve_server::parts::Budget;
use http::Request;
use http::header::{CONTENT_TYPE, TE};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::front::Proxy;
use super::message::{Message, Messages};
use crate::replicas::{Lost, Outgoing};

/// How long a replica may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a replica answered: its last message if there was one, or the status that it failed with.
pub(crate) type Inquired = Result<Option<Message>, Code>;

/// Asks a replica by a method. Its answer is read if it has no more than `max` bytes.
///
/// # Errors
/// [`Lost`] for a replica that cannot be reached, or does not answer in time.
///
/// # Cancel safety
/// Dropping it cancels the question at the replica.
pub(crate) async fn inquire(
    proxy: &Proxy,
    target: &Target,
    path: &str,
    question: &impl prost::Message,
    max: usize,
) -> Result<Inquired, Lost> {
    let request = request(target, path, question).map_err(Lost::Unreached)?;
    let answer = async {
        let sent = proxy.replicas.send(target, request, |handle| proxy.fleet.knows(handle)).await?;
        read(sent.into_parts(), max).await
    };
    let late = |_| Lost::Unreached(format!("no answer within {TIMEOUT:?}"));
    tokio::time::timeout(TIMEOUT, answer).await.map_err(late)?
}

fn request(target: &Target, path: &str, question: &impl prost::Message) -> Result<Request<Outgoing>, String> {
    let message = Message::framed(question).map_err(|error| error.message)?;
    let uri = format!("{}{path}", target.endpoint.trim_end_matches('/'));
    let request = Request::post(uri).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
    let request = request.body(Outgoing::new(Arc::new(message)));
    request.map_err(|error| format!("endpoint '{}': {error}", target.endpoint))
}

async fn read((head, body): (http::response::Parts, Incoming), max: usize) -> Result<Inquired, Lost> {
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(ended(&status, None));
    }
    let mut messages = Messages::new(body, max, Budget::of(max));
    let broken = |error| Lost::Broken(format!("{error:?}"));
    let mut last = None;
    while let Some(message) = messages.next().await.map_err(broken)? {
        last = Some(message);
    }
    let status = messages.take_trailers().as_ref().and_then(Status::from_header_map);
    Ok(status.map_or(Err(Code::Unknown), |status| ended(&status, last)))
}

fn ended(status: &Status, message: Option<Message>) -> Inquired {
    if status.code() == Code::Ok { Ok(message) } else { Err(status.code()) }
}
