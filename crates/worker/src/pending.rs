//! What the pool keeps of a request until it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Destination, Error, Fingerprint, Parameter, Request, Response};
use anyserve_sched::{GroupId, Payload};
use anyserve_shm::BlockId;
use anyserve_wire::request_to_frame;
use bytes::Bytes;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::memory::{SharedMemory, block_of};
use crate::receive::Outcome;
use crate::statistics::Counters;
use crate::stream::Part;

/// A request as it goes to a worker; kept until it is over, so that it can be sent again.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) group: GroupId,
    pub(crate) handler: u32,
    /// `message::Request` without what is known only when it is sent.
    pub(crate) meta: Bytes,
    /// The inputs' bytes, in order.
    pub(crate) inputs: Vec<Input>,
    /// Blocks of the arena that inputs lie in, one for each such input.
    pub(crate) blocks: Vec<BlockId>,
    /// Where outputs are to be written.
    pub(crate) destinations: Vec<Destination>,
    /// Objects that the request refers to; they are there as long as it is.
    _held: Vec<Bytes>,
}

/// The bytes of one input.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) bytes: Bytes,
    /// They lie in shared memory, so that only their place is sent.
    pub(crate) shared: bool,
}

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) enum Caller {
    /// For one response.
    One(oneshot::Sender<Result<Response, Error>>),
    /// For a stream of them. Its memory is bounded by the stream's window.
    Many { responses: mpsc::UnboundedSender<Part>, unread: usize },
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) parcel: Parcel,
    pub(crate) caller: Caller,
    pub(crate) echo: Echo,
    pub(crate) counters: Arc<Counters>,
    pub(crate) arrived: Instant,
    pub(crate) sent: Option<Instant>,
    /// How often it was sent to a worker.
    attempts: u32,
    /// Its caller has been given a part of the answer.
    emitted: bool,
}

/// Parameter of a response: how often the request was sent to a worker; once if it is not there.
const ATTEMPTS: &str = "anyserve_attempts";

/// What every response repeats of its request.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    id: String,
    model: String,
    version: String,
}

// === impl Parcel ===

impl Parcel {
    /// Encodes a request for the handler at this place of the worker's table. `held` is kept as long as the parcel.
    ///
    /// # Errors
    /// `INVALID_INPUT` if everything but the tensors' bytes is larger than a frame's metadata may be.
    pub(crate) fn try_new(
        request: &mut Request,
        (group, handler): (GroupId, u32),
        max_meta: usize,
        memory: &SharedMemory,
        held: Vec<Bytes>,
    ) -> Result<Self, Error> {
        let mut frame = request_to_frame(request);
        memory.place(request, &mut frame);
        let meta = frame.encode_to_vec();
        // 64 bytes are more than the four numbers need that are added on sending.
        if meta.len() + 64 > max_meta {
            let message =
                format!("the request has {} bytes beside its tensors, at most {max_meta} are allowed", meta.len());
            return Err(Error::invalid(message));
        }
        let mut inputs: Vec<_> =
            request.inputs.drain(..).map(|tensor| Input { bytes: tensor.data, shared: false }).collect();
        for place in &frame.places {
            inputs[usize::try_from(place.tensor).expect("tensors are few")].shared = true;
        }
        let blocks = frame.places.iter().filter_map(block_of).collect();
        let destinations = std::mem::take(&mut request.destinations);
        Ok(Self { group, handler, meta: meta.into(), inputs, blocks, destinations, _held: held })
    }

    /// The bytes that go over the socket.
    pub(crate) fn body(&self) -> impl Iterator<Item = &Bytes> {
        self.inputs.iter().filter(|input| !input.shared).map(|input| &input.bytes)
    }

    pub(crate) fn body_len(&self) -> usize {
        self.body().map(Bytes::len).sum()
    }
}

// === impl Echo ===

impl Echo {
    pub(crate) fn of(request: &mut Request, version: &str) -> Self {
        let (id, model) = (std::mem::take(&mut request.id), std::mem::take(&mut request.model));
        Self { id, model, version: version.to_owned() }
    }

    /// The response as the caller gets it; the first one of a request that was sent more than once tells how often.
    pub(crate) fn fill(self, mut response: Response, attempts: Option<u32>) -> Response {
        if let Some(attempts) = attempts.filter(|attempts| *attempts > 1) {
            response.parameters.push((ATTEMPTS.to_owned(), Parameter::Int(attempts.into())));
        }
        Response { id: self.id, model: self.model, version: self.version, ..response }
    }
}

// === impl Pending ===

impl Pending {
    pub(crate) fn new(parcel: Parcel, caller: Caller, echo: Echo, counters: Arc<Counters>, arrived: Instant) -> Self {
        Self { parcel, caller, echo, counters, arrived, sent: None, attempts: 0, emitted: false }
    }

    /// It goes to a worker.
    pub(crate) fn sent(&mut self, attempt: u32, now: Instant) {
        (self.attempts, self.sent) = (attempt, Some(now));
    }

    /// Its caller is given a part of the answer. Returns the attempts if it is the first part.
    pub(crate) fn emit(&mut self) -> Option<u32> {
        let first = !std::mem::replace(&mut self.emitted, true);
        first.then_some(self.attempts)
    }

    /// Gives the caller what its worker said, and counts it. A traceback is passed on in debug only.
    pub(crate) fn end(mut self, outcome: Outcome, compute: Duration, debug: bool) {
        let response = match (outcome, &self.caller) {
            (Outcome::Failed(error), _) if debug => return self.fail(error),
            (Outcome::Failed(error), _) => return self.fail(Error { traceback: None, ..error }),
            (Outcome::Done(None), Caller::One(_)) => {
                return self.fail(Error::internal("the worker ended without a response"));
            }
            (Outcome::Done(response), _) => response,
        };
        self.counters.succeeded(self.arrived, self.sent, compute);
        let attempts = self.emit();
        let response = response.map(|response| self.echo.fill(response, attempts));
        match (self.caller, response) {
            (Caller::One(caller), Some(response)) => drop(caller.send(Ok(response))),
            (Caller::Many { responses, .. }, Some(response)) => {
                drop(responses.send(Part { cost: 0, response: Ok(response) }));
            }
            (_, None) => {}
        }
    }

    /// Tells the caller that there is no answer, and counts it.
    pub(crate) fn fail(self, error: Error) {
        self.counters.failed(error.code, self.arrived);
        match self.caller {
            // A caller that has left doesn't want to know.
            Caller::One(caller) => drop(caller.send(Err(error))),
            Caller::Many { responses, .. } => drop(responses.send(Part { cost: 0, response: Err(error) })),
        }
    }
}

impl Payload for Pending {
    fn fingerprint(&self) -> Fingerprint {
        crate::fingerprint::of(&self.parcel)
    }

    fn has_emitted(&self) -> bool {
        self.emitted
    }
}
