//! The body of an answer, frame by frame as the replica sends it.

use std::pin::Pin;
use std::task::{Context, Poll};

use anyserve_cluster::Event;
use anyserve_server::BodyError;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::carry::{Begun, Rest};
use super::flight::Flight;
use super::passing::Passing;

/// Nothing is read of the replica before the client has taken what was read: flow control goes through.
pub(crate) struct Relay<R> {
    /// `None` once the trailers are written.
    flight: Option<Flight>,
    body: Rest,
    passing: Passing,
    /// What is left of the request: to drop it would tell the client that it is not wanted.
    _request: R,
}

// === impl Relay ===

impl<R> Relay<R> {
    /// The body, of one message of at most `max` bytes, and the headers before it.
    pub(crate) fn of(begun: Begun, max: usize, request: R) -> (HeaderMap, Self) {
        let Begun { flight, headers, body } = begun;
        (headers, Self { flight: Some(flight), body, passing: Passing::new(max), _request: request })
    }

    /// What is passed on, unless it is the beginning of a message that is too long.
    fn pass(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        match frame.data_ref().map_or(Ok(()), |data| self.passing.look(data)) {
            Ok(()) => Some(frame),
            Err(error) => {
                let event = error.of_replica(self.flight.as_ref()?.replica());
                self.fail(event)
            }
        }
    }

    /// The end, by an event that the replica did not tell.
    fn fail(&mut self, event: Event) -> Option<Frame<Bytes>> {
        let refused = self.flight.take()?.fail(event);
        Some(Frame::trailers(*refused.trailers))
    }

    fn end(&mut self, trailers: HeaderMap) -> Option<Frame<Bytes>> {
        let trailers = self.flight.take()?.end(trailers).unwrap_or_else(|refused| *refused.trailers);
        Some(Frame::trailers(trailers))
    }
}

impl<R: Unpin> Body for Relay<R> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(flight) = &mut this.flight else { return Poll::Ready(None) };
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_trailers() {
                Ok(trailers) => this.end(trailers),
                Err(frame) => this.pass(frame),
            },
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "an answer broke");
                this.fail(Event::Broken { emitted: true })
            }
            Poll::Ready(None) => this.fail(Event::Broken { emitted: true }),
            Poll::Pending => {
                std::task::ready!(flight.poll_late(cx));
                this.fail(Event::Late)
            }
        };
        Poll::Ready(frame.map(Ok))
    }
}
