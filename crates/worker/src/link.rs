//! The runtime's end of one worker's socket: requests out, frames in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyserve_core::Limits;
use anyserve_sched::{GroupId, Sending, Ticket, WorkerId};
use anyserve_shm::{Owner, Phase, SlotTable};
use anyserve_wire::{Decoder, Frame, HEADER_LEN, Header, Kind, WireError, message};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::far::{FarCall, MAX_FAR_CALLS};
use crate::outbox::Outbox;
use crate::pending::Parcel;

/// How long the task that reads a dead worker's socket is waited for.
const HEAR_OUT: Duration = Duration::from_secs(1);
/// Pings within the time that a worker may be silent.
const PINGS: u32 = 5;

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
    pub(crate) said: mpsc::Receiver<Kind>,
}

/// A request as it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted<'a> {
    pub(crate) sending: Sending,
    pub(crate) deadline: Option<Instant>,
    pub(crate) parcel: &'a Parcel,
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
            said,
            idle: Notify::new(),
            dead: CancellationToken::new(),
            heard_out: CancellationToken::new(),
        };
        (Arc::new(link), LinkEnds { far: calls, said: heard })
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

    /// Queues one request. It leaves with the next flush.
    pub(crate) fn push_request(&self, posted: &Posted<'_>) {
        let Posted { sending, parcel, .. } = posted;
        let head = posted.head();
        self.slots.offer(place(sending.slot), sending.ticket.number());
        let mut outbox = self.outbox.lock();
        // Protobuf messages merge when they are concatenated: what is known only now goes before what was encoded once.
        let meta_len = head.encoded_len() + parcel.meta.len();
        let header = Header {
            kind: Kind::Request,
            flags: 0,
            id: sending.ticket.number(),
            meta_len: u32::try_from(meta_len).expect("checked against the limit when it was encoded"),
            body_len: parcel.body_len() as u64,
        };
        let tail = outbox.tail();
        tail.reserve(HEADER_LEN + meta_len);
        header.encode(tail);
        head.encode(tail).expect("room was reserved");
        tail.extend_from_slice(&parcel.meta);
        parcel.body().for_each(|bytes| outbox.push(bytes));
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a frame with several requests.
    pub(crate) fn batch(&self) -> BatchFrame<'_> {
        BatchFrame { link: self, meta: BytesMut::new(), body: Vec::new() }
    }

    /// Queues a frame without a body.
    pub(crate) fn push(&self, frame: &Frame) {
        frame.encode_head(self.outbox.lock().tail());
    }

    /// Queues the answer to something that the worker has asked.
    ///
    /// # Errors
    /// It does not read its answers.
    pub(crate) fn push_answer(&self, answer: &Frame) -> Result<(), LinkError> {
        self.outbox.lock().push_answer(answer).map_err(|unread| LinkError::Protocol(unread.to_string()))
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

    /// Writes now, as far as the socket takes it; the writer takes over what is left. A failure shows at the reader.
    pub(crate) fn flush(&self) {
        let written = self.outbox.lock().write_with(|slices| self.stream.try_write_vectored(slices));
        if !matches!(written, Ok(true)) {
            self.more.notify_one();
        }
    }

    /// Writes now if the worker was idle, since then it waits for just this. A busy worker gets it from the writer, together
    /// with whatever else comes within this turn of the scheduler.
    pub(crate) fn flush_if_idle(&self) {
        if self.unanswered.load(Ordering::Relaxed) <= 1 { self.flush() } else { self.flush_soon() }
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

    /// Leaves the writing to the writer.
    pub(crate) fn flush_soon(&self) {
        self.more.notify_one();
    }

    /// Writes for the life of the link. Ends only when the socket fails.
    ///
    /// # Cancel safety
    /// Safe: what was not written stays queued.
    pub(crate) async fn write(&self) -> LinkError {
        loop {
            self.more.notified().await;
            tokio::task::yield_now().await;
            if let Err(error) = self.write_all().await {
                return error.into();
            }
        }
    }

    async fn write_all(&self) -> io::Result<()> {
        while !self.outbox.lock().write_with(|slices| self.stream.try_write_vectored(slices))? {
            self.stream.writable().await?;
        }
        Ok(())
    }

    /// Pings for the life of the link. Ends when a ping stays without a pong for `timeout`: the process is stopped, or its
    /// socket's thread hangs. What its handlers do is judged by their deadlines, never here.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ping(&self, timeout: Duration) -> LinkError {
        let interval = timeout / PINGS;
        let (mut sent, mut missed) = (0, 0);
        while missed < PINGS {
            sent += 1;
            self.push(&Frame::bare(Kind::Ping, sent));
            self.flush();
            let before = self.pongs.load(Ordering::Relaxed);
            tokio::time::sleep(interval).await;
            missed = if self.pongs.load(Ordering::Relaxed) == before { missed + 1 } else { 0 };
        }
        LinkError::Unresponsive(timeout)
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

    /// One of its handlers does not stop.
    pub(crate) fn give_up(&self) {
        self.overrun.cancel();
    }

    /// Ends when one of its handlers does not stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn overrun(&self) -> LinkError {
        self.overrun.cancelled().await;
        LinkError::Overrun
    }

    /// The worker answered a ping.
    pub(crate) fn pong(&self) {
        self.pongs.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads for the life of the link and hands every batch of frames on. Ends when the worker does, and not before what it
    /// had sent until then has been read.
    pub(crate) async fn read(
        &self,
        limits: Limits,
        mut take: impl FnMut(&mut Vec<Frame>) -> Result<(), LinkError>,
    ) -> LinkError {
        let _guard = self.heard_out.clone().drop_guard();
        let mut reader = FrameReader::new(limits);
        loop {
            let read = tokio::select! {
                read = reader.read(&self.stream) => read,
                () = self.dead.cancelled() => return reader.read_rest(&self.stream, &mut take),
            };
            if let Err(error) = read.and_then(|()| take(&mut reader.frames)) {
                return error;
            }
        }
    }

    /// Waits until everything has been read that a worker had sent before its process ended.
    pub(crate) async fn hear_out(&self) {
        self.dead.cancel();
        // What is in the socket is there already: this only waits for the task that reads it.
        let _ = tokio::time::timeout(HEAR_OUT, self.heard_out.cancelled()).await;
    }
}

/// Frames off a socket.
#[derive(Debug)]
pub(crate) struct FrameReader {
    decoder: Decoder,
    pub(crate) frames: Vec<Frame>,
}

// === impl FrameReader ===

impl FrameReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits), frames: Vec::new() }
    }

    /// Waits for bytes and appends the frames that they complete; there may be none.
    pub(crate) async fn read(&mut self, stream: &UnixStream) -> Result<(), LinkError> {
        stream.readable().await?;
        match stream.try_read_buf(&mut self.decoder.buffer()) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = self.decoder.next_frame()? {
            self.frames.push(frame);
        }
        Ok(())
    }

    /// Reads what is in the socket of a worker that is dead, and says why there is no more.
    fn read_rest(
        &mut self,
        stream: &UnixStream,
        take: &mut impl FnMut(&mut Vec<Frame>) -> Result<(), LinkError>,
    ) -> LinkError {
        let (mut chunk, mut read) = (vec![0; CHUNK], 0);
        while read < MAX_REST {
            // Asked of the system itself: the runtime may not have been told yet that there is something.
            let len = match recv(stream, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((len, _)) if len > 0 => len,
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => break,
            };
            read += len;
            let mut frames = match self.decoder.feed(&chunk[..len]) {
                Ok(frames) => frames,
                Err(error) => return error.into(),
            };
            if let Err(error) = take(&mut frames) {
                return error;
            }
        }
        LinkError::Closed
    }
}

