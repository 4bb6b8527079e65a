//! What goes to the runtime: small frames are collected and leave together, large tensors leave from where they lie.

use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_wire::{HEADER_LEN, Header, Kind};
use bytes::{Buf, BytesMut};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

/// A reply waits at most this long for others to leave with.
const PATIENCE: Duration = Duration::from_micros(50);
/// Pending bytes that are not made to wait for more.
const PLENTY: usize = 32 << 10;
/// A body of so many bytes is sent from where it lies; below that, a copy is cheaper than a system call of its own.
const LARGE: usize = 16 << 10;
/// Slices that one system call takes.
const SLICES: usize = 1024;

/// A frame to be sent, its parts where they lie.
pub(super) struct Outgoing<'a> {
    header: Header,
    meta: &'a [u8],
    body: Vec<&'a [u8]>,
}

/// Frames on their way out. Whoever holds its lock never asks for the interpreter's.
pub(super) struct Outbox {
    socket: Arc<UnixStream>,
    pending: BytesMut,
    flushed: Instant,
}

// === impl Outbox ===

impl Outbox {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self { socket, pending: BytesMut::with_capacity(64 << 10), flushed: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether what is pending should not wait any longer.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.pending.len() >= PLENTY || !self.pending.is_empty() && now.duration_since(self.flushed) > PATIENCE
    }

    /// Appends a frame; its body is copied.
    pub(super) fn push(&mut self, frame: &Outgoing<'_>) {
        self.push_head(frame);
        for part in &frame.body {
            self.pending.extend_from_slice(part);
        }
    }

    fn push_head(&mut self, frame: &Outgoing<'_>) {
        frame.header.encode(&mut self.pending);
        self.pending.extend_from_slice(frame.meta);
    }

    /// Sends what the socket takes at once; true if that was all.
    pub(super) fn try_flush(&mut self) -> bool {
        self.flushed = Instant::now();
        self.flush_with(SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Sends everything, however long the runtime takes to read it.
    pub(super) fn flush(&mut self) {
        self.flush_with(SendFlags::NOSIGNAL);
        self.flushed = Instant::now();
    }

    /// Sends everything pending and these frames together, large bodies from where they lie.
    pub(super) fn send(&mut self, frames: &[Outgoing<'_>]) {
        let mut copied = self.pending.len();
        for frame in frames {
            if frame.is_large() { self.push_head(frame) } else { self.push(frame) }
        }
        let (mut whole, mut from) = (Vec::new(), 0);
        for frame in frames {
            copied += frame.copied_len();
            if frame.is_large() {
                whole.push(&self.pending[from..copied]);
                whole.extend(&frame.body);
                from = copied;
            }
        }
        whole.push(&self.pending[from..]);
        // An error means that the runtime has gone; who reads from the socket sees that too, and ends the process.
        let _ = send_all(&self.socket, &whole);
        self.pending.clear();
        self.flushed = Instant::now();
    }

    fn flush_with(&mut self, flags: SendFlags) -> bool {
        while !self.pending.is_empty() {
            match rustix::net::send(&*self.socket, &self.pending, flags) {
                Ok(sent) => self.pending.advance(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => self.pending.clear(),
            }
        }
        // The room that `advance` gave up in front is taken back.
        self.pending.clear();
        true
    }
}

fn send_all(socket: &UnixStream, whole: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<_> = whole.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(SLICES)];
        match sendmsg(socket, now, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
            Ok(sent) => IoSlice::advance_slices(&mut rest, sent),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    pub(super) fn new(kind: Kind, flags: u16, id: u64, meta: &'a [u8], body: Vec<&'a [u8]>) -> Self {
        let meta_len = u32::try_from(meta.len()).expect("metadata is checked against Limits before it is sent");
        let body_len = body.iter().map(|part| part.len() as u64).sum();
        Self { header: Header { kind, flags, id, meta_len, body_len }, meta, body }
    }

    /// Whether its body is sent from where it lies.
    pub(super) fn is_large(&self) -> bool {
        self.header.body_len >= LARGE as u64
    }

    /// Bytes of it that [`Outbox::send`] copies.
    fn copied_len(&self) -> usize {
        let body = if self.is_large() { 0 } else { self.body.iter().map(|part| part.len()).sum() };
        HEADER_LEN + self.meta.len() + body
    }
}
