//! The calls that this worker's handlers have open: what has come of each, and who waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyserve_core::{Error, Response};
use parking_lot::{Condvar, Mutex};

/// Calls that a worker may have open.
pub(super) const MAX_CALLS: usize = 256;

/// Calls by the numbers of their frames.
#[derive(Default)]
pub(super) struct Made {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

/// What has come of a call and was not taken. Bounded by the call's window.
#[derive(Default)]
struct Open {
    parts: VecDeque<Part>,
    /// Somebody on the event loop waits for the next part.
    awaited: bool,
    /// Cost of what was taken and is not given back.
    taken: u64,
    /// Of its own, so that a result wakes nobody else.
    arrived: Arc<Condvar>,
}

/// A response, the end without one, or why there is none.
pub(super) type Outcome = Result<Option<Response>, Error>;

/// One result of a call.
pub(super) struct Part {
    pub(super) outcome: Outcome,
    /// Nothing comes after it.
    pub(super) end: bool,
    pub(super) cost: u64,
}

/// What there is for whoever asks for the next result.
pub(super) enum Next {
    /// A result, and the cost that is to be given back now.
    Part(Outcome, Option<u64>),
    /// Nothing yet.
    Nothing,
    /// The call is over, or was closed.
    Over,
}

// === impl Made ===

impl Made {
    /// The number of a call that is about to be sent; `None` if there are too many.
    pub(super) fn begin(&self) -> Option<u64> {
        let mut open = self.open.lock();
        if open.len() >= MAX_CALLS {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        open.insert(id, Open::default());
        Some(id)
    }

    /// A result has come; true if somebody on the event loop waits for it. Of a call that was closed it is dropped.
    pub(super) fn put(&self, id: u64, part: Part) -> bool {
        let mut open = self.open.lock();
        let Some(call) = open.get_mut(&id) else { return false };
        call.parts.push_back(part);
        call.arrived.notify_all();
        std::mem::take(&mut call.awaited)
    }

    /// Takes the next result. A quarter of the window is given back at a time.
    pub(super) fn take(&self, id: u64, window: u64) -> Next {
        self.take_or(id, window, |_| {})
    }

    /// The same; where there is none, the event loop is told when it comes.
    pub(super) fn take_or_await(&self, id: u64, window: u64) -> Next {
        self.take_or(id, window, |call| call.awaited = true)
    }

    fn take_or(&self, id: u64, window: u64, otherwise: impl FnOnce(&mut Open)) -> Next {
        let mut open = self.open.lock();
        let Some(call) = open.get_mut(&id) else { return Next::Over };
        let Some(Part { outcome, end, cost }) = call.parts.pop_front() else {
            otherwise(call);
            return Next::Nothing;
        };
        if end {
            open.remove(&id);
            return Next::Part(outcome, None);
        }
        call.taken = call.taken.saturating_add(cost);
        let due = call.taken >= window / 4;
        Next::Part(outcome, due.then(|| std::mem::take(&mut call.taken)))
    }

    /// Nobody wants the call any more. True if it was open; who waits for a result finds it over.
    pub(super) fn close(&self, id: u64) -> bool {
        let closed = self.open.lock().remove(&id);
        closed.map(|call| call.arrived.notify_all()).is_some()
    }

    /// Has everybody who waits look again.
    pub(super) fn nudge(&self) {
        for call in self.open.lock().values() {
            call.arrived.notify_all();
        }
    }

    /// Whether there is something to take, the end included.
    pub(super) fn is_answered(&self, id: u64) -> bool {
        self.open.lock().get(&id).is_none_or(|call| !call.parts.is_empty())
    }

    /// Waits until a result of it comes, somebody is to look again, or that time is over.
    pub(super) fn wait(&self, id: u64, most: Duration) {
        let mut open = self.open.lock();
        let call = open.get(&id).filter(|call| call.parts.is_empty());
        if let Some(arrived) = call.map(|call| Arc::clone(&call.arrived)) {
            arrived.wait_for(&mut open, most);
        }
    }
}
