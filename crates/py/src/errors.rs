//! The one map from the closed set of codes to `anyserve.errors`. The way back, of what a handler raised, begins in
//! Python: a class of `anyserve.errors` knows its code.

use anyserve_core::{Code, Error};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;

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

fn class(py: Python<'_>, code: Code) -> PyResult<Bound<'_, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("anyserve.errors").map(Bound::unbind))?;
    module.bind(py).getattr(code.python())
}
