//! `_core._MadeCall`: a call that a handler has made, for its thread or for the event loop.

use std::sync::Arc;
use std::time::Duration;

use anyserve_client::Call as Asked;
use anyserve_core::{Code, Error, Parameter, Query};
use anyserve_wire::{Frame, Kind, message};
use prost::Message;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::bridge::settle;
use super::call::Call;
use super::made::{MAX_CALLS, Next, Outcome};
use super::outbox::Outgoing;
use super::reply::{PLACE_LEN, Piece};
use super::session::Session;
use super::share::{Shared, share};
use super::table::Kind as HandlerKind;
use crate::errors::to_py;
use crate::kserve::{Label, ModelInferResponse, check_len};

/// A call under way. Dropping it gives it up.
#[pyclass(frozen, module = "anyserve._core", name = "_MadeCall")]
pub(crate) struct MadeCall {
    session: Arc<Session>,
    id: u64,
}

/// The parameter that carries a selector.
const CAPABILITY: &str = "capability";

/// Makes a call for the request that a handler runs for.
///
/// # Errors
/// `RuntimeError` if the handler has to wait in the other way, `Cancelled` if its request is over, `Overloaded` if too
/// many calls are open, `InvalidInput` for what cannot be sent.
pub(super) fn make(py: Python<'_>, call: &Call, asked: &Asked, stream: bool, awaited: bool) -> PyResult<MadeCall> {
    check_kind(call, awaited)?;
    let refused = |code, text: String| to_py(py, &Error::new(code, text));
    if call.is_answered() || call.is_cancelled() {
        return Err(refused(Code::Cancelled, "the request that this context belongs to is over".to_owned()));
    }
    let session = &call.session;
    let bridge = session.router().and_then(|router| router.bridge(py)).filter(|_| awaited);
    if let Some(bridge) = bridge {
        bridge.get().check_loop(&py.import("asyncio")?.call_method0("get_running_loop")?)?;
    }
    let (meta, Shared { inline, .. }) = encode(py, session, call.id, asked, stream)?;
    let many = || format!("{MAX_CALLS} calls of this worker are open, which is the most: wait for some of them");
    let id = session.made.begin().ok_or_else(|| refused(Code::Overloaded, many()))?;
    let body = inline.iter().map(Piece::as_slice).collect();
    let made = MadeCall { session: Arc::clone(session), id };
    session.link.push(py, &[Outgoing::new(Kind::Call, 0, id, &meta, body)]);
    match bridge {
        Some(bridge) => bridge.get().plan_flush(py)?,
        None => session.link.flush(py),
    }
    Ok(made)
}

fn check_kind(call: &Call, awaited: bool) -> PyResult<()> {
    let text = match (call.row().kind == HandlerKind::Sync, awaited) {
        (true, true) => "context.acall is for async handlers: use context.call, or context.call_stream",
        (false, false) => {
            "context.call would block the event loop: use `await context.acall(…)`, or `async for … in \
             context.acall_stream(…)`"
        }
        _ => return Ok(()),
    };
    Err(PyRuntimeError::new_err(text))
}

/// The metadata of a call, and what of its inputs goes over the socket. Large ones are put into the arena.
fn encode(py: Python<'_>, session: &Session, parent: u64, asked: &Asked, stream: bool) -> PyResult<(Vec<u8>, Shared)> {
    for input in &asked.inputs {
        check_len(py, Label::Input(&input.name), input.datatype, &input.shape, &input.data)?;
    }
    let invalid = |error: Error| to_py(py, &error);
    let (selector, request) = request_of(asked).map_err(invalid)?;
    let mut meta = message::Call { parent, selector, stream, request: None };
    let limits = &session.link.limits;
    // Places are added to it below, at most so many bytes for each tensor.
    let len = meta.encoded_len() + request.encoded_len() + PLACE_LEN * (1 + asked.inputs.len());
    let body: usize = asked.inputs.iter().map(|input| input.data.len()).sum();
    for (what, len, max) in [("metadata", len, limits.max_meta), ("tensors", body, limits.max_message)] {
        if len > max {
            return Err(invalid(Error::invalid(format!(
                "the call has {len} bytes of {what}, at most {max} are allowed"
            ))));
        }
    }
    let pieces = (0..).zip(&asked.inputs).map(|(number, input)| (number, Piece::Bytes(input.data.clone())));
    let shared = share(py, session, pieces.collect())?;
    meta.request = Some(message::Request { places: shared.places.clone(), ..request });
    Ok((meta.encode_to_vec(), shared))
}

