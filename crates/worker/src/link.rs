//! The runtime's end of one worker's socket: requests out, frames in.

mod post;
mod pulse;
mod read;
mod write;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_sched::{GroupId, Ticket, WorkerId};
use anyserve_shm::{Owner, Phase, SlotTable};
use anyserve_wire::{Frame, Kind, WireError};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use post::Posted;
pub(crate) use read::FrameReader;

use crate::far::{FarCall, MAX_FAR_CALLS};
use crate::open_calls::{OpenCalls, Order, ResultFrame};
use crate::outbox::Outbox;

/// A greeted worker's socket.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) group: GroupId,
    stream: UnixStream,
    slots: SlotTable,
    /// `parking_lot` and never held across an await: every hold is a few copies and at most one non-blocking write.
    outbox: Mutex<Outbox>,
    more: Notify,
    /// Requests that the worker has not answered yet.
    unanswered: AtomicU32,
    /// Pongs that came.
    pongs: AtomicU32,
    /// Whether it has ever run a request to its end.
    useful: AtomicBool,
    /// Cancelled when one of its handlers does not stop: its process is to be replaced.
    overrun: CancellationToken,
    /// What its handlers ask of others than this process.
    far: mpsc::Sender<FarCall>,
    /// The calls that its handlers have open.
    pub(crate) calls: OpenCalls,
    /// What it says of itself after its start, for its supervisor: that it sleeps, or is awake again.
    said: mpsc::Sender<Kind>,
    /// Told when it has answered for everything that it got.
    idle: Notify,
    /// Cancelled when its process has ended.
    dead: CancellationToken,
    /// Cancelled when nothing more of what it sent will be read.
    heard_out: CancellationToken,
}

/// Where the other ends of a link's channels are.
#[derive(Debug)]
pub(crate) struct LinkEnds {
    pub(crate) far: mpsc::Receiver<FarCall>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) said: mpsc::Receiver<Kind>,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LinkError {
    /// The worker closed its end.
    #[error("the worker closed its socket")]
    Closed,
    /// The socket failed.
    #[error("the worker's socket failed")]
    Io(#[from] io::Error),
    /// The worker sent what is no frame.
    #[error("the worker broke the protocol")]
    Wire(#[from] WireError),
    /// The worker answers pings no more.
    #[error("the worker did not answer a ping within {0:?}")]
    Unresponsive(Duration),
    /// A handler did not stop at its request's deadline.
    #[error("a handler did not stop within its grace after its request's deadline")]
    Overrun,
    /// The worker sent a frame that makes no sense now.
    #[error("the worker broke the protocol: {0}")]
    Protocol(String),
}

// === impl Link ===

impl Link {
    pub(crate) fn new(
        (worker, group): (WorkerId, GroupId),
        stream: UnixStream,
        slots: SlotTable,
    ) -> (Arc<Self>, LinkEnds) {
        let (far, calls) = mpsc::channel(MAX_FAR_CALLS);
        let (calls_made, orders) = OpenCalls::new();
        let (said, heard) = mpsc::channel(1);
        let link = Self {
            worker,
            group,
            stream,
            slots,
            outbox: Mutex::default(),
            more: Notify::new(),
            unanswered: AtomicU32::new(0),
            pongs: AtomicU32::new(0),
            useful: AtomicBool::new(false),
            overrun: CancellationToken::new(),
            far,
            calls: calls_made,
            said,
            idle: Notify::new(),
            dead: CancellationToken::new(),
            heard_out: CancellationToken::new(),
        };
        (Arc::new(link), LinkEnds { far: calls, orders, said: heard })
    }

    /// The worker, as the object plane knows it.
    pub(crate) fn owner(&self) -> Owner {
        Owner(self.worker.0)
    }

    /// Has something asked of others than this process. Gives it back if too much is being asked already.
    pub(crate) fn ask_far(&self, call: FarCall) -> Result<(), FarCall> {
        self.far.try_send(call).map_err(|error| match error {
            mpsc::error::TrySendError::Full(call) | mpsc::error::TrySendError::Closed(call) => call,
        })
    }

    /// A request is over, for its worker or for its caller: so are the calls that its handler has open. True if there is
    /// something to flush.
    pub(crate) fn end_calls_of(&self, caller: Ticket) -> bool {
        let ended = self.calls.end_of(caller);
        for id in &ended {
            let error = Error::new(Code::Cancelled, "the request that made this call is over");
            self.push_result(&ResultFrame::failed(*id, &error));
        }
        !ended.is_empty()
    }

    /// Takes a request back whose handler has not started.
    pub(crate) fn recall(&self, ticket: Ticket, slot: u32) -> bool {
        self.slots.recall(place(slot), ticket.number())
    }

    /// Takes a request back, or tells its handler to stop. True if there is something to flush.
    pub(crate) fn withdraw(&self, ticket: Ticket, slot: u32) -> bool {
        if self.recall(ticket, slot) {
            return false;
        }
        self.slots.cancel(place(slot), ticket.number());
        self.push(&Frame::bare(Kind::Cancel, ticket.number()));
        true
    }

    pub(crate) fn release(&self, slot: u32) {
        self.slots.release(place(slot));
        if self.unanswered.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.notify_one();
        }
    }

    /// Whether the request's handler had started; may be asked after the worker's death.
    pub(crate) fn had_started(&self, ticket: Ticket, slot: u32) -> bool {
        self.slots.phase(place(slot), ticket.number()) == Phase::Started
    }

    /// Whether the worker has answered for everything that it got.
    pub(crate) fn is_idle(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) == 0
    }

    /// Waits until the worker has answered for everything that it got.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn idle(&self) {
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    /// The worker says that it sleeps, or is awake.
    ///
    /// # Errors
    /// It says more than it is asked for.
    pub(crate) fn says(&self, kind: Kind) -> Result<(), LinkError> {
        self.said.try_send(kind).map_err(|_| LinkError::Protocol(format!("a {kind:?} frame that nobody asked for")))
    }

    /// The worker has run a request to its end.
    pub(crate) fn answered(&self) {
        if !self.useful.load(Ordering::Relaxed) {
            self.useful.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has ever run a request to its end: its death says nothing about its start.
    pub(crate) fn was_useful(&self) -> bool {
        self.useful.load(Ordering::Relaxed)
    }
}

fn place(slot: u32) -> usize {
    usize::try_from(slot).expect("slots are few")
}
