//! What comes from the runtime: bytes to orders.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyserve_core::Limits;
use anyserve_shm::SLOTS;
use anyserve_wire::{
    BatchPart, Decoder, Frame, Kind, MessageError, WireError, batch_of, message, request_of, result_of,
};
use bytes::{BufMut, Bytes};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::life::Phase;
use super::made::Part;
use super::places::{self, Memory, RequestPlaces};
use crate::kserve::RequestParts;

/// A request as it was read; nothing of it is Python's yet.
pub(super) struct Incoming {
    pub(super) id: u64,
    /// Place of the handler in the table.
    pub(super) row: usize,
    pub(super) slot: usize,
    pub(super) attempt: u32,
    pub(super) deadline: Option<Instant>,
    pub(super) parts: RequestParts,
    pub(super) headers: Vec<message::Header>,
    /// Regions of clients' memory that its inputs lie in.
    pub(super) regions: Vec<u64>,
    /// Outputs that are to be written to clients' memory.
    pub(super) destinations: Vec<message::Destination>,
    /// Its inputs cannot be had, because a client took its memory away.
    pub(super) lost: bool,
}

/// What one call of a handler is given.
pub(super) enum Work {
    /// The request of a handler that takes one.
    One(Box<Incoming>),
    /// The requests of a handler that takes a list; at least one, all for the same handler.
    Batch(Vec<Incoming>),
}

/// What the runtime asks for.
pub(super) enum Order {
    Work(Work),
    Cancel(u64),
    Credit(u64, u64),
    View(u64, message::View),
    Result(u64, Part),
    Forget(u64),
    Sleep,
    Wake,
    Drain,
    Ping(u64),
}

/// A rule that the runtime broke; the connection is over.
#[derive(Debug)]
pub(super) enum Violation {
    Wire(WireError),
    Message(MessageError),
    Unexpected(Kind),
    Handler {
        got: u32,
        handlers: usize,
    },
    Slot {
        got: u32,
    },
    Batch {
        members: usize,
        handler: usize,
        most: u32,
    },
    MidFrame,
    TooMany,
    /// It came while the worker was here.
    Untimely(Kind, Phase),
}

/// What a read gave.
pub(super) enum Received {
    /// Bytes; there may be orders in them.
    Bytes,
    /// Nothing yet: no bytes, or a signal came first.
    Nothing,
    /// The runtime closed the socket, or is gone.
    End,
}

/// The reading end of the socket.
pub(super) struct Inbox {
    decoder: Decoder,
    /// The largest batch of each handler; 0 for one that takes single requests.
    batches: Vec<u32>,
    memory: Memory,
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn new(limits: Limits, batches: Vec<u32>, memory: Memory) -> Self {
        Self { decoder: Decoder::new(limits), batches, memory }
    }

    /// Reads once. `DONTWAIT` among the flags makes it return at once.
    pub(super) fn receive(&mut self, socket: &UnixStream, flags: RecvFlags) -> Received {
        match read(socket, &mut self.decoder.buffer(), flags) {
            Ok(0) => Received::End,
            Ok(_) => Received::Bytes,
            Err(Errno::INTR | Errno::AGAIN) => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    /// The next order in what was read; `None` until more bytes are there.
    pub(super) fn next(&mut self) -> Result<Option<Order>, Violation> {
        let Some(frame) = self.decoder.next_frame().map_err(Violation::Wire)? else { return Ok(None) };
        self.order(frame).map(Some)
    }

    /// Whether the stream may end here.
    pub(super) fn check_end(&self) -> Result<(), Violation> {
        if self.decoder.is_mid_frame() { Err(Violation::MidFrame) } else { Ok(()) }
    }

    fn order(&self, frame: Frame) -> Result<Order, Violation> {
        match frame.kind {
            Kind::Request => self.request(frame).map(Order::Work),
            Kind::Batch => self.batch(frame).map(Order::Work),
            Kind::Cancel => Ok(Order::Cancel(frame.id)),
            Kind::Credit => {
                let credit: message::Credit = frame.message().map_err(Violation::Wire)?;
                Ok(Order::Credit(frame.id, credit.bytes))
            }
            Kind::CallResult => self.result(frame),
            Kind::View => Ok(Order::View(frame.id, frame.message().map_err(Violation::Wire)?)),
            Kind::Release => {
                let release: message::Release = frame.message().map_err(Violation::Wire)?;
                Ok(Order::Forget(release.region))
            }
            Kind::Sleep => Ok(Order::Sleep),
            Kind::Wake => Ok(Order::Wake),
            Kind::Drain => Ok(Order::Drain),
            Kind::Ping => Ok(Order::Ping(frame.id)),
            other => Err(Violation::Unexpected(other)),
        }
    }

    /// Read even if nobody waits for it any more, so that the blocks that it brings are given back.
    fn result(&self, frame: Frame) -> Result<Order, Violation> {
        let meta: message::CallResult = frame.message().map_err(Violation::Wire)?;
        let (end, cost) = (meta.end, meta.cost);
        let read = result_of(meta, frame.body, &mut RequestPlaces::new(&self.memory));
        let outcome = read.map_err(Violation::Message)?;
        let end = end || !matches!(outcome, Ok(Some(_)));
        Ok(Order::Result(frame.id, Part { outcome, end, cost }))
    }

    /// A handler that takes a list gets a list of one.
    fn request(&self, frame: Frame) -> Result<Work, Violation> {
        let meta = frame.message().map_err(Violation::Wire)?;
        let incoming = self.incoming(frame.id, meta, frame.body)?;
        Ok(match self.batches[incoming.row] {
            0 => Work::One(Box::new(incoming)),
            _ => Work::Batch(vec![incoming]),
        })
    }

    fn batch(&self, frame: Frame) -> Result<Work, Violation> {
        let batch = frame.message().map_err(Violation::Wire)?;
        let parts = batch_of(batch, frame.body).map_err(Violation::Message)?;
        let read = |part: BatchPart| self.incoming(part.id, part.request, part.body);
        let members = parts.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let handler = members.first().map_or(0, |member| member.row);
        let most = self.batches[handler];
        if members.len() > usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Violation::Batch { members: members.len(), handler, most });
        }
        Ok(Work::Batch(members))
    }

