//! The end of a call that is sent more than once.

use std::time::Instant;

use crate::Call;

/// When the caller of a call stops waiting, counted from when this was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

// === impl Deadline ===

impl Deadline {
    pub(super) fn of(call: &Call) -> Self {
        // One that is beyond what the clock can tell is none.
        Self(call.timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// The call with what is left of its timeout.
    pub(super) fn on(self, call: &Call) -> Call {
        let left = self.0.map(|at| at.saturating_duration_since(Instant::now()));
        Call { timeout: left.or(call.timeout), ..call.clone() }
    }

    /// Waits for something, but not beyond the end. `None` if that came first.
    pub(super) async fn within<T>(self, something: impl Future<Output = T>) -> Option<T> {
        match self.0 {
            Some(at) => tokio::time::timeout_at(at.into(), something).await.ok(),
            None => Some(something.await),
        }
    }
}
