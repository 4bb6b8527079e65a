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
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use prost::Message as _;
use serde_json::json;

use super::infer::no_response;
use super::response::render;
use crate::proxy::{Answer, Message, Responses};

/// The body of an answer. Nothing is read of the replica before the client has taken what was read.
pub(super) struct Events {
    first: Option<Answer>,
    /// `None` after the last event.
    responses: Option<Responses>,
}

// === impl Events ===

impl Events {
    /// Events of what has come already, and of what follows.
    pub(super) fn new(first: Answer, responses: Responses) -> Self {
        Self { first: Some(first), responses: Some(responses) }
    }

    fn event(&mut self, answer: Answer) -> Bytes {
        let ended = match answer {
            Answer::Message(message) => match response(&message) {
                Ok(json) => return [b"data: ", &*json, b"\n\n"].concat().into(),
                Err(error) => Err(error),
            },
            Answer::Ended(ended) => ended.map(|_| ()).map_err(|refused| refused.error),
        };
        self.responses = None;
        let text = match ended {
            Ok(()) => "event: done\ndata: {}\n\n".to_owned(),
            Err(Error { code, message, .. }) => {
                format!("event: error\ndata: {}\n\n", json!({ "error": message, "code": code.name() }))
            }
        };
        text.into()
    }
}

/// The JSON of one response, on one line.
fn response(message: &Message) -> Result<Vec<u8>, Error> {
    let answer = ModelStreamInferResponse::decode(message.reader()).map_err(|error| no_response(&error))?;
    if !answer.error_message.is_empty() {
        return Err(Error::internal(answer.error_message));
    }
    render(&answer.infer_response.unwrap_or_default())
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(responses) = &mut this.responses else { return Poll::Ready(None) };
        let answer = match this.first.take() {
            Some(first) => Some(first),
            None => ready!(responses.poll_next_unpin(cx)),
        };
        Poll::Ready(answer.map(|answer| Ok(Frame::data(this.event(answer)))))
    }
}
