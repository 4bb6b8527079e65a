//! Flow control of streams: how many bytes each may still send.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// The smallest cost of a chunk, so that empty ones cannot be sent without end.
const LEAST_COST: usize = 4096;

/// The windows of every stream under way.
#[derive(Default)]
pub(super) struct Flows {
    open: Mutex<HashMap<u64, Flow>>,
}

struct Flow {
    window: i64,
    cancelled: bool,
    /// Somebody on the event loop waits for the window to open.
    awaited: bool,
    /// Of its own, so that credit for one stream wakes no other.
    changed: Arc<Condvar>,
}

/// Whether a chunk may be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Open,
    Full,
    /// The caller left.
    Cancelled,
}

// === impl Flows ===

impl Flows {
    pub(super) fn open(&self, id: u64, window: i64) {
        self.open.lock().insert(id, Flow { window, cancelled: false, awaited: false, changed: Arc::default() });
    }

    /// The stream is over. Whoever waits for its window finds it cancelled.
    pub(super) fn close(&self, id: u64) {
        if let Some(flow) = self.open.lock().remove(&id) {
            flow.changed.notify_all();
        }
    }

    /// Takes a chunk's bytes off the window. It may go below zero, by one chunk.
    pub(super) fn spend(&self, id: u64, bytes: usize) {
        if let Some(flow) = self.open.lock().get_mut(&id) {
            flow.window = flow.window.saturating_sub(i64::try_from(bytes.max(LEAST_COST)).unwrap_or(i64::MAX));
        }
    }

    /// Gives bytes back; true if somebody on the event loop waited for them.
    pub(super) fn credit(&self, id: u64, bytes: u64) -> bool {
        let mut open = self.open.lock();
        let Some(flow) = open.get_mut(&id) else { return false };
        flow.window = flow.window.saturating_add_unsigned(bytes);
        flow.changed.notify_all();
        flow.window > 0 && std::mem::take(&mut flow.awaited)
    }

    pub(super) fn cancel(&self, id: u64) {
        if let Some(flow) = self.open.lock().get_mut(&id) {
            flow.cancelled = true;
            flow.changed.notify_all();
        }
    }

    pub(super) fn room(&self, id: u64) -> Room {
        self.open.lock().get(&id).map_or(Room::Cancelled, Flow::room)
    }

    /// The same, and remembers that the event loop is to be told when a full window opens.
    pub(super) fn await_room(&self, id: u64) -> Room {
        let mut open = self.open.lock();
        let Some(flow) = open.get_mut(&id) else { return Room::Cancelled };
        flow.awaited = flow.room() == Room::Full;
        flow.room()
    }

    /// Blocks until the window is no longer full. Another thread must be reading the socket.
    pub(super) fn wait(&self, id: u64) -> Room {
        let mut open = self.open.lock();
        while let Some(flow) = open.get(&id) {
            match flow.room() {
                Room::Full => Arc::clone(&flow.changed).wait(&mut open),
                room => return room,
            }
        }
        Room::Cancelled
    }
}

// === impl Flow ===

impl Flow {
    fn room(&self) -> Room {
        match self.window {
            _ if self.cancelled => Room::Cancelled,
            1.. => Room::Open,
            _ => Room::Full,
        }
    }
}