/// What is to serve a call, as a selector or empty for its model, and what it is to get.
fn request_of(asked: &Asked) -> Result<(String, message::Request), Error> {
    let mut parameters = asked.parameters.clone();
    let mut selector = String::new();
    if let Some(place) = parameters.iter().position(|(name, _)| name == CAPABILITY) {
        let (_, value) = parameters.remove(place);
        let Parameter::Text(text) = value else { return Err(Error::invalid("parameter 'capability' is no text")) };
        Query::parse(&text).map_err(|error| Error::invalid(error.to_string()))?;
        selector = text;
    }
    if let Some(capability) = &asked.capability {
        let pairs = capability.iter().map(|(key, value)| (key.to_owned(), value.to_string()));
        selector = Query::equal_to(pairs).to_selector().unwrap_or_default();
    }
    let micros = |timeout: Duration| u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX - 1) + 1;
    let header = |(name, value): &(String, String)| message::Header { name: name.clone(), value: value.clone() };
    let pair = |(key, value): &(String, Parameter)| message::KeyValue { key: key.clone(), value: Some(value.into()) };
    let request = message::Request {
        remaining_us: asked.timeout.map_or(0, micros),
        model: asked.model.clone(),
        version: asked.version.clone(),
        id: asked.id.clone(),
        inputs: asked.inputs.iter().map(message::Tensor::from).collect(),
        outputs: asked.outputs.clone(),
        parameters: parameters.iter().map(pair).collect(),
        headers: asked.headers.iter().map(header).collect(),
        ..Default::default()
    };
    Ok((selector, request))
}

/// An outcome as Python has it; `None` is the end.
pub(super) fn outcome_into_py(py: Python<'_>, outcome: Outcome) -> PyResult<Option<Py<PyAny>>> {
    let response = outcome.map_err(|error| to_py(py, &error))?;
    response.map(|response| Ok(Py::new(py, ModelInferResponse::received(py, response)?)?.into_any())).transpose()
}

#[pymethods]
impl MadeCall {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    /// Waits for the next result, a `ModelInferResponse`. What interrupts the wait gives the call up.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match self.session.next_result(py, self.id) {
            Ok(outcome) => outcome_into_py(py, outcome),
            Err(interrupted) => {
                self.give_up(py);
                Err(interrupted)
            }
        }
    }

    /// Asks for the next result, which goes to a future of the worker's event loop; `None` is the end.
    fn start_next(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        let bridge = self.session.router().and_then(|router| router.bridge(py));
        let bridge = bridge.ok_or_else(|| PyRuntimeError::new_err("this worker has no event loop"))?.get();
        bridge.check_loop(&future.call_method0("get_loop")?)?;
        match self.session.made.take_or_await(self.id, self.session.window()) {
            Next::Part(outcome, credit) => {
                self.session.give_credit(py, self.id, credit);
                settle(future, outcome)
            }
            Next::Over => settle(future, Ok(None)),
            Next::Nothing => bridge.await_result(self.id, future),
        }
    }

    /// Gives the call up, if it is not over. Who waits for a result gets the end.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.give_up(py);
        let bridge = self.session.router().and_then(|router| router.bridge(py));
        bridge.map_or(Ok(()), |bridge| bridge.get().deliver_result(py, self.id))
    }
}

// === impl MadeCall ===

impl MadeCall {
    fn give_up(&self, py: Python<'_>) {
        if self.session.made.close(self.id) {
            self.session.link.push_frame(py, &Frame::bare(Kind::Cancel, self.id));
            self.session.link.flush(py);
        }
    }
}

impl Drop for MadeCall {
    fn drop(&mut self) {
        Python::try_attach(|py| self.give_up(py));
    }
}
