//! The body of a request to a replica: a message that is there, written from where it lies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::proxy::Message;

/// A message, shared with whoever may have to send it again.
#[derive(Debug)]
pub(crate) struct Outgoing {
    message: Arc<Message>,
    next: usize,
}

// === impl Outgoing ===

impl Outgoing {
    /// A body of one message.
    pub(crate) fn new(message: Arc<Message>) -> Self {
        Self { message, next: 0 }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.message.pieces().get(self.next).cloned();
        self.next += 1;
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.message.pieces().len()
    }
}
