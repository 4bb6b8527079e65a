//! The handler table: rows as Python describes them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyserve_core::{Capability, Datatype, Handler, Priority, TensorSpec, Value};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};

/// How a handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A function, or one that yields.
    Sync,
    Async,
    AsyncGenerator,
}

/// One handler.
pub(super) struct Row {
    pub(super) call: Py<PyAny>,
    pub(super) kind: Kind,
    /// Whether it takes the request; and the context; and the stream. With batches the first two are lists.
    pub(super) takes: usize,
    pub(super) capability: Py<PyDict>,
    pub(super) handler: Handler,
    recent_ns: AtomicU64,
}

/// A handler that takes longer is not waited for with finished replies.
const SLOW_NS: u64 = 50_000;

// === impl Row ===

impl Row {
    pub(super) fn is_sync(&self) -> bool {
        self.kind == Kind::Sync
    }

    /// Notes how long it ran.
    pub(super) fn ran(&self, ns: u64) {
        self.recent_ns.store(ns, Ordering::Relaxed);
    }

    /// Whether it is expected to take long, by its last time.
    pub(super) fn is_slow(&self) -> bool {
        self.recent_ns.load(Ordering::Relaxed) > SLOW_NS
    }
}

/// Reads every row.
pub(super) fn rows_of(handlers: &Bound<'_, PyAny>) -> PyResult<Vec<Row>> {
    handlers.try_iter()?.map(|handler| row_of(&handler?)).collect()
}

fn row_of(row: &Bound<'_, PyAny>) -> PyResult<Row> {
    let capability = row.getattr("capability")?.cast_into::<PyDict>()?;
    let seconds = |name: &str, value: f64| Duration::try_from_secs_f64(value).map_err(|error| bad(name, &error));
    let timeout: Option<f64> = row.getattr("timeout_s")?.extract()?;
    let max_delay_ms: f64 = row.getattr("max_delay_ms")?.extract()?;
    let handler = Handler {
        capability: capability_of(&capability)?,
        function: row.getattr("function")?.extract()?,
        inputs: specs_of(&row.getattr("inputs")?)?,
        outputs: specs_of(&row.getattr("outputs")?)?,
        stream: row.getattr("stream")?.extract()?,
        concurrency: row.getattr("concurrency")?.extract()?,
        max_queue: row.getattr("max_queue")?.extract()?,
        timeout: timeout.map(|value| seconds("timeout_s", value)).transpose()?,
        max_batch_size: row.getattr("max_batch_size")?.extract()?,
        max_delay: seconds("max_delay_ms", max_delay_ms / 1000.0)?,
        priority: priority_of(row.getattr("priority")?.extract()?)?,
        idempotent: row.getattr("idempotent")?.extract()?,
        sequence: row.getattr("sequence")?.extract()?,
    };
    Ok(Row {
        call: row.getattr("call")?.unbind(),
        kind: kind_of(&row.getattr("kind")?.extract::<String>()?)?,
        takes: row.getattr("takes")?.extract()?,
        capability: capability.unbind(),
        handler,
        recent_ns: AtomicU64::new(0),
    })
}

fn kind_of(name: &str) -> PyResult<Kind> {
    match name {
        "sync" | "generator" => Ok(Kind::Sync),
        "async" => Ok(Kind::Async),
        "async_generator" => Ok(Kind::AsyncGenerator),
        other => Err(PyValueError::new_err(format!("a handler has the unknown kind {other:?}"))),
    }
}

fn priority_of(level: Option<u32>) -> PyResult<Option<Priority>> {
    let of = |level| Priority::try_new(level).ok_or_else(|| bad("priority", &format!("{level} is no level")));
    level.map(of).transpose()
}

fn bad(what: &str, error: &dyn std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{what} of a handler: {error}"))
}

fn capability_of(dict: &Bound<'_, PyDict>) -> PyResult<Capability> {
    let pairs: Vec<_> =
        dict.iter().map(|(key, value)| Ok((key.extract::<String>()?, value_of(&value)?))).collect::<PyResult<_>>()?;
    Capability::try_new(pairs).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn value_of(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_instance_of::<PyBool>() {
        value.extract().map(Value::Bool)
    } else if value.is_instance_of::<PyString>() {
        value.extract().map(Value::Text)
    } else if value.is_instance_of::<PyInt>() {
        value.extract().map(Value::Int)
    } else if value.is_instance_of::<PyFloat>() {
        value.extract().map(Value::Float)
    } else {
        Err(PyTypeError::new_err(format!("a capability has the value {value:?}; use a str, int, float or bool")))
    }
}

fn specs_of(specs: &Bound<'_, PyAny>) -> PyResult<Option<Vec<TensorSpec>>> {
    if specs.is_none() {
        return Ok(None);
    }
    specs.try_iter()?.map(|spec| spec_of(&spec?)).collect::<PyResult<_>>().map(Some)
}

fn spec_of(spec: &Bound<'_, PyAny>) -> PyResult<TensorSpec> {
    let (name, datatype): (String, String) = (spec.getattr("name")?.extract()?, spec.getattr("datatype")?.extract()?);
    let datatype = Datatype::from_name(&datatype).ok_or_else(|| bad(&name, &format!("unknown datatype {datatype}")))?;
    let shape = spec.getattr("shape")?.try_iter()?.map(|size| size?.extract()).collect::<PyResult<_>>()?;
    Ok(TensorSpec { name, datatype, shape })
}
