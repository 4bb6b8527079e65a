//! The answers of a replica to one request, message by message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyserve_cluster::Event;
use anyserve_core::Error;
use futures_util::stream::Stream;
use http::{HeaderMap, HeaderValue};

use super::carry::{Begun, Rest};
use super::failure::Refused;
use super::flight::Flight;
use super::front::Proxy;
use super::message::{Message, Messages};

/// What comes of a request: messages, then its end.
#[derive(Debug)]
pub(crate) enum Answer {
    /// One more.
    Message(Message),
    /// No more. The trailers, or why it failed.
    Ended(Result<HeaderMap, Refused>),
}

/// It ends with one [`Answer::Ended`]. Dropped before that, the request is cancelled.
pub(crate) struct Responses {
    flight: Option<Flight>,
    messages: Messages<Rest>,
    /// Messages may be compressed: they are so as the client expects it.
    compressed: bool,
}

// === impl Responses ===

impl Responses {
    /// The answers that have begun. `encoding` is how the client expects compressed ones.
    pub(crate) fn of(proxy: &Proxy, begun: Begun, encoding: Option<&str>) -> Self {
        let Begun { flight, headers, body } = begun;
        let told = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
        let compressed = told.is_some() && told == encoding.map(str::as_bytes);
        let messages = Messages::new(body, proxy.limits.max_message, proxy.budget.clone());
        Self { flight: Some(flight), messages, compressed }
    }

    /// The next one, or `None` after the end.
    pub(crate) async fn next(&mut self) -> Option<Answer> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some(flight) = &mut self.flight else { return Poll::Ready(None) };
        let event = match self.messages.poll_next(cx) {
            Poll::Ready(Ok(Some(message))) if self.compressed || !message.is_compressed() => {
                return Poll::Ready(Some(Answer::Message(message)));
            }
            Poll::Ready(Ok(Some(_))) => {
                let error = Error::internal("a replica compressed its answer unasked");
                Event::Failed { error, emitted: true }
            }
            Poll::Ready(Ok(None)) => match self.messages.take_trailers() {
                Some(trailers) => {
                    return Poll::Ready(self.flight.take().map(|flight| Answer::Ended(flight.end(trailers))));
                }
                None => Event::Broken { emitted: true },
            },
            Poll::Ready(Err(error)) => error.of_replica(flight.replica()),
            Poll::Pending => {
                ready!(flight.poll_late(cx));
                Event::Late
            }
        };
        Poll::Ready(self.flight.take().map(|flight| Answer::Ended(Err(flight.fail(event)))))
    }
}

impl Stream for Responses {
    type Item = Answer;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.get_mut().poll(cx)
    }
}
