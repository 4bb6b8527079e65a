//! A small question to a replica that is no request of a client: one message out, one in, and not for long.

use std::time::Duration;

use anyserve_cluster::Target;
use anyserve_server::parts::Budget;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};

use super::front::Proxy;
use super::message::{Message, Messages};
use crate::replicas::{Arriving, Head, Lost};

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
    path: &'static str,
    question: &impl prost::Message,
    max: usize,
) -> Result<Inquired, Lost> {
    let message = Message::framed(question).map_err(|error| Lost::Unreached(error.message))?;
    let head = Head { path, headers: headers() };
    let answer = async {
        let sent = proxy.replicas.send(target, head, &message, |handle| proxy.fleet.knows(handle)).await?;
        read(sent.into_parts(), max).await
    };
    let late = |_| Lost::Unreached(format!("no answer within {TIMEOUT:?}"));
    tokio::time::timeout(TIMEOUT, answer).await.map_err(late)?
}

fn headers() -> HeaderMap {
    let pairs = [(CONTENT_TYPE, "application/grpc"), (TE, "trailers")];
    pairs.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
}

async fn read((head, body): (http::response::Parts, Arriving), max: usize) -> Result<Inquired, Lost> {
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
