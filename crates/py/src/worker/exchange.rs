//! What a task on the event loop holds of its call: whom to answer, and whose place it leaves at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::batch::Batch;
use super::bridge::Bridge;
use super::call::Call;
use super::task::Crowd;
use crate::kserve::ModelInferRequest;

/// One request on the event loop.
#[pyclass(frozen, module = "anyserve._core", name = "_Exchange")]
pub(crate) struct Exchange {
    call: Arc<Call>,
    request: Py<ModelInferRequest>,
    bridge: Py<Bridge>,
    row: usize,
    left: AtomicBool,
}

/// One batch on the event loop.
#[pyclass(module = "anyserve._core", name = "_BatchExchange")]
pub(crate) struct BatchExchange {
    batch: Batch,
    crowd: Arc<Crowd>,
    bridge: Py<Bridge>,
    left: bool,
}

// === impl Exchange ===

impl Exchange {
    pub(super) fn new(call: Arc<Call>, request: Py<ModelInferRequest>, bridge: Py<Bridge>, row: usize) -> Self {
        Self { call, request, bridge, row, left: AtomicBool::new(false) }
    }

    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        if self.left.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let bridge = self.bridge.bind(py);
        bridge.get().forget(self.call.id);
        Bridge::leave(bridge, self.row)
    }
}

#[pymethods]
impl Exchange {
    /// Answers with what the handler returned.
    fn finish(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        if let Err(error) = self.call.finish(value, self.request.bind(py)) {
            self.call.fail(py, &error);
        }
        self.leave(py)
    }

    /// Answers with what the handler raised.
    fn fail(&self, py: Python<'_>, raised: Bound<'_, PyAny>) -> PyResult<()> {
        self.call.fail(py, &PyErr::from_value(raised));
        self.leave(py)
    }

    /// Sends one response of a stream, or gives the future to wait for before the same is tried again.
    fn send<'py>(&self, response: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.bridge.get().offer(&self.call, response, self.request.bind(response.py()))
    }
}

impl Drop for Exchange {
    /// The task was cancelled before its first step; `Call` answers.
    fn drop(&mut self) {
        if !*self.left.get_mut() {
            Python::try_attach(|py| {
                if let Err(error) = self.leave(py) {
                    error.write_unraisable(py, None);
                }
            });
        }
    }
}

// === impl BatchExchange ===

impl BatchExchange {
    pub(super) fn new(batch: Batch, crowd: Arc<Crowd>, bridge: Py<Bridge>) -> Self {
        Self { batch, crowd, bridge, left: false }
    }

    fn leave(&mut self, py: Python<'_>) -> PyResult<()> {
        if std::mem::replace(&mut self.left, true) {
            return Ok(());
        }
        let bridge = self.bridge.bind(py);
        self.crowd.ids().for_each(|id| bridge.get().forget(id));
        Bridge::leave(bridge, self.batch.place())
    }
}

#[pymethods]
impl BatchExchange {
    /// What the handler is to be called with; `None` at the end, when every request has its answer.
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        match self.batch.next(py) {
            Some(arguments) => arguments.map(Some),
            None => self.leave(py).map(|()| None),
        }
    }

    /// Answers with what the handler returned.
    fn finish(&mut self, answers: &Bound<'_, PyAny>) {
        self.batch.finish(answers);
    }

    /// Halves the batch, or answers with what the handler raised if it ran for one request.
    fn fail(&mut self, py: Python<'_>, raised: Bound<'_, PyAny>) {
        self.batch.fail(py, &PyErr::from_value(raised));
    }
}

impl Drop for BatchExchange {
    /// The task was cancelled before its first step; each `Call` answers.
    fn drop(&mut self) {
        Python::try_attach(|py| {
            if let Err(error) = self.leave(py) {
                error.write_unraisable(py, None);
            }
        });
    }
}