    fn incoming(&self, id: u64, mut meta: message::Request, body: Bytes) -> Result<Incoming, Violation> {
        let handlers = self.batches.len();
        let row = within(meta.handler, handlers).ok_or(Violation::Handler { got: meta.handler, handlers })?;
        let slot = within(meta.slot, SLOTS).ok_or(Violation::Slot { got: meta.slot })?;
        let read = request_of(&mut meta, body, &mut RequestPlaces::new(&self.memory));
        let lost = matches!(read, Err(MessageError::Place { .. })) && places::regions(&meta.places).next().is_some();
        let (inputs, parameters) = if lost { Default::default() } else { read.map_err(Violation::Message)? };
        let regions = places::regions(&meta.places).collect();
        let remaining = meta.remaining_us.checked_sub(1).map(Duration::from_micros);
        let deadline = remaining.and_then(|remaining| Instant::now().checked_add(remaining));
        let message::Request { model, version, id: caller_id, outputs, headers, attempt, destinations, .. } = meta;
        let parts = RequestParts { model, version, id: caller_id, inputs, outputs, parameters };
        Ok(Incoming { id, row, slot, attempt, deadline, parts, headers, regions, destinations, lost })
    }
}

fn within(number: u32, len: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|place| *place < len)
}

/// Reads into room that was never written, so that a large body is neither zeroed nor copied on its way.
#[allow(unsafe_code)]
pub(super) fn read(socket: &UnixStream, room: &mut impl BufMut, flags: RecvFlags) -> Result<usize, Errno> {
    // SAFETY: the slice is only ever written to, by the kernel, and nobody reads from it before that.
    let spare = unsafe { room.chunk_mut().as_uninit_slice_mut() };
    let (read, _) = rustix::net::recv(socket, spare, flags)?.0;
    let len = read.len();
    // SAFETY: the kernel has just initialised the first `len` bytes of the chunk.
    unsafe { room.advance_mut(len) };
    Ok(len)
}

// === impl Work ===

impl Work {
    /// Place of its handler in the table.
    pub(super) fn row(&self) -> usize {
        match self {
            Self::One(incoming) => incoming.row,
            Self::Batch(members) => members.first().map_or(0, |member| member.row),
        }
    }

    /// Number of its requests.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Batch(members) => members.len(),
        }
    }
}

// === impl Violation ===

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wire(error) => write!(f, "{error}"),
            Self::Message(error) => write!(f, "{error}"),
            Self::Unexpected(kind) => write!(f, "a {kind:?} frame is none that a worker gets"),
            Self::Handler { got, handlers } => write!(f, "a request names handler {got} of {handlers}"),
            Self::Slot { got } => write!(f, "a request names slot {got} of {SLOTS}"),
            Self::Batch { members, handler, most } => {
                write!(f, "a batch of {members} requests is for handler {handler}, which takes at most {most}")
            }
            Self::MidFrame => write!(f, "the socket was closed in the middle of a frame"),
            Self::Untimely(kind, phase) => write!(f, "a {kind:?} frame came to a worker that is {}", phase.name()),
            Self::TooMany => write!(f, "more than {SLOTS} requests are under way"),
        }
    }
}
