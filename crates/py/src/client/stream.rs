//! `_core.Responses`: the answers to one call, for a thread or an event loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyserve_core::{Error, Response};
use futures_util::StreamExt as _;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};

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
    stream: Mutex<Option<anyserve_core::Responses>>,
    closed: AtomicBool,
    closing: Notify,
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
        let source = Source { stream: Mutex::new(Some(stream)), closed: AtomicBool::new(false), closing: Notify::new() };
        Self { runtime, source: Arc::new(Owned::new(source)) }
    }

    fn work(&self) -> Work {
        let source = Arc::clone(&self.source);
        let outcome = Box::pin(async move {
            // A stream from before a fork belongs to the parent: here it is at its end.
            let Some(source) = source.get() else { return Ok(Answer::Next(None)) };
            source.next().await.map(Answer::Next)
        });
        Work { runtime: self.runtime.clone(), outcome }
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
    /// The next answer; safe to drop, no answer gets lost.
    async fn next(&self) -> Result<Option<Response>, Error> {
        let mut stream = self.stream.lock().await;
        let closing = self.closing.notified();
        if self.closed.load(Ordering::Acquire) {
            *stream = None;
        }
        let Some(open) = stream.as_mut() else { return Ok(None) };
        let item = tokio::select! {
            biased;
            () = closing => None,
            item = open.next() => item,
        };
        if !matches!(item, Some(Ok(_))) {
            *stream = None;
        }
        item.transpose()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
        if let Ok(mut stream) = self.stream.try_lock() {
            *stream = None;
        }
    }
}
