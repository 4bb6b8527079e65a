//! What a protocol gives to the load loop: lanes, each of which exchanges one request at a time.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;

/// A way to send one prepared request many times.
pub(crate) trait Protocol: Send + Sync + 'static {
    type Lane: Lane;

    /// Whether one connection carries several requests at once.
    const MULTIPLEXED: bool;

    fn title(&self) -> Title;

    /// Opens one connection and gives `lanes` lanes on it (one if it is not multiplexed).
    fn connect(&self, lanes: usize) -> impl Future<Output = io::Result<Vec<Self::Lane>>> + Send;

    /// Whether `answer`, a whole response body, carries the request's payload unchanged.
    fn is_echo(&self, answer: &[u8]) -> bool;
}

/// One request at a time on a connection.
pub(crate) trait Lane: Send + 'static {
    /// Sends the request and receives its whole answer, which goes to `sink` piece by piece.
    fn exchange(
        &mut self,
        meter: &Meter,
        sink: impl FnMut(Bytes) + Send,
    ) -> impl Future<Output = Result<Success, Failure>> + Send;
}

/// What is being measured, for the report.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    pub(crate) protocol: &'static str,
    pub(crate) target: String,
    /// Bytes of one request's body.
    pub(crate) request_bytes: usize,
}

/// An answer that means success.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Success {
    /// When the first message of a stream had arrived; `None` for a single answer.
    pub(crate) first_at: Option<Instant>,
    /// Messages in the answer.
    pub(crate) messages: u64,
}

/// An answer that does not, or none.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What errors are counted by: a gRPC status, an HTTP status, a broken connection.
    pub(crate) kind: Cow<'static, str>,
    /// What the peer or the transport said; one per kind is shown.
    pub(crate) detail: String,
    /// The lane is of no further use.
    pub(crate) lane_lost: bool,
}

/// Counts what arrives as it arrives, for rates that do not wait for an answer's end.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    messages: AtomicU64,
}

/// A reading of a [`Meter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
}

// === impl Failure ===

impl Failure {
    pub(crate) fn refused(kind: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { kind: kind.into(), detail: detail.into(), lane_lost: false }
    }

    pub(crate) fn broken(kind: &'static str, error: &dyn std::error::Error) -> Self {
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            detail = format!("{detail}: {error}");
            cause = error.source();
        }
        Self { kind: kind.into(), detail, lane_lost: true }
    }
}

// === impl Meter ===

impl Meter {
    pub(crate) fn add(&self, bytes: usize, messages: u64) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
        if messages > 0 {
            self.messages.fetch_add(messages, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Flow {
        Flow { bytes: self.bytes.load(Relaxed), messages: self.messages.load(Relaxed) }
    }
}

// === impl Flow ===

impl Flow {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { bytes: self.bytes - earlier.bytes, messages: self.messages - earlier.messages }
    }
}
