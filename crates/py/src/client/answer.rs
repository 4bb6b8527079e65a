//! What a call can come back with, and how that looks in Python.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use anyserve_client::Metadata;
use anyserve_core::{Error, Response, TensorSpec};
use futures_util::FutureExt as _;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;

use super::wait::wait;
use crate::errors;
use crate::kserve::ModelInferResponse;

/// An answer of a server.
pub(crate) enum Answer {
    /// To an inference.
    Response(Response),
    /// To the next of a stream; `None` is its end.
    Next(Option<Response>),
    /// To whether it is live or ready.
    Truth(bool),
    /// To what a model is like.
    Metadata(Metadata),
}

/// How a call ended.
pub(crate) type Outcome = Result<Answer, Error>;

/// A call that is ready to go: to be waited for here, or started for an event loop.
pub(crate) struct Work {
    /// Where its timers and sockets are.
    pub(super) runtime: Handle,
    /// The call. Dropping it cancels it on the server.
    pub(super) outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// The error of a call that was dropped before it had an answer.
pub(crate) fn gone() -> Error {
    Error::internal("the call ended without an answer")
}

// === impl Work ===

impl Work {
    /// Work that ends with an error should it panic: what a server sends must not end the caller.
    pub(crate) fn new(runtime: Handle, call: impl Future<Output = Outcome> + Send + 'static) -> Self {
        let outcome = AssertUnwindSafe(call).catch_unwind().map(|ended| ended.unwrap_or_else(|_| Err(gone())));
        Self { runtime, outcome: Box::pin(outcome) }
    }

    /// Waits for the outcome, without the GIL.
    pub(crate) fn wait(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let outcome = wait(py, &self.runtime, self.outcome)?;
        outcome.map_err(|error| errors::to_py(py, &error))?.into_py(py)
    }
}

// === impl Answer ===

impl Answer {
    /// A `ModelInferResponse`, `None` at a stream's end, a `bool` or a `dict`.
    pub(crate) fn into_py(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::Response(response) | Self::Next(Some(response)) => message(py, response),
            Self::Next(None) => Ok(py.None()),
            Self::Truth(truth) => Ok(truth.into_pyobject(py)?.to_owned().into_any().unbind()),
            Self::Metadata(metadata) => described(py, metadata),
        }
    }
}

fn message(py: Python<'_>, response: Response) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, ModelInferResponse::received(py, response)?)?.into_any())
}

fn described(py: Python<'_>, metadata: Metadata) -> PyResult<Py<PyAny>> {
    let dict = PyDict::new(py);
    dict.set_item("name", metadata.name)?;
    dict.set_item("versions", metadata.versions)?;
    dict.set_item("platform", metadata.platform)?;
    dict.set_item("inputs", specs(metadata.inputs))?;
    dict.set_item("outputs", specs(metadata.outputs))?;
    Ok(dict.into_any().unbind())
}

fn specs(specs: Vec<TensorSpec>) -> Vec<(String, &'static str, Vec<i64>)> {
    specs.into_iter().map(|spec| (spec.name, spec.datatype.name(), spec.shape)).collect()
}
