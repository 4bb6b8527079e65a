//! Requests whose answers are not written yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count of requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<AtomicU64>);

/// One of them; dropping it is its end.
#[derive(Debug)]
pub(crate) struct Counted(InFlight);

// === impl InFlight ===

impl InFlight {
    /// Counts one more.
    pub(crate) fn begin(&self) -> Counted {
        // Relaxed: a count, nothing is published by it.
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
