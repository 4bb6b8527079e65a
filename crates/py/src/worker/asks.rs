//! What this worker asks of the runtime, and waits for: room in the arena, objects.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyserve_wire::message::View;
use parking_lot::{Condvar, Mutex};

/// Questions that have no answer yet, by their frames' numbers.
#[derive(Default)]
pub(super) struct Asks {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Option<View>>>,
    answered: Condvar,
    /// Answers that came for whoever had given up.
    unclaimed: Mutex<Vec<View>>,
}

/// One question; dropping it gives it up.
pub(super) struct Ask {
    asks: Arc<Asks>,
    pub(super) id: u64,
}

// === impl Asks ===

impl Asks {
    /// A question that is about to be sent.
    pub(super) fn begin(self: &Arc<Self>) -> Ask {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.lock().insert(id, None);
        Ask { asks: Arc::clone(self), id }
    }

    /// Answers that came and were not taken.
    pub(super) fn take_unclaimed(&self) -> Vec<View> {
        std::mem::take(&mut *self.unclaimed.lock())
    }

    /// An answer came. Gives it back if nobody waits for it any more.
    pub(super) fn answer(&self, id: u64, view: View) -> Option<View> {
        match self.waiting.lock().get_mut(&id) {
            Some(place) => *place = Some(view),
            None => return Some(view),
        }
        self.answered.notify_all();
        None
    }
}

// === impl Ask ===

impl Ask {
    /// The answer, if it has come.
    pub(super) fn take(&self) -> Option<View> {
        self.asks.waiting.lock().get_mut(&self.id).and_then(Option::take)
    }

    /// Whether the answer has come.
    pub(super) fn is_answered(&self) -> bool {
        self.asks.waiting.lock().get(&self.id).is_some_and(Option::is_some)
    }

    /// Waits until an answer comes, to whatever question, or that time is over.
    pub(super) fn wait(&self, most: Duration) {
        let mut waiting = self.asks.waiting.lock();
        if waiting.get(&self.id).is_some_and(Option::is_none) {
            self.asks.answered.wait_for(&mut waiting, most);
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        let unclaimed = self.asks.waiting.lock().remove(&self.id).flatten();
        if let Some(view) = unclaimed {
            self.asks.unclaimed.lock().push(view);
        }
    }
}
