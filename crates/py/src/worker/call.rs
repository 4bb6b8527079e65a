//! One request under way. It is answered exactly once: by its handler, or when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyserve_core::{Code, Error};
use anyserve_wire::{Frame, Kind, flags, message};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::context::{Context, Stream};
use super::failure::error_of;
use super::flow::Room;
use super::inbox::Incoming;
use super::reply::{Encoded, encode, response_of};
use super::session::Session;
use super::table::Row;
use crate::kserve::{ModelInferRequest, errors_class};

/// A request whose handler has started.
pub(super) struct Call {
    pub(super) session: Arc<Session>,
    pub(super) id: u64,
    slot: usize,
    row: usize,
    started: Instant,
    answered: AtomicBool,
}

/// A request that is ready for its handler.
pub(super) struct Started<'py> {
    pub(super) call: Arc<Call>,
    pub(super) request: Bound<'py, ModelInferRequest>,
    /// What the handler is called with.
    pub(super) arguments: Bound<'py, PyTuple>,
}

/// Claims a request and makes the handler's arguments; `None` if the runtime took it back, which is then answered.
pub(super) fn start<'py>(
    py: Python<'py>,
    session: &Arc<Session>,
    incoming: Incoming,
) -> Option<PyResult<Started<'py>>> {
    let Incoming { id, row, slot, .. } = incoming;
    if !session.link.slots.start(slot, id) {
        let error = Error::new(Code::Cancelled, "the request was taken back before its handler started");
        send_failed(py, session, id, flags::NOT_STARTED, &message::Failed::from(&error));
        session.settle();
        return None;
    }
    let started = Instant::now();
    let call =
        Arc::new(Call { session: Arc::clone(session), id, slot, row, started, answered: AtomicBool::new(false) });
    if call.row().handler.stream {
        session.flows.open(id, session.link.window);
    }
    Some(Started::new(py, call, incoming))
}

fn send_failed(py: Python<'_>, session: &Session, id: u64, flags: u16, failed: &message::Failed) {
    let frame = Frame::with_meta(Kind::Failed, id, failed);
    session.link.push(py, Kind::Failed, flags, id, &frame.meta, &[]);
}

// === impl Started ===

impl<'py> Started<'py> {
    fn new(py: Python<'py>, call: Arc<Call>, incoming: Incoming) -> PyResult<Self> {
        let Incoming { parts, headers, attempt, deadline, .. } = incoming;
        let request = Bound::new(py, ModelInferRequest::received(parts))?;
        let takes = call.row().takes;
        if takes == 1 {
            let arguments = PyTuple::new(py, [&request])?;
            return Ok(Self { call, request, arguments });
        }
        let context = Bound::new(py, Context::of(py, &call, &request, headers, attempt, deadline))?.into_any();
        let mut arguments = vec![request.clone().into_any(), context];
        if takes == 3 {
            let stream = Stream { call: Arc::clone(&call), request: request.clone().unbind() };
            arguments.push(Bound::new(py, stream)?.into_any());
        }
        Ok(Self { call, arguments: PyTuple::new(py, arguments)?, request })
    }
}

// === impl Call ===

impl Call {
    pub(super) fn row(&self) -> &Row {
        &self.session.rows[self.row]
    }

    /// Whether the caller left.
    pub(super) fn is_cancelled(&self) -> bool {
        self.session.link.slots.is_cancelled(self.slot, self.id)
            || self.row().handler.stream && self.session.flows.room(self.id) == Room::Cancelled
    }

    /// Sends one response of a stream; the window must be open.
    pub(super) fn send(&self, value: &Bound<'_, PyAny>, request: &Bound<'_, ModelInferRequest>) -> PyResult<()> {
        let encoded = self.encode(value, request, 0)?;
        self.session.flows.spend(self.id, encoded.len());
        self.push(value.py(), Kind::Chunk, 0, &encoded);
        Ok(())
    }

    /// Sends one response of a stream at once; blocks until the window is open, with the interpreter's lock released.
    ///
    /// # Errors
    /// `Cancelled` if the caller left.
    pub(super) fn send_blocking(
        &self,
        value: &Bound<'_, PyAny>,
        request: &Bound<'_, ModelInferRequest>,
    ) -> PyResult<()> {
        let py = value.py();
        let room = match self.session.flows.room(self.id) {
            Room::Full => self.session.wait_for_room(py, self.id)?,
            room => room,
        };
        if room == Room::Cancelled || self.is_cancelled() {
            return Err(cancelled(py));
        }
        self.send(value, request)?;
        self.session.link.flush(py);
        Ok(())
    }

    /// Ends an ordinary request with its response, or a stream, after the response if there is one.
    pub(super) fn finish(&self, value: &Bound<'_, PyAny>, request: &Bound<'_, ModelInferRequest>) -> PyResult<()> {
        let ns = self.elapsed_ns();
        self.row().ran(ns);
        if self.row().handler.stream {
            self.finish_stream(value, request, ns)?;
        } else {
            let encoded = self.encode(value, request, ns)?;
            self.push(value.py(), Kind::Done, flags::RESPONSE, &encoded);
        }
        self.settle();
        Ok(())
    }

    fn finish_stream(
        &self,
        value: &Bound<'_, PyAny>,
        request: &Bound<'_, ModelInferRequest>,
        compute_ns: u64,
    ) -> PyResult<()> {
        if !value.is_none() {
            self.send(value, request)?;
        }
        let frame = Frame::with_meta(Kind::Done, self.id, &message::Response { compute_ns, ..Default::default() });
        self.session.link.push(value.py(), Kind::Done, 0, self.id, &frame.meta, &[]);
        Ok(())
    }

    /// Ends the request with what its handler raised.
    pub(super) fn fail(&self, py: Python<'_>, raised: &PyErr) {
        self.fail_with(py, &error_of(py, raised));
    }

    fn fail_with(&self, py: Python<'_>, error: &Error) {
        let ns = self.elapsed_ns();
        self.row().ran(ns);
        let failed = message::Failed { compute_ns: ns, ..message::Failed::from(error) };
        send_failed(py, &self.session, self.id, 0, &failed);
        self.settle();
    }

    fn encode(
        &self,
        value: &Bound<'_, PyAny>,
        request: &Bound<'_, ModelInferRequest>,
        compute_ns: u64,
    ) -> PyResult<Encoded> {
        encode(&response_of(value, request)?, &self.session.link.limits, compute_ns)
    }

    fn push(&self, py: Python<'_>, kind: Kind, flags: u16, encoded: &Encoded) {
        self.session.link.push(py, kind, flags, self.id, &encoded.meta, &encoded.body());
    }

    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The request has its answer; nothing is sent for it any more.
    fn settle(&self) {
        self.answered.store(true, Ordering::Release);
        if self.row().handler.stream {
            self.session.flows.close(self.id);
        }
        self.session.settle();
    }
}

impl Drop for Call {
    /// A task that was cancelled before its first step, or a handler's thread that could not go on.
    fn drop(&mut self) {
        if !*self.answered.get_mut() {
            let error = Error::new(Code::Cancelled, "the handler ended without an answer");
            Python::try_attach(|py| {
                self.fail_with(py, &error);
                self.session.link.flush(py);
            });
        }
    }
}

/// The exception that a stream's handler gets when its caller left.
pub(super) fn cancelled(py: Python<'_>) -> PyErr {
    errors_class(py, "Cancelled")
        .map_or_else(|error| error, |class| PyErr::from_type(class, ("the caller left before the stream's end",)))
}
