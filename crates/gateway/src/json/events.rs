//! Responses as server-sent events.
//!
//! ```text
//! data: {response}                            one for each response
//! event: error  data: {"error", "code"}       it failed; the last one
//! event: done   data: {}                      it ended well; the last one
//! ```
//!
//! Source: HTML Living Standard, "Server-sent events".

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyserve_core::Error;
use anyserve_proto::inference::ModelStreamInferResponse;
use anyserve_server::BodyError;
use anyserve_server::parts::Budget;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use serde_json::json;

use super::infer::{self, Decoded, decoded};
use super::paid::Paid;
use crate::proxy::{Answer, Message, Responses};

/// The body of an answer. Nothing is read of the replica before the client has taken what was read.
pub(super) struct Events {
    budget: Budget,
    /// Of the newest event what the client has not taken.
    written: Paid,
    first: Option<Answer>,
    /// `None` after the last event.
    responses: Option<Responses>,
}

// === impl Events ===

impl Events {
    /// Events of what has come already, and of what follows.
    pub(super) fn new(first: Answer, responses: Responses, budget: &Budget) -> Self {
        let (budget, written) = (budget.clone(), Paid::new(budget));
        Self { budget, written, first: Some(first), responses: Some(responses) }
    }

    /// Writes the event of an answer: all of it, or that it failed.
    fn write(&mut self, answer: Answer) {
        self.written = Paid::new(&self.budget);
        let ended = match answer {
            Answer::Message(message) => match response(&self.budget, message, &mut self.written) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
            Answer::Ended(ended) => ended.map(|_| ()).map_err(|refused| refused.error),
        };
        self.responses = None;
        self.written = Paid::new(&self.budget);
        let text = match ended {
            Ok(()) => "event: done\ndata: {}\n\n".to_owned(),
            Err(Error { code, message, .. }) => {
                format!("event: error\ndata: {}\n\n", json!({ "error": message, "code": code.name() }))
            }
        };
        self.written.push(text.into());
    }
}

/// The event of one response: its JSON on one line.
fn response(budget: &Budget, message: Message, out: &mut Paid) -> Result<(), Error> {
    let mut answer: Decoded<ModelStreamInferResponse> = decoded(budget, &message)?;
    drop(message);
    if !answer.message.error_message.is_empty() {
        return Err(Error::internal(std::mem::take(&mut answer.message.error_message)));
    }
    out.put(b"data: ")?;
    infer::write(answer.message.infer_response.get_or_insert_default(), out)?;
    out.put(b"\n\n")
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(piece) = this.written.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(responses) = &mut this.responses else { return Poll::Ready(None) };
        let answer = match this.first.take() {
            Some(first) => Some(first),
            None => ready!(responses.poll_next_unpin(cx)),
        };
        let Some(answer) = answer else { return Poll::Ready(None) };
        this.write(answer);
        Poll::Ready(this.written.pop().map(|piece| Ok(Frame::data(piece))))
    }
}