/// What [`FrameReader::read_rest`] takes at once, and at all: a dead worker's child may hold the socket and go on writing.
const CHUNK: usize = 64 << 10;
const MAX_REST: usize = 64 << 20;

fn place(slot: u32) -> usize {
    usize::try_from(slot).expect("slots are few")
}

/// Microseconds until the deadline plus one, as `Request::remaining_us` has it.
fn remaining_us(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_micros()).unwrap_or(u64::MAX - 1) + 1
}

/// Several requests on their way into one frame.
pub(crate) struct BatchFrame<'a> {
    link: &'a Link,
    meta: BytesMut,
    body: Vec<Bytes>,
}

// === impl BatchFrame ===

impl BatchFrame<'_> {
    pub(crate) fn push(&mut self, posted: &Posted<'_>) {
        let Posted { sending, parcel, .. } = posted;
        self.link.slots.offer(place(sending.slot), sending.ticket.number());
        anyserve_wire::encode_member(
            &mut self.meta,
            sending.ticket.number(),
            parcel.body_len() as u64,
            &posted.head(),
            &parcel.meta,
        );
        self.body.extend(parcel.body().cloned());
        self.link.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Queues the frame. It leaves with the next flush.
    pub(crate) fn end(self) {
        let header = Header {
            kind: Kind::Batch,
            flags: 0,
            id: 0,
            meta_len: u32::try_from(self.meta.len()).expect("members are few, and each is small"),
            body_len: self.body.iter().map(|bytes| bytes.len() as u64).sum(),
        };
        let mut outbox = self.link.outbox.lock();
        header.encode(outbox.tail());
        outbox.tail().extend_from_slice(&self.meta);
        self.body.iter().for_each(|bytes| outbox.push(bytes));
    }
}

