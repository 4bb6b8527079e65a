//! One `ModelStreamInfer` call: every message of it is a request of its own, to whichever replica serves it.
//!
//! ```text
//! messages ─► pending ─► its first answer waits in `turns` until every ─► streams: further answers
//!  (read while there      earlier request has answered or ended             go out as they come
//!   is room)
//! ```
//!
//! It is polled by the body that is written to the client, so nothing is read, sent or taken from replicas faster than the
//! client takes the answers. Dropping it cancels every request in flight.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use anyserve_core::{Code, Error};
use anyserve_server::parts::{CallHead, Charge, Chunks, panicked, stream_error};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, SelectAll, Stream, StreamExt};
use http::HeaderMap;
use hyper::body::Incoming;

use super::asked::{Ask, Asked, look};
use super::carry::carry;
use super::failure::Refused;
use super::front::Proxy;
use super::message::{Message, Messages, ReadError};
use super::responses::{Answer, Responses};

/// What a poll of a session came to.
pub(crate) enum Progress {
    /// Bytes for the client.
    Data(Bytes),
    /// Nothing now; the waker is registered.
    Waiting,
    /// Nothing any more.
    Ended(Result<(), Refused>),
}

/// The state of one call.
pub(crate) struct Session {
    proxy: Arc<Proxy>,
    head: CallHead,
    /// Those that go along with every request.
    headers: Arc<HeaderMap>,
    messages: Messages<Incoming>,
    /// How reading ended; `None` while it goes on.
    read: Option<Result<(), Error>>,
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Settled> + Send>>>,
    /// Requests in the order of their arrival that have neither answered nor ended.
    turns: BTreeMap<u64, Option<Settled>>,
    arrived: u64,
    streams: SelectAll<Answering>,
    /// Answers for the client; small ones are gathered.
    out: Chunks,
    /// The memory of those in `out`.
    charges: Vec<Charge>,
    /// What ends the call before its requests are answered.
    fatal: Option<Refused>,
}

/// A request whose first answer is there, or that failed before it.
struct Settled {
    turn: u64,
    id: String,
    outcome: Result<(Answer, Box<Responses>), Refused>,
}

/// The answers of one request. It ends with one `None`.
struct Answering {
    id: String,
    responses: Box<Responses>,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(proxy: &Arc<Proxy>, head: CallHead, headers: HeaderMap, body: Incoming) -> Self {
        Self {
            proxy: Arc::clone(proxy),
            head,
            headers: Arc::new(headers),
            messages: Messages::new(body, proxy.limits.max_message, proxy.budget.clone()),
            read: None,
            pending: FuturesUnordered::new(),
            turns: BTreeMap::new(),
            arrived: 0,
            streams: SelectAll::new(),
            out: Chunks::default(),
            charges: Vec::new(),
            fatal: None,
        }
    }

    /// Stops reading; once the requests in flight are answered, the call ends with `error`.
    pub(crate) fn refuse_further(&mut self, error: Error) {
        self.read.get_or_insert(Err(error));
    }

