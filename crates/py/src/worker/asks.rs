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
    waiting: Mutex<HashMap<u64, Place>>,
    /// Answers that came for whoever had given up.
    unclaimed: Mutex<Vec<View>>,
}

/// Where the answer to one question goes.
#[derive(Default)]
struct Place {
    view: Option<View>,
    /// Of its own, so that an answer wakes nobody else.
    answered: Arc<Condvar>,
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
        self.waiting.lock().insert(id, Place::default());
        Ask { asks: Arc::clone(self), id }
    }

    /// Answers that came and were not taken.
    pub(super) fn take_unclaimed(&self) -> Vec<View> {
        std::mem::take(&mut *self.unclaimed.lock())
    }

    /// An answer came. Gives it back if nobody waits for it any more.
    pub(super) fn answer(&self, id: u64, view: View) -> Option<View> {
        let mut waiting = self.waiting.lock();
        let Some(place) = waiting.get_mut(&id) else { return Some(view) };
        place.view = Some(view);
        place.answered.notify_all();
        None
    }

    /// Has everybody who waits look again.
    pub(super) fn nudge(&self) {
        for place in self.waiting.lock().values() {
            place.answered.notify_all();
        }
    }
}

// === impl Ask ===

impl Ask {
    /// The answer, if it has come.
    pub(super) fn take(&self) -> Option<View> {
        self.asks.waiting.lock().get_mut(&self.id).and_then(|place| place.view.take())
    }

    /// Whether the answer has come.
    pub(super) fn is_answered(&self) -> bool {
        self.asks.waiting.lock().get(&self.id).is_some_and(|place| place.view.is_some())
    }

    /// Waits until its answer comes, somebody is to look again, or that time is over.
    pub(super) fn wait(&self, most: Duration) {
        let mut waiting = self.asks.waiting.lock();
        let place = waiting.get(&self.id).filter(|place| place.view.is_none());
        if let Some(answered) = place.map(|place| Arc::clone(&place.answered)) {
            answered.wait_for(&mut waiting, most);
        }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        let unclaimed = self.asks.waiting.lock().remove(&self.id).and_then(|place| place.view);
        if let Some(view) = unclaimed {
            self.asks.unclaimed.lock().push(view);
        }
    }
}
