//! Who waits for a task on the event loop: one request, or all those of a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::batch::Batch;
use super::call::Call;

/// The task that runs a request's handler.
pub(super) struct Task {
    task: Py<PyAny>,
    /// Those who share it, if it runs a batch.
    crowd: Option<Arc<Crowd>>,
}

/// The requests of one batch.
pub(super) struct Crowd {
    calls: Vec<Arc<Call>>,
    cancelled: AtomicBool,
}

// === impl Task ===

impl Task {
    pub(super) fn of_one(task: Py<PyAny>) -> Self {
        Self { task, crowd: None }
    }

    pub(super) fn of_batch(task: Py<PyAny>, crowd: &Arc<Crowd>) -> Self {
        Self { task, crowd: Some(Arc::clone(crowd)) }
    }

    /// What to cancel when a caller left. A batch goes on as long as anybody waits for an answer out of it, and is
    /// cancelled once: a second time would hit the handler while it cleans up.
    pub(super) fn to_cancel(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let alone = self.crowd.as_ref().is_none_or(|crowd| crowd.abandon());
        alone.then(|| self.task.clone_ref(py))
    }
}

// === impl Crowd ===

impl Crowd {
    pub(super) fn of(batch: &Batch) -> Self {
        Self { calls: batch.calls().cloned().collect(), cancelled: AtomicBool::new(false) }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.calls.iter().map(|call| call.id)
    }

    /// True when nobody waits any more, and only the first time.
    fn abandon(&self) -> bool {
        let waits = |call: &Arc<Call>| !call.is_answered() && !call.is_cancelled();
        !self.calls.iter().any(waits) && !self.cancelled.swap(true, Ordering::AcqRel)
    }
}