// === impl Posted ===

impl Posted<'_> {
    /// What is known of the request only now.
    fn head(&self) -> message::Request {
        let Sending { slot, attempt, .. } = self.sending;
        let remaining_us = self.deadline.map_or(0, remaining_us);
        message::Request { handler: self.parcel.handler, slot, attempt, remaining_us, ..Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A link, and the worker's end of its socket.
    fn link(directory: &tempfile::TempDir) -> (Arc<Link>, std::os::unix::net::UnixStream) {
        let (own, worker) = UnixStream::pair().unwrap();
        let slots = SlotTable::create(&directory.path().join("slots")).unwrap();
        let (link, _) = Link::new((WorkerId(1), GroupId(0)), own, slots);
        let worker = worker.into_std().unwrap();
        worker.set_nonblocking(false).unwrap();
        (link, worker)
    }

    #[tokio::test]
    async fn what_a_worker_sent_before_its_death_has_been_read_when_it_is_heard_out() {
        let directory = tempfile::tempdir().unwrap();
        let (link, mut worker) = link(&directory);
        let taken = Arc::new(AtomicU32::new(0));
        let (own, count) = (Arc::clone(&link), Arc::clone(&taken));
        let reading = tokio::spawn(async move {
            own.read(Limits::default(), |frames| {
                count.fetch_add(u32::try_from(frames.drain(..).count()).unwrap(), Ordering::Relaxed);
                Ok(())
            })
            .await
        });
        tokio::task::yield_now().await;
        let frames: Vec<_> = (0..1000).flat_map(|id| Frame::bare(Kind::Pong, id).to_bytes()).collect();
        worker.write_all(&frames).unwrap();
        // A child of the dead worker holds its socket: there is no end of it.
        link.hear_out().await;
        assert_eq!(taken.load(Ordering::Relaxed), 1000);
        assert!(matches!(reading.await.unwrap(), LinkError::Closed));
    }

    #[tokio::test]
    async fn nobody_is_waited_for_whose_socket_is_not_read_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let (link, worker) = link(&directory);
        drop(worker);
        let error = link.read(Limits::default(), |_| Ok(())).await;
        assert!(matches!(error, LinkError::Closed), "{error}");
        link.hear_out().await;
    }
}
