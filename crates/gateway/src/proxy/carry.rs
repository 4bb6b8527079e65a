//! Carrying out what a route says, until an answer begins or there is none.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyserve_cluster::{Event, Step, Target};
use anyserve_core::{Code, Error};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;

use super::asked::Asked;
use super::failure::{Refused, failure};
use super::flight::Flight;
use super::front::Proxy;
use super::{headers, serves};
use crate::replicas::{Arriving, Lost};

/// An answer that has begun: with data, or with a good end without any.
pub(crate) struct Begun {
    /// The request, which is told how the answer ends.
    pub(crate) flight: Flight,
    /// The headers of the answer, but those of the connection.
    pub(crate) headers: HeaderMap,
    /// What there is of it.
    pub(crate) body: Rest,
}

/// A body whose first frame was looked at.
pub(crate) struct Rest {
    first: Option<Frame<Bytes>>,
    body: Arriving,
}

/// What a request that was sent came to.
enum Sent {
    Begun(HeaderMap, Rest),
    Event(Event),
    /// The replica's error, with its trailers.
    Failed(Error, HeaderMap),
}

/// Has a request answered.
///
/// # Errors
/// [`Refused`] if nobody serves it, or whoever had it failed.
///
/// # Cancel safety
/// Dropping it cancels the request wherever it is.
pub(crate) async fn carry(proxy: &Arc<Proxy>, asked: &Asked) -> Result<Begun, Refused> {
    let (mut flight, mut step) = Flight::begin(proxy, asked);
    loop {
        let event = match step {
            Step::Ask(target) => flight.within(serves::ask(proxy, asked, &target)).await,
            Step::Send(target) => {
                flight.sent(target.clone());
                match flight.within(send(proxy, asked, &target)).await {
                    Some(Sent::Begun(headers, body)) => return Ok(Begun { flight, headers, body }),
                    Some(Sent::Failed(error, trailers)) => Some(flight.failed(error, trailers)),
                    Some(Sent::Event(event)) => Some(event),
                    None => None,
                }
            }
            Step::Over(Err(error)) => return Err(flight.refused(error)),
            Step::Over(Ok(())) => return Err(flight.refused(Error::internal("a request ended without an answer"))),
        };
        step = flight.on(event.unwrap_or(Event::Late));
    }
}

/// Sends a request to a replica and waits for what decides: the beginning of an answer, or an error.
async fn send(proxy: &Proxy, asked: &Asked, target: &Target) -> Sent {
    match proxy.replicas.send(target, asked.head(target), asked.message(), |handle| proxy.fleet.knows(handle)).await {
        Ok(response) => begin(response, target).await,
        Err(lost) => Sent::Event(event(&lost, target)),
    }
}

/// What the loss of a request means before its answer began.
pub(crate) fn event(lost: &Lost, target: &Target) -> Event {
    tracing::debug!(%lost, replica = &*target.id, "a request was lost");
    match lost {
        Lost::Unreached(_) => Event::Unreached,
        Lost::Broken(_) => Event::Broken { emitted: false },
    }
}

async fn begin(response: Response<Arriving>, target: &Target) -> Sent {
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    if headers.contains_key("grpc-status") {
        return ended(headers, HeaderMap::new(), body, target);
    }
    if let Some(error) = no_grpc(head.status, &headers, target) {
        let trailers = Refused::from(error.clone()).trailers;
        return Sent::Failed(error, *trailers);
    }
    headers::of_answer(&mut headers);
    first(headers, body, target).await
}

/// Waits for the first frame that says something. A replica that has sent headers has begun the request, whatever it says
/// later.
async fn first(headers: HeaderMap, mut body: Arriving, target: &Target) -> Sent {
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Sent::Event(event(&Lost::begun(&error), target)),
            None => return Sent::Event(Event::Broken { emitted: false }),
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => return Sent::Begun(headers, Rest { first: Some(Frame::data(data)), body }),
            Err(frame) => return ended(frame.into_trailers().unwrap_or_default(), headers, body, target),
        }
    }
}

/// The call ended without data.
fn ended(trailers: HeaderMap, headers: HeaderMap, body: Arriving, target: &Target) -> Sent {
    match failure(&trailers, target) {
        Some(error) => Sent::Failed(error, trailers),
        None => Sent::Begun(headers, Rest { first: Some(Frame::trailers(trailers)), body }),
    }
}

/// What is wrong with a response that is none of gRPC.
fn no_grpc(status: StatusCode, headers: &HeaderMap, target: &Target) -> Option<Error> {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if status == StatusCode::OK && grpc {
        return None;
    }
    let message = format!("replica '{}' answered with HTTP status {status} and no gRPC", target.id);
    Some(Error::new(Code::Unavailable, message))
}

// === impl Rest ===

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }
}
