//! The caller's end of a stream of responses.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyserve_core::{Error, Response};
use anyserve_sched::Ticket;
use anyserve_wire::{Frame, message};
use futures_core::Stream;
use tokio::sync::mpsc;

use crate::dispatch::Inner;

/// Smallest cost of a chunk: what its bookkeeping takes, about.
pub(crate) const LEAST_COST: usize = 4 << 10;

/// What a chunk takes of its stream's window. Both ends count so.
pub(crate) fn cost(frame: &Frame, meta: &message::Response) -> usize {
    let tensor = |place: &message::Place| meta.outputs.get(usize::try_from(place.tensor).ok()?);
    let shared: u64 = meta.places.iter().filter_map(tensor).map(|tensor| tensor.len).fold(0, u64::saturating_add);
    let sent = frame.meta.len() + frame.body.len();
    sent.saturating_add(usize::try_from(shared).unwrap_or(usize::MAX)).max(LEAST_COST)
}

/// One response on its way to the caller, with what it took of the window; the end of a stream takes nothing.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) cost: usize,
    pub(crate) response: Result<Response, Error>,
}

/// Responses of one request; dropping it before its end cancels the request.
pub(crate) struct ResponseStream {
    pool: Arc<Inner>,
    ticket: Ticket,
    responses: mpsc::UnboundedReceiver<Part>,
    /// Taken by the caller and not yet given back to the worker as credit.
    taken: usize,
    ended: bool,
}

// === impl ResponseStream ===

impl ResponseStream {
    pub(crate) fn new(pool: Arc<Inner>, ticket: Ticket, responses: mpsc::UnboundedReceiver<Part>) -> Self {
        Self { pool, ticket, responses, taken: 0, ended: false }
    }

    fn took(&mut self, cost: usize) {
        self.taken += cost;
        if self.taken >= self.pool.config.limits.stream_window / 4 {
            self.pool.credit(self.ticket, std::mem::take(&mut self.taken));
        }
    }
}

impl Stream for ResponseStream {
    type Item = Result<Response, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.responses.poll_recv(cx));
        match &next {
            Some(Part { cost, response: Ok(_) }) => self.took(*cost),
            Some(Part { response: Err(_), .. }) | None => self.ended = true,
        }
        Poll::Ready(next.map(|part| part.response))
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        if !self.ended {
            self.pool.cancel(self.ticket);
        }
    }
}
