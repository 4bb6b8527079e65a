//! How answers reach an event loop: through one file descriptor that the loop watches.
//!
//! A task of the runtime never touches Python. It leaves its answer in the mailbox and, if the mailbox was empty,
//! writes to the descriptor; the loop wakes up and takes every answer that is there. So a thousand answers at once
//! cost one wake-up, and no thread of the runtime ever waits for the GIL.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use tokio::task::AbortHandle;

use super::answer::{Outcome, Work, gone};
use crate::errors;

/// The answers for the futures of one event loop. `loop.add_reader(mailbox.fileno(), mailbox.deliver)` is all it needs.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Mailbox {
    event: OwnedFd,
    answers: Mutex<Vec<(Py<PyAny>, Outcome)>>,
}

/// A call under way for an event loop.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Pending(AbortHandle);

/// The duty to answer one future. Dropped without an answer, it answers that there is none.
struct Ticket {
    mailbox: Py<Mailbox>,
    future: Option<Py<PyAny>>,
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = event.map_err(|error| PyOSError::new_err(format!("no descriptor for the client: {error}")))?;
        Ok(Self { event, answers: Mutex::default() })
    }

    /// The descriptor that is readable when there are answers.
    fn fileno(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Hands every answer to its future. Futures that are done, because somebody cancelled them, are left alone.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        // Read before the answers are taken: an answer that comes after that writes again. Nothing to read is fine.
        let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
        let answers = std::mem::take(&mut *self.answers.lock());
        for (future, outcome) in answers {
            let future = future.bind(py);
            if future.call_method0("done")?.is_truthy()? {
                continue;
            }
            match outcome.map_err(|error| errors::to_py(py, &error)).and_then(|answer| answer.into_py(py)) {
                Ok(result) => future.call_method1("set_result", (result,))?,
                Err(error) => future.call_method1("set_exception", (error,))?,
            };
        }
        Ok(())
    }
}

#[pymethods]
impl Pending {
    /// Cancels the call on the server. After its end nothing happens.
    fn cancel(&self) {
        self.0.abort();
    }
}

// === impl Mailbox ===

impl Mailbox {
    fn post(&self, future: Py<PyAny>, outcome: Outcome) {
        let mut answers = self.answers.lock();
        answers.push((future, outcome));
        if answers.len() == 1 {
            // A full counter is readable too, so a refused write loses nothing.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

// === impl Pending ===

impl Pending {
    /// Starts work whose outcome goes to `future`, an `asyncio.Future` of the loop that watches the mailbox.
    pub(crate) fn start(work: Work, future: Py<PyAny>, mailbox: Py<Mailbox>) -> Self {
        let ticket = Ticket { mailbox, future: Some(future) };
        let task = work.runtime.spawn(async move { ticket.answer(work.outcome.await) });
        Self(task.abort_handle())
    }
}

// === impl Ticket ===

impl Ticket {
    fn answer(mut self, outcome: Outcome) {
        self.post(outcome);
    }

    fn post(&mut self, outcome: Outcome) {
        if let Some(future) = self.future.take() {
            self.mailbox.get().post(future, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.post(Err(gone()));
        }
    }
}
