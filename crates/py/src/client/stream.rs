//! `_core.Responses`: the answers to one call, for a thread or an event loop.

use std::sync::Arc;

use anyserve_core::{Error, Response};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::answer::{Answer, Work};
use super::mailbox::{Mailbox, Pending};
use super::runtime::Owned;

/// The answers to one call, in order. Several threads may ask; each answer goes to one of them.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Responses {
    runtime: Handle,
    source: Arc<Owned<Source>>,
}

struct Source {
    /// Held by the one who reads.
    turn: tokio::sync::Mutex<()>,
    slot: Mutex<Slot>,
    closing: Notify,
}

/// Never held across an await: the stream is out of it while it is read.
struct Slot {
    stream: Option<anyserve_core::Responses>,
    closed: bool,
}

#[pymethods]
impl Responses {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Waits for the next answer, a `ModelInferResponse`.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let next = self.work().wait(py)?;
        Ok(Some(next).filter(|next| !next.is_none(py)))
    }

    /// Asks for the next answer, which goes to an `asyncio.Future`; `None` is the end.
    fn start_next(&self, future: Py<PyAny>, mailbox: Py<Mailbox>) -> Pending {
        Pending::start(self.work(), future, mailbox)
    }

    /// Ends the stream, and cancels the call on the server if it is not done. Who waits for an answer gets the end.
    fn close(&self) {
        if let Some(source) = self.source.get() {
            source.close();
        }
    }
}

// === impl Responses ===

impl Responses {
    pub(crate) fn new(runtime: Handle, stream: anyserve_core::Responses) -> Self {
        let slot = Mutex::new(Slot { stream: Some(stream), closed: false });
        let source = Source { turn: tokio::sync::Mutex::default(), slot, closing: Notify::new() };
        Self { runtime, source: Arc::new(Owned::new(source)) }
    }

    fn work(&self) -> Work {
        let source = Arc::clone(&self.source);
        Work::new(self.runtime.clone(), async move {
            // A stream from before a fork belongs to the parent: here it is at its end.
            let Some(source) = source.get() else { return Ok(Answer::Next(None)) };
            source.next().await.map(Answer::Next)
        })
    }
}

impl Drop for Responses {
    /// A read under way would keep the stream open although nobody can read on.
    fn drop(&mut self) {
        self.close();
    }
}

// === impl Source ===

impl Source {
    /// The next answer. Dropping the future ends the stream, and cancels the call.
    async fn next(&self) -> Result<Option<Response>, Error> {
        let _turn = self.turn.lock().await;
        let closing = self.closing.notified();
        // A close before this line leaves nothing to take, one after it is noticed by `closing`.
        let Some(mut stream) = self.slot.lock().stream.take() else { return Ok(None) };
        let item = tokio::select! {
            biased;
            () = closing => None,
            item = stream.next() => item,
        };
        if let Some(Ok(_)) = item {
            self.put_back(stream);
        }
        item.transpose()
    }

    fn put_back(&self, stream: anyserve_core::Responses) {
        let mut slot = self.slot.lock();
        if !slot.closed {
            slot.stream = Some(stream);
        }
    }

    fn close(&self) {
        let stream = {
            let mut slot = self.slot.lock();
            slot.closed = true;
            slot.stream.take()
        };
        self.closing.notify_waiters();
        drop(stream);
    }
}
