//! One `ModelStreamInfer` call: many requests in, any number of responses out.
//!
//! ```text
//! messages ─► pending ─┬─► One:  waits in `turns` until every earlier request has been answered or streams
//!  (read while there   └─► Many: its responses go out as they come
//!   is room)
//! ```
//!
//! It is polled by the body that is written to the client, so nothing is read, run or produced faster than the client
//! takes the answers. Dropping it cancels every request in flight.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use anyserve_core::{Code, Error, Expects, Parameter, Reply, Request, Response, Responses};
use anyserve_proto::inference::ModelInferRequest;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, SelectAll, Stream, StreamExt};
use hyper::body::Incoming;
use tower::ServiceExt;

use super::decode::{Decode, decode};
use super::encode::{Encoder, Envelope};
use super::framing::{Message, Messages};
use super::metadata::Metadata;
use super::reply::Asked;
use super::shared::Sharing;
use super::unary::malformed;
use crate::Upstream;
use crate::body::Chunks;
use crate::budget::Charge;
use crate::metrics::Call;
use crate::route::{App, panicked};

/// Tells whether a response is its request's last; only for those who asked.
const FINAL: &str = "triton_final_response";

/// What a poll of a session came to.
pub(super) enum Progress {
    /// Bytes for the client.
    Data(Bytes),
    /// Nothing now; the waker is registered.
    Waiting,
    /// Nothing any more.
    Ended(Result<(), Error>),
}

/// The state of one call.
pub(super) struct Session<S: Upstream> {
    app: Arc<App<S>>,
    metadata: Metadata,
    encoder: Encoder,
    messages: Messages<Incoming>,
    /// How reading ended; `None` while it goes on.
    read: Option<Result<(), Error>>,
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Settled> + Send>>>,
    /// Requests in the order of their arrival that have neither been answered nor begun to stream.
    turns: BTreeMap<u64, Option<Settled>>,
    arrived: u64,
    streams: SelectAll<Streaming>,
    out: Chunks,
    /// What ends the call before its requests are answered.
    fatal: Option<Error>,
}

/// A request of the session, without its tensors.
struct Ticket {
    turn: u64,
    asked: Asked,
    wants_final: bool,
    call: Call,
    _charge: Option<Charge>,
    /// What copies of its inputs take.
    copies: Option<Charge>,
}

/// A request whose reply is there.
struct Settled {
    ticket: Ticket,
    reply: Result<Reply, Error>,
}

/// A request whose responses come one by one. It ends with one `None`.
struct Streaming {
    ticket: Option<Ticket>,
    responses: Responses,
}

/// What a stream of responses came to.
enum Event {
    /// A response, with `triton_final_response` if that was asked for.
    Response(Response),
    /// No further response.
    Ended(Ticket, Result<(), Error>),
}

// === impl Session ===

impl<S: Upstream> Session<S> {
    pub(super) fn new(app: Arc<App<S>>, messages: Messages<Incoming>, metadata: Metadata) -> Self {
        let max_message = app.limits.max_message;
        let encoder = Encoder { envelope: Envelope::Stream, encoding: metadata.answer, max_message };
        Self {
            app,
            metadata,
            encoder,
            messages,
            read: None,
            pending: FuturesUnordered::new(),
            turns: BTreeMap::new(),
            arrived: 0,
            streams: SelectAll::new(),
            out: Chunks::default(),
            fatal: None,
        }
    }

    /// Stops reading; once the requests in flight are answered, the call ends with `error`.
    pub(super) fn refuse_further(&mut self, error: Error) {
        self.read.get_or_insert(Err(error));
    }

