//! Memory of clients that is not used any more: workers let go of it.

use std::sync::Arc;

use anyserve_wire::{Frame, Kind, message};
use tokio::sync::mpsc;

use crate::dispatch::Inner;

// === impl Inner ===

impl Inner {
    fn forget(&self, region: u64) {
        let release = message::Release { region, ..Default::default() };
        for link in self.dispatch.lock().links() {
            link.push(&Frame::with_meta(Kind::Release, 0, &release));
            link.flush_soon();
        }
    }
}

/// Tells the workers of each region that is not used any more, for the life of the pool.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn forget_forever(inner: Arc<Inner>) {
    let Some(regions) = inner.config.memory.regions.clone() else { return };
    // As many as are registered at most. Not told from where it happens: a request may end under the dispatcher's lock.
    let (released, mut ids) = mpsc::unbounded_channel();
    regions.on_released(move |id| _ = released.send(id));
    while let Some(id) = ids.recv().await {
        inner.forget(id);
    }
}