    /// Makes as much progress as there can be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        while self.fatal.is_none() && !self.out.is_plenty() {
            match self.step(cx) {
                Ok(true) => {}
                Ok(false) => break,
                Err(refused) => self.fatal = Some(refused),
            }
        }
        // What was answered before an error is written before it.
        if let Some(data) = self.out.pop() {
            return Progress::Data(data);
        }
        self.charges.clear();
        if let Some(refused) = self.fatal.take() {
            return Progress::Ended(Err(refused));
        }
        match &self.read {
            Some(end) if self.in_flight() == 0 => Progress::Ended(end.clone().map_err(Refused::from)),
            _ => Progress::Waiting,
        }
    }

    /// Does one thing, if there is one to do.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, Refused> {
        if let Poll::Ready(Some((id, answer))) = self.streams.poll_next_unpin(cx) {
            return self.on_answer(&id, answer).map(|()| true);
        }
        if let Poll::Ready(Some(settled)) = self.pending.poll_next_unpin(cx) {
            self.turns.insert(settled.turn, Some(settled));
            return self.begin_in_turn().map(|()| true);
        }
        if self.read.is_some() || self.in_flight() >= self.proxy.max_stream_requests {
            return Ok(false);
        }
        match self.messages.poll_next(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Some(message))) => self.on_message(message)?,
            Poll::Ready(Ok(None)) => self.read = Some(Ok(())),
            Poll::Ready(Err(error)) => self.read = Some(Err(ReadError::of_client(error))),
        }
        Ok(true)
    }

    fn in_flight(&self) -> usize {
        self.turns.len() + self.streams.len()
    }

    fn on_message(&mut self, message: Message) -> Result<(), Refused> {
        let found = match look(&self.proxy, Ask::Stream, &self.head, &message) {
            Ok(found) => found,
            Err(error) => {
                // What follows cannot be trusted either; what came before is answered.
                self.read = Some(Err(error));
                return Ok(());
            }
        };
        let (turn, id) = (self.arrived, found.id.clone());
        self.arrived += 1;
        match Asked::of(Ask::Stream, &self.head, Arc::clone(&self.headers), message, found) {
            Ok(asked) => {
                self.turns.insert(turn, None);
                self.pending.push(settle(Arc::clone(&self.proxy), asked, turn, self.head.answer_encoding()));
                Ok(())
            }
            Err(error) => {
                self.turns.insert(turn, Some(Settled { turn, id, outcome: Err(error.into()) }));
                self.begin_in_turn()
            }
        }
    }

    /// Writes the first answer of every request that has none before it which has not answered.
    fn begin_in_turn(&mut self) -> Result<(), Refused> {
        while let Some(mut first) = self.turns.first_entry() {
            let Some(Settled { id, outcome, .. }) = first.get_mut().take() else { break };
            first.remove();
            match outcome {
                Ok((first, responses)) => {
                    self.on_answer(&id, first)?;
                    self.streams.push(Answering { id, responses });
                }
                Err(refused) => self.fail(&id, refused)?,
            }
        }
        Ok(())
    }

    fn on_answer(&mut self, id: &str, answer: Answer) -> Result<(), Refused> {
        match answer {
            Answer::Message(message) => {
                self.write(message);
                Ok(())
            }
            Answer::Ended(Ok(_)) => Ok(()),
            Answer::Ended(Err(refused)) => self.fail(id, refused),
        }
    }

    /// Tells the client that a request failed: inside the stream or, if it wants that or its own deadline is over, by
    /// the stream's end.
    fn fail(&mut self, id: &str, refused: Refused) -> Result<(), Refused> {
        let over = |at| refused.error.code == Code::Deadline && at <= Instant::now();
        if self.head.fatal_errors() || self.head.deadline().is_some_and(over) {
            return Err(refused);
        }
        self.write(stream_error(&refused.error, id).into());
        Ok(())
    }

    fn write(&mut self, message: Message) {
        let (pieces, charge) = message.into_pieces();
        for piece in pieces {
            self.out.push(piece);
        }
        self.charges.extend(charge);
    }
}

/// Runs one request up to its first answer. A panic is an end, too.
fn settle(
    proxy: Arc<Proxy>,
    asked: Asked,
    turn: u64,
    encoding: Option<&'static str>,
) -> Pin<Box<dyn Future<Output = Settled> + Send>> {
    Box::pin(async move {
        let first = AssertUnwindSafe(first(&proxy, &asked, encoding)).catch_unwind().await;
        let outcome = first.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
        Settled { turn, id: asked.id, outcome }
    })
}

async fn first(proxy: &Arc<Proxy>, asked: &Asked, encoding: Option<&str>) -> Result<(Answer, Box<Responses>), Refused> {
    let begun = carry(proxy, asked).await?;
    let mut responses = Box::new(Responses::of(proxy, begun, encoding));
    let first = responses.next().await;
    let first = first.ok_or_else(|| Error::internal("an answer has no end"))?;
    Ok((first, responses))
}

// === impl Answering ===

impl Stream for Answering {
    type Item = (String, Answer);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<(String, Answer)>> {
        let answer = std::task::ready!(self.responses.poll_next_unpin(cx));
        Poll::Ready(answer.map(|answer| {
            let ended = matches!(answer, Answer::Ended(_));
            (if ended { std::mem::take(&mut self.id) } else { String::new() }, answer)
        }))
    }
}
