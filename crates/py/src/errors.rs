//! The one map between the closed set of codes and `anyserve.errors`, in both directions.

use std::time::Duration;

use anyserve_core::{Code, Error};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyType};

const MODULE: &str = "anyserve.errors";
/// As many as there are codes; a code's number is its place.
const CODES: usize = 17;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(codes, module)?)
}

/// The closed set: for every code its name, gRPC status, HTTP status and class in `anyserve.errors`.
#[pyfunction]
fn codes() -> Vec<(&'static str, i32, u16, &'static str)> {
    Code::all().map(|code| (code.name(), code.grpc(), code.http(), code.python())).collect()
}

/// An error as an instance of its class in `anyserve.errors`.
///
/// Whatever goes wrong on the way is the error that is given: a missing class is a broken installation.
pub(crate) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    match instance(py, error) {
        Ok(raised) => PyErr::from_value(raised),
        Err(broken) => broken,
    }
}

fn instance<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let retry_after = error.retry_after.map(|delay| delay.as_secs_f64());
    let more = [("retry_after_s", retry_after.into_pyobject(py)?)].into_py_dict(py)?;
    more.set_item("traceback", &error.traceback)?;
    class(py, error.code)?.call((&error.message,), Some(&more))
}

fn class(py: Python<'_>, code: Code) -> PyResult<&Bound<'_, PyType>> {
    static CLASSES: [PyOnceLock<Py<PyType>>; CODES] = [const { PyOnceLock::new() }; CODES];
    let place = usize::try_from(code.number()).expect("a code's number is small");
    CLASSES[place].import(py, MODULE, code.python())
}

/// What a handler raised, as the error that its caller gets.
///
/// An `AnyServeError` chooses its code; `asyncio.CancelledError` is `CANCELLED`; everything else is `HANDLER_ERROR`
/// with the exception's type and text as message and its traceback as text.
#[allow(dead_code)] // The worker loop is its only caller.
pub(crate) fn from_py(py: Python<'_>, raised: &PyErr) -> Error {
    let value = raised.value(py);
    match known(py, value) {
        Ok(Some(error)) => error,
        // A class that misbehaves under inspection is still an exception of the handler.
        Ok(None) | Err(_) => handler_error(py, raised),
    }
}

fn known(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Option<Error>> {
    static BASE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static CANCELLED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if value.is_instance(BASE.import(py, MODULE, "AnyServeError")?)? {
        return chosen(value).map(Some);
    }
    if value.is_instance(CANCELLED.import(py, "asyncio", "CancelledError")?)? {
        return Ok(Some(Error::new(Code::Cancelled, "the handler was cancelled")));
    }
    Ok(None)
}

/// The error that an `AnyServeError` stands for.
fn chosen(value: &Bound<'_, PyAny>) -> PyResult<Error> {
    let name: String = value.getattr("code")?.extract()?;
    let retry_after: Option<f64> = value.getattr("retry_after_s")?.extract()?;
    Ok(Error {
        code: Code::from_name(&name).unwrap_or(Code::HandlerError),
        message: value.str()?.to_string_lossy().into_owned(),
        retry_after: retry_after.and_then(|delay| Duration::try_from_secs_f64(delay).ok()),
        traceback: value.getattr("traceback")?.extract()?,
    })
}

fn handler_error(py: Python<'_>, raised: &PyErr) -> Error {
    let kind = raised.get_type(py).name().map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
    let text = raised.value(py).str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    let message = if text.is_empty() { kind } else { format!("{kind}: {text}") };
    Error { traceback: formatted(py, raised).ok(), ..Error::new(Code::HandlerError, message) }
}

fn formatted(py: Python<'_>, raised: &PyErr) -> PyResult<String> {
    let lines = py.import("traceback")?.call_method1("format_exception", (raised.value(py),))?;
    Ok(lines.extract::<Vec<String>>()?.concat())
}
