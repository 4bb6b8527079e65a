//! One request under way. It is answered exactly once: by its handler, or when it is dropped.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyserve_core::{Code, Error};
use anyserve_wire::message;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::context::{Context, Stream};
use super::failure::error_of;
use super::flow::Room;
use super::inbox::Incoming;
use super::places::TRUNCATED;
use super::reply::{Encoded, Reply, encode, response_of};
use super::session::Session;
use super::table::Row;
use crate::errors::to_py;
use crate::kserve::{ModelInferRequest, errors_class};

/// A request whose handler has started.
pub(super) struct Call {
    pub(super) session: Arc<Session>,
    pub(super) id: u64,
    slot: usize,
    row: usize,
    started: Instant,
    answered: AtomicBool,
    /// Regions of clients' memory that its inputs lie in.
    regions: Vec<u64>,
    destinations: Vec<message::Destination>,
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
    mut incoming: Incoming,
) -> Option<PyResult<Started<'py>>> {
    let call = claim(py, session, &mut incoming)?;
    Some(Started::new(py, call, incoming))
}

/// Claims a request; `None` if the runtime took it back or its time is over, which is then answered.
pub(super) fn claim(py: Python<'_>, session: &Arc<Session>, incoming: &mut Incoming) -> Option<Arc<Call>> {
    let (&mut Incoming { id, row, slot, deadline, .. }, started) = (&mut *incoming, Instant::now());
    // The runtime's timer may be late by a moment; what is overdue does not start all the same.
    let refused = match deadline {
        Some(deadline) if deadline <= started => Some(Reply::too_late()),
        _ if !session.link.slots.start(slot, id) => Some(Reply::taken_back()),
        _ => incoming.lost.then(|| Reply::failed(&Error::invalid(TRUNCATED), 0)),
    };
    if let Some(refused) = refused {
        session.link.push(py, &[refused.outgoing(id)]);
        session.settle();
        return None;
    }
    let session = Arc::clone(session);
    let (regions, destinations) = (take(&mut incoming.regions), take(&mut incoming.destinations));
    let answered = AtomicBool::new(false);
    let call = Arc::new(Call { session, id, slot, row, started, answered, regions, destinations });
    if call.row().handler.stream {
        call.session.flows.open(id, call.session.link.window);
    }
    Some(call)
}

/// Nanoseconds since then.
pub(super) fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
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
        let chunk = Reply::chunk(self.encode(value, request, 0)?);
        self.session.flows.spend(self.id, chunk.len());
        self.push(value.py(), &chunk);
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
        let ns = elapsed_ns(self.started);
        self.row().ran(ns);
        if self.row().handler.stream && !value.is_none() {
            self.send(value, request)?;
        }
        let stream = self.row().handler.stream;
        let last = if stream { Reply::end(ns) } else { Reply::done(self.encode(value, request, ns)?) };
        self.push(value.py(), &last);
        self.settle();
        Ok(())
    }

    /// Ends the request with what its handler raised.
    pub(super) fn fail(&self, py: Python<'_>, raised: &PyErr) {
        self.fail_with(py, &error_of(py, raised));
    }

    fn fail_with(&self, py: Python<'_>, error: &Error) {
        let ns = elapsed_ns(self.started);
        self.row().ran(ns);
        self.push(py, &Reply::failed(error, ns));
        self.settle();
    }

    /// What a handler returned, as it is sent.
    pub(super) fn encode(
        &self,
        value: &Bound<'_, PyAny>,
        request: &Bound<'_, ModelInferRequest>,
        compute_ns: u64,
    ) -> PyResult<Encoded> {
        let encoded = encode(&response_of(value, request)?, &self.session, &self.destinations, compute_ns)?;
        // Asked last: what was read of memory that was taken away meanwhile are zeros.
        if self.regions.iter().any(|region| self.session.link.memory.regions.is_broken(*region)) {
            return Err(to_py(value.py(), &Error::invalid(TRUNCATED)));
        }
        Ok(encoded)
    }

    fn push(&self, py: Python<'_>, reply: &Reply) {
        self.session.link.push(py, &[reply.outgoing(self.id)]);
    }

    /// Whether it has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// The request has its answer; nothing is sent for it any more.
    pub(super) fn settle(&self) {
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