    /// Makes as much progress as there can be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        while self.fatal.is_none() && !self.out.is_plenty() {
            match self.step(cx) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.fatal = Some(error),
            }
        }
        // What was answered before an error is written before it.
        if let Some(data) = self.out.pop() {
            return Progress::Data(data);
        }
        if let Some(error) = self.fatal.take() {
            return Progress::Ended(Err(error));
        }
        match &self.read {
            Some(end) if self.in_flight() == 0 => Progress::Ended(end.clone()),
            _ => Progress::Waiting,
        }
    }

    /// Does one thing, if there is one to do.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if let Poll::Ready(Some(event)) = self.streams.poll_next_unpin(cx) {
            return self.on_event(event).map(|()| true);
        }
        if let Poll::Ready(Some(settled)) = self.pending.poll_next_unpin(cx) {
            return self.on_settled(settled).map(|()| true);
        }
        if self.read.is_some() || self.in_flight() >= self.app.max_stream_requests {
            return Ok(false);
        }
        match self.messages.poll_next(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(Some(message))) => self.on_message(message)?,
            Poll::Ready(Ok(None)) => self.read = Some(Ok(())),
            Poll::Ready(Err(error)) => self.read = Some(Err(error)),
        }
        Ok(true)
    }

    fn in_flight(&self) -> usize {
        self.turns.len() + self.streams.len()
    }

    fn on_message(&mut self, message: Message) -> Result<(), Error> {
        let now = Instant::now();
        let Message { data, charge } = message;
        let message: ModelInferRequest = match data.decode() {
            Ok(message) => message,
            Err(error) => {
                // What follows cannot be trusted either; what came before is answered.
                self.read = Some(Err(malformed(&error)));
                return Ok(());
            }
        };
        let call = self.app.begin(&message.model_name, now);
        let (id, model) = (message.id.clone(), message.model_name.clone());
        let turn = self.arrived;
        self.arrived += 1;
        let asked = Asked { id, model, outputs: Vec::new(), shared: Vec::new() };
        let mut ticket = Ticket { turn, asked, wants_final: false, call, _charge: charge, copies: None };
        match decode(message, &self.metadata, Expects::Many, &self.app.limits, Sharing::of(&self.app)) {
            Ok(Decode { request, wants_final, shared, charge }) => {
                (ticket.wants_final, ticket.asked.shared, ticket.copies) = (wants_final, shared, charge);
                ticket.asked.outputs.clone_from(&request.outputs);
                self.turns.insert(turn, None);
                self.pending.push(settle(self.app.upstream.clone(), request, ticket));
                Ok(())
            }
            Err(error) => {
                self.turns.insert(turn, Some(Settled { ticket, reply: Err(error) }));
                self.answer_in_turn()
            }
        }
    }

    fn on_settled(&mut self, settled: Settled) -> Result<(), Error> {
        let Settled { ticket, reply } = settled;
        if let Ok(Reply::Many(responses)) = reply {
            self.turns.remove(&ticket.turn);
            self.streams.push(Streaming { ticket: Some(ticket), responses });
        } else {
            self.turns.insert(ticket.turn, Some(Settled { ticket, reply }));
        }
        self.answer_in_turn()
    }

    /// Answers every request that has no unanswered one before it.
    fn answer_in_turn(&mut self) -> Result<(), Error> {
        while let Some(mut first) = self.turns.first_entry() {
            let Some(Settled { ticket, reply }) = first.get_mut().take() else { break };
            first.remove();
            self.answer(ticket, reply)?;
        }
        Ok(())
    }

    fn answer(&mut self, mut ticket: Ticket, reply: Result<Reply, Error>) -> Result<(), Error> {
        let ended = reply.and_then(|reply| match reply {
            Reply::One(response) => self.write_one(&ticket, response),
            Reply::Many(_) => Err(Error::internal("a stream of responses has no turn to wait for")),
        });
        ticket.call.finish(ended.as_ref().err().map(|error| error.code));
        ended.or_else(|error| self.fail(&ticket, error))
    }

    fn write_one(&mut self, ticket: &Ticket, mut response: Response) -> Result<(), Error> {
        ticket.asked.check(&response)?;
        ticket.restore(&mut response, true)?;
        self.encoder.response(response, &mut self.out)
    }

    fn on_event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Response(response) => self.encoder.response(response, &mut self.out),
            Event::Ended(mut ticket, ended) => {
                ticket.call.finish(ended.as_ref().err().map(|error| error.code));
                match ended {
                    Ok(()) => self.write_final(&ticket),
                    Err(error) => self.fail(&ticket, error),
                }
            }
        }
    }

    /// The empty response at the end, for those who asked for it.
    fn write_final(&mut self, ticket: &Ticket) -> Result<(), Error> {
        if !ticket.wants_final {
            return Ok(());
        }
        let mut response = Response::default();
        ticket.restore(&mut response, true)?;
        self.encoder.response(response, &mut self.out)
    }

    /// Tells the client that a request failed: inside the stream or, if it wants that or its own deadline is over, by
    /// the stream's end.
    fn fail(&mut self, ticket: &Ticket, error: Error) -> Result<(), Error> {
        let over = |at| error.code == Code::Deadline && at <= Instant::now();
        if self.metadata.fatal_errors || self.metadata.deadline.is_some_and(over) {
            return Err(error);
        }
        self.encoder.error(&error, &ticket.asked.id, &mut self.out);
        Ok(())
    }
}

/// Runs one request up to its reply. A panic is a reply, too.
fn settle<S: Upstream>(upstream: S, request: Request, ticket: Ticket) -> Pin<Box<dyn Future<Output = Settled> + Send>> {
    Box::pin(async move {
        let reply = AssertUnwindSafe(upstream.oneshot(request)).catch_unwind().await;
        let reply = reply.unwrap_or_else(|panic| Err(panicked(&*panic)));
        Settled { ticket, reply }
    })
}

// === impl Ticket ===

impl Ticket {
    fn restore(&self, response: &mut Response, last: bool) -> Result<(), Error> {
        self.asked.restore(response)?;
        if self.wants_final {
            response.parameters.retain(|(name, _)| name != FINAL);
            response.parameters.push((FINAL.to_owned(), Parameter::Bool(last)));
        }
        Ok(())
    }
}

// === impl Streaming ===

impl Stream for Streaming {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        let Some(ticket) = &this.ticket else { return Poll::Ready(None) };
        let responses = &mut this.responses;
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| responses.poll_next_unpin(cx)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(Ok(mut response)))) => match ticket.restore(&mut response, false) {
                Ok(()) => return Poll::Ready(Some(Event::Response(response))),
                Err(error) => Err(error),
            },
            Ok(Poll::Ready(Some(Err(error)))) => Err(error),
            Ok(Poll::Ready(None)) => Ok(()),
            Err(panic) => Err(panicked(&*panic)),
        };
        Poll::Ready(this.ticket.take().map(|ticket| Event::Ended(ticket, ended)))
    }
}
