//! Who gets an order in a worker with several threads: a queue per sync handler, one for the event loop.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustix::event::{EventfdFlags, eventfd};

use super::bridge::Bridge;
use super::inbox::Work;
use super::table::Row;

/// Something that the event loop has to know.
pub(super) enum Event {
    Work(Work),
    Cancel(u64),
    /// The window of this stream is open again.
    Room(u64),
    /// A result of this call has come, and somebody waits for it.
    Result(u64),
}

/// What waits for a thread of its handler. Bounded, because all requests of a worker are.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Work>>,
    pushed: Condvar,
}

/// The queues, and the one descriptor that wakes the main thread.
pub(super) struct Router {
    queues: Vec<Arc<Queue>>,
    events: Mutex<VecDeque<Event>>,
    has_loop: bool,
    bridge: PyOnceLock<Py<Bridge>>,
    wake: OwnedFd,
    awake: AtomicBool,
}

// === impl Queue ===

impl Queue {
    /// Blocks until there is something to do.
    pub(super) fn pop(&self) -> Work {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(work) = waiting.pop_front() {
                return work;
            }
            self.pushed.wait(&mut waiting);
        }
    }

    fn push(&self, work: Work) {
        self.waiting.lock().push_back(work);
        self.pushed.notify_one();
    }
}

// === impl Router ===

impl Router {
    pub(super) fn new(rows: &[Row]) -> std::io::Result<Self> {
        Ok(Self {
            queues: rows.iter().map(|_| Arc::default()).collect(),
            events: Mutex::default(),
            has_loop: !rows.iter().all(Row::is_sync),
            bridge: PyOnceLock::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            awake: AtomicBool::new(false),
        })
    }

    pub(super) fn set_bridge(&self, py: Python<'_>, bridge: Py<Bridge>) {
        // A session has one bridge, made when it starts.
        let _ = self.bridge.set(py, bridge);
    }

    /// The bridge to the event loop, if there is one.
    pub(super) fn bridge<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, Bridge>> {
        self.bridge.get(py).map(|bridge| bridge.bind(py))
    }

    /// Whether there is an event loop.
    pub(super) fn has_loop(&self) -> bool {
        self.has_loop
    }

    /// The queue of this handler.
    pub(super) fn queue(&self, row: usize) -> Arc<Queue> {
        Arc::clone(&self.queues[row])
    }

    pub(super) fn route(&self, work: Work, rows: &[Row]) {
        let row = work.row();
        if rows[row].is_sync() {
            self.queues[row].push(work);
        } else {
            self.push(Event::Work(work));
        }
    }

    /// Tells the event loop, if there is one.
    pub(super) fn push(&self, event: Event) {
        if self.has_loop {
            self.events.lock().push_back(event);
            self.wake();
        }
    }

    /// Wakes the main thread; one write, however often it is asked for before the thread looks.
    pub(super) fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            // Cannot fail: the counter is far from its end.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Everything that came since the last time. What comes from now on wakes again.
    pub(super) fn take(&self) -> VecDeque<Event> {
        let mut count = [0; 8];
        // Nothing to read is fine too: the descriptor is level-triggered and only says "look".
        let _ = rustix::io::read(&self.wake, &mut count);
        self.awake.store(false, Ordering::Release);
        std::mem::take(&mut *self.events.lock())
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
