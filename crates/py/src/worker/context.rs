//! What a handler knows about the call it is in, and how it streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};
use anyserve_wire::message;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::call::{Call, cancelled};
use super::flow::Room;
use super::made_call::{MadeCall, make};
use super::objects::ObjectPlane;
use super::table::Kind;
use crate::client::Call as Asked;
use crate::errors::to_py;
use crate::kserve::ModelInferRequest;

/// What a handler knows about the call it is in.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Context {
    request_id: String,
    /// 1 for the first time that the request is sent to a worker.
    #[pyo3(get)]
    attempt: u32,
    deadline: Option<Instant>,
    call: Option<Arc<Call>>,
    capability: Py<PyDict>,
    headers: Vec<message::Header>,
    request: Option<Py<ModelInferRequest>>,
    parameters: PyOnceLock<Py<PyDict>>,
    header_dict: PyOnceLock<Py<PyDict>>,
    log: PyOnceLock<Py<PyAny>>,
    objects: PyOnceLock<Py<PyAny>>,
}

/// Why a context has no objects.
const NO_PLANE: &str = "there is no object store here: start the replica with --object-store";

/// Why a context makes no calls.
const NO_RUNTIME: &str =
    "this context belongs to no request of a replica: give the handler one whose call is a stand-in";

/// Sends the responses of one request; the third argument of a streaming handler.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Stream {
    pub(super) call: Arc<Call>,
    pub(super) request: Py<ModelInferRequest>,
}

// === impl Context ===

impl Context {
    pub(super) fn of(
        py: Python<'_>,
        call: &Arc<Call>,
        request: &Bound<'_, ModelInferRequest>,
        headers: Vec<message::Header>,
        attempt: u32,
        deadline: Option<Instant>,
    ) -> Self {
        let id = request.get().caller_id();
        Self {
            request_id: if id.is_empty() { call.id.to_string() } else { id.to_owned() },
            attempt,
            deadline,
            capability: call.row().capability.clone_ref(py),
            call: Some(Arc::clone(call)),
            headers,
            request: Some(request.clone().unbind()),
            parameters: PyOnceLock::new(),
            header_dict: PyOnceLock::new(),
            log: PyOnceLock::new(),
            objects: PyOnceLock::new(),
        }
    }
}

/// A dict with some variables under their own names.
macro_rules! options {
    ($py:expr, $($name:ident),*) => {{
        let options = PyDict::new($py);
        $(options.set_item(stringify!($name), $name)?;)*
        options
    }};
}

/// A function of the Python half of calls.
fn calls<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("anyserve._calls")?.getattr(name)
}

#[pymethods]
impl Context {
    #[new]
    #[pyo3(signature = (*, request_id="", capability=None, parameters=None, headers=None, timeout_s=None))]
    fn new(
        py: Python<'_>,
        request_id: &str,
        capability: Option<Bound<'_, PyDict>>,
        parameters: Option<Bound<'_, PyDict>>,
        headers: Option<Bound<'_, PyDict>>,
        timeout_s: Option<f64>,
    ) -> PyResult<Self> {
        let timeout = timeout_s.map(Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|error| PyValueError::new_err(format!("timeout_s: {error}")))?;
        let dict = |given: Option<Bound<'_, PyDict>>| given.unwrap_or_else(|| PyDict::new(py)).unbind();
        let context = Self {
            request_id: request_id.to_owned(),
            attempt: 1,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            call: None,
            capability: dict(capability),
            headers: Vec::new(),
            request: None,
            parameters: PyOnceLock::new(),
            header_dict: PyOnceLock::new(),
            log: PyOnceLock::new(),
            objects: PyOnceLock::new(),
        };
        context.parameters.get_or_init(py, || dict(parameters));
        context.header_dict.get_or_init(py, || dict(headers));
        Ok(context)
    }

    #[getter]
    fn request_id(&self) -> &str {
        &self.request_id
    }

