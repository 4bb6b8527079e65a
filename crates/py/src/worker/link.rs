//! The connection to the runtime: hello and welcome, then frames out.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Limits, StoreId};
use anyserve_shm::{Attached, Layout, PlaneAt, SlotTable};
use anyserve_wire::{Decoder, Frame, HEADER_LEN, Header, Kind, message};
use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;

use super::outbox::{Outbox, Outgoing};
use super::places::Memory;

/// A connection that was welcomed.
pub(super) struct Link {
    pub(super) socket: Arc<UnixStream>,
    outbox: Mutex<Outbox>,
    /// How far each request has come, for the runtime to see.
    pub(super) slots: SlotTable,
    /// What a response may be, in bytes.
    pub(super) limits: Limits,
    /// Bytes of a stream that may be unacknowledged.
    pub(super) window: i64,
    /// Memory that is shared with the runtime.
    pub(super) memory: Memory,
}

// === impl Link ===

impl Link {
    /// Connects, says hello and waits for the welcome.
    pub(super) fn open(path: &str, hello: &message::Hello) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        send_now(&socket, &Frame::with_meta(Kind::Hello, 0, hello))?;
        let welcome = read_welcome(&socket)?;
        let limits = Limits {
            max_meta: usize::try_from(welcome.max_meta).unwrap_or(usize::MAX),
            max_message: usize::try_from(welcome.max_body).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        let slots = SlotTable::open(Path::new(&welcome.slots)).map_err(io::Error::other)?;
        let window = i64::try_from(welcome.stream_window).unwrap_or(i64::MAX);
        let plane = welcome.plane.as_ref().map(attach).transpose()?;
        let memory = Memory { plane, regions: Arc::default() };
        let socket = Arc::new(socket);
        Ok(Self { outbox: Mutex::new(Outbox::new(Arc::clone(&socket))), socket, slots, limits, window, memory })
    }

    /// Appends a frame without a body, and sends it with whatever is pending. Needs no interpreter.
    pub(super) fn send_detached(&self, frame: &Frame) {
        let mut outbox = self.outbox.lock();
        outbox.push(&bodiless(frame));
        outbox.flush();
    }

    /// Appends a frame without a body, which leaves with whatever is sent next; for a thread without the interpreter's lock.
    pub(super) fn push_detached(&self, frame: &Frame) {
        self.outbox.lock().push(&bodiless(frame));
    }

    /// The same for a thread with the interpreter's lock, and with no other.
    pub(super) fn push_frame(&self, py: Python<'_>, frame: &Frame) {
        self.outbox(py).push(&bodiless(frame));
    }

    /// Appends frames, which leave together; with a large body among them at once, with the interpreter's lock released.
    pub(super) fn push(&self, py: Python<'_>, frames: &[Outgoing<'_>]) {
        if frames.iter().any(Outgoing::is_large) {
            return py.detach(|| self.outbox.lock().send(frames));
        }
        let mut outbox = self.outbox(py);
        for frame in frames {
            outbox.push(frame);
        }
    }

    /// Sends what is pending if it has waited long enough; says whether something still waits.
    pub(super) fn flush_if_due(&self, py: Python<'_>) -> bool {
        let outbox = self.outbox(py);
        if !outbox.is_due(Instant::now()) {
            return !outbox.is_empty();
        }
        drop(outbox);
        self.flush(py);
        false
    }

    /// Sends everything that is pending.
    pub(super) fn flush(&self, py: Python<'_>) {
        let done = {
            let mut outbox = self.outbox(py);
            outbox.is_empty() || outbox.try_flush()
        };
        if !done {
            py.detach(|| self.outbox.lock().flush());
        }
    }

    /// Sends what the socket takes of what is pending, unless another thread is at it; for a thread without the
    /// interpreter's lock.
    pub(super) fn flush_detached(&self) {
        if let Some(mut outbox) = self.outbox.try_lock() {
            outbox.try_flush();
        }
    }

    /// Ends the connection both ways.
    pub(super) fn hang_up(&self) {
        // Fails only if the runtime has gone.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// The outbox, without holding the interpreter's lock while another thread waits for the runtime to read.
    fn outbox(&self, py: Python<'_>) -> MutexGuard<'_, Outbox> {
        loop {
            if let Some(outbox) = self.outbox.try_lock() {
                return outbox;
            }
            py.detach(|| drop(self.outbox.lock()));
        }
    }
}

fn bodiless(frame: &Frame) -> Outgoing<'_> {
    Outgoing::new(frame.kind, frame.flags, frame.id, &frame.meta, Vec::new())
}

fn attach(plane: &message::Plane) -> io::Result<Arc<Attached>> {
    let message::Plane { store, segment, entries, capacity, epoch_ns, pins, threshold } = plane;
    Attached::open(&PlaneAt {
        store: StoreId(*store),
        segment: Path::new(segment),
        pins: Path::new(pins),
        layout: Layout { entries: *entries, capacity: *capacity, epoch_ns: *epoch_ns },
        threshold: usize::try_from(*threshold).unwrap_or(usize::MAX),
    })
}

/// Sends one frame on a socket that nobody else writes to.
pub(super) fn send_now(mut socket: &UnixStream, frame: &Frame) -> io::Result<()> {
    io::Write::write_all(&mut socket, &frame.to_bytes())
}

/// Reads the welcome, and not a byte of what comes behind it: that is the inbox's.
fn read_welcome(socket: &UnixStream) -> io::Result<message::Welcome> {
    let mut decoder = Decoder::new(Limits::default());
    let mut head = [0; HEADER_LEN];
    read_exact(socket, &mut head)?;
    let header = Header::decode(&head).map_err(io::Error::other)?;
    if header.kind != Kind::Welcome || header.body_len > 0 {
        let (kind, len) = (header.kind, header.body_len);
        return Err(io::Error::other(format!("the runtime answered hello with a {kind:?} frame with {len} bytes")));
    }
    // It compares the lengths with the limits, so that what is reserved next is not the peer's to say.
    let mut frames = decoder.feed(&head).map_err(io::Error::other)?;
    let mut meta = vec![0; usize::try_from(header.meta_len).unwrap_or(usize::MAX)];
    read_exact(socket, &mut meta)?;
    frames.extend(decoder.feed(&meta).map_err(io::Error::other)?);
    let welcome = frames.first().ok_or_else(|| io::Error::other("the welcome has no end"))?;
    welcome.message().map_err(io::Error::other)
}

fn read_exact(mut socket: &UnixStream, room: &mut [u8]) -> io::Result<()> {
    socket.read_exact(room).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the runtime closed the socket"),
        _ => error,
    })
}