    #[getter]
    fn capability<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // A copy: the handler's other requests have the same one.
        self.capability.bind(py).copy()
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        let dict = self.parameters.get_or_try_init(py, || match &self.request {
            Some(request) => request.get().parameters_dict(py).map(|dict| dict.clone().unbind()),
            None => Ok(PyDict::new(py).unbind()),
        })?;
        Ok(dict.bind(py))
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        let dict = self.header_dict.get_or_try_init(py, || {
            let dict = PyDict::new(py);
            for message::Header { name, value } in &self.headers {
                match dict.get_item(name)? {
                    // As HTTP has it: a repeated header is one with a list.
                    Some(earlier) => dict.set_item(name, format!("{earlier}, {value}"))?,
                    None => dict.set_item(name, value)?,
                }
            }
            Ok::<_, PyErr>(dict.unbind())
        })?;
        Ok(dict.bind(py))
    }

    #[getter]
    fn cancelled(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.is_cancelled())
    }

    /// Seconds until the deadline, at least 0; `None` without one.
    fn remaining(&self) -> Option<f64> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }

    #[getter]
    fn log<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let log = self.log.get_or_try_init(py, || {
            let logging = py.import("logging")?;
            let logger = logging.call_method1("getLogger", ("anyserve.handler",))?;
            let extra = PyDict::new(py);
            extra.set_item("request_id", &self.request_id)?;
            logging.getattr("LoggerAdapter")?.call1((logger, extra)).map(Bound::unbind)
        })?;
        Ok(log.bind(py))
    }

    #[getter]
    fn objects<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let objects = self.objects.get_or_try_init(py, || {
            let plane = self.call.as_ref().and_then(|call| ObjectPlane::of(&call.session));
            let plane = plane.ok_or_else(|| to_py(py, &Error::new(Code::Unsupported, NO_PLANE)))?;
            CLASS.import(py, "anyserve.objects", "Objects")?.call1((plane, self.remaining())).map(Bound::unbind)
        })?;
        Ok(objects.bind(py))
    }

    /// Calls another capability and waits for its answer.
    #[pyo3(signature = (capability, inputs, *, timeout_s=None, id=None, parameters=None, headers=None, outputs=None, version=""))]
    #[allow(clippy::too_many_arguments)] // A call has that many.
    fn call<'py>(
        slf: &Bound<'py, Self>,
        capability: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyAny>,
        timeout_s: Option<f64>,
        id: Option<&str>,
        parameters: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
        outputs: Option<&Bound<'py, PyAny>>,
        version: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options!(slf.py(), timeout_s, id, parameters, headers, outputs, version);
        calls(slf.py(), "call")?.call((slf, capability, inputs), Some(&options))
    }

    /// Calls another capability, and gives its answers as they come.
    #[pyo3(signature = (capability, inputs, *, timeout_s=None, id=None, parameters=None, headers=None, outputs=None, version=""))]
    #[allow(clippy::too_many_arguments)] // A call has that many.
    fn call_stream<'py>(
        slf: &Bound<'py, Self>,
        capability: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyAny>,
        timeout_s: Option<f64>,
        id: Option<&str>,
        parameters: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
        outputs: Option<&Bound<'py, PyAny>>,
        version: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options!(slf.py(), timeout_s, id, parameters, headers, outputs, version);
        calls(slf.py(), "call_stream")?.call((slf, capability, inputs), Some(&options))
    }

    /// Calls another capability; awaited, it gives its answer.
    #[pyo3(signature = (capability, inputs, *, timeout_s=None, id=None, parameters=None, headers=None, outputs=None, version=""))]
    #[allow(clippy::too_many_arguments)] // A call has that many.
    fn acall<'py>(
        slf: &Bound<'py, Self>,
        capability: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyAny>,
        timeout_s: Option<f64>,
        id: Option<&str>,
        parameters: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
        outputs: Option<&Bound<'py, PyAny>>,
        version: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options!(slf.py(), timeout_s, id, parameters, headers, outputs, version);
        calls(slf.py(), "acall")?.call((slf, capability, inputs), Some(&options))
    }

    /// Calls another capability, and gives its answers as they come, asynchronously.
    #[pyo3(signature = (capability, inputs, *, timeout_s=None, id=None, parameters=None, headers=None, outputs=None, version=""))]
    #[allow(clippy::too_many_arguments)] // A call has that many.
    fn acall_stream<'py>(
        slf: &Bound<'py, Self>,
        capability: &Bound<'py, PyAny>,
        inputs: &Bound<'py, PyAny>,
        timeout_s: Option<f64>,
        id: Option<&str>,
        parameters: Option<&Bound<'py, PyAny>>,
        headers: Option<&Bound<'py, PyAny>>,
        outputs: Option<&Bound<'py, PyAny>>,
        version: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options!(slf.py(), timeout_s, id, parameters, headers, outputs, version);
        calls(slf.py(), "acall_stream")?.call((slf, capability, inputs), Some(&options))
    }

    /// Sends a call that `anyserve._calls` has checked.
    fn _make_call(&self, py: Python<'_>, asked: &Asked, stream: bool, awaited: bool) -> PyResult<MadeCall> {
        let nobody = || to_py(py, &Error::new(Code::Unsupported, NO_RUNTIME));
        make(py, self.call.as_ref().ok_or_else(nobody)?, &asked.0, stream, awaited)
    }

    fn __repr__(&self) -> String {
        format!("<Context request_id={:?} attempt={}>", self.request_id, self.attempt)
    }
}

// === impl Stream ===

#[pymethods]
impl Stream {
    /// Sends one response; blocks while the caller is behind.
    fn send(&self, py: Python<'_>, response: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.call.row().kind != Kind::Sync {
            let text = "stream.send would block the event loop: use `await stream.asend(response)`";
            return Err(PyRuntimeError::new_err(text));
        }
        self.call.send_blocking(response, self.request.bind(py))
    }

    /// Sends one response; awaits while the caller is behind.
    fn asend<'py>(slf: Bound<'py, Self>, response: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static ASEND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        if slf.get().call.row().kind == Kind::Sync {
            return Err(PyRuntimeError::new_err("stream.asend is for async handlers: use stream.send(response)"));
        }
        ASEND.import(slf.py(), "anyserve.worker.loop", "asend")?.call1((slf, response))
    }

    /// Sends one response if the window is open; otherwise returns a future that is done when it is.
    fn _offer<'py>(&self, response: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = response.py();
        super::bridge::offer(&self.call, response, self.request.bind(py))
    }
}

/// Whether a stream's handler may go on.
pub(super) fn check_room(py: Python<'_>, room: Room) -> PyResult<bool> {
    match room {
        Room::Open => Ok(true),
        Room::Full => Ok(false),
        Room::Cancelled => Err(cancelled(py)),
    }
}
