//! The tokio runtime that every client of the process shares, and what a fork does to it.
//!
//! A child of `fork` has the memory of its parent's runtime and none of its threads. So everything that lives on the
//! runtime is marked with the process it was made in. In another process it is made anew, and the old one is neither
//! used nor dropped: its locks may be held by threads that are no more.

use std::sync::Arc;

use anyserve_core::{Code, Error};
use arc_swap::ArcSwapOption;
use tokio::runtime::{Builder, Handle, Runtime};

/// Something that may be used and dropped only in the process that made it.
pub(crate) struct Owned<T> {
    process: u32,
    value: Option<T>,
}

static SHARED: ArcSwapOption<Owned<Runtime>> = ArcSwapOption::const_empty();
const THREADS: usize = 2;

/// The shared runtime, started on first use.
///
/// # Errors
/// `UNAVAILABLE` if the system gives no threads.
pub(crate) fn handle() -> Result<Handle, Error> {
    loop {
        let current = SHARED.load();
        if let Some(runtime) = current.as_ref().and_then(|owned| owned.get()) {
            return Ok(runtime.handle().clone());
        }
        // Of two threads that get here at once one wins, and the other's runtime ends unused.
        SHARED.compare_and_swap(&current, Some(Arc::new(Owned::new(start()?))));
    }
}

fn start() -> Result<Runtime, Error> {
    let runtime =
        Builder::new_multi_thread().worker_threads(THREADS).thread_name("anyserve-client").enable_all().build();
    runtime.map_err(|error| Error::new(Code::Unavailable, format!("no threads for the client: {error}")))
}

// === impl Owned ===

impl<T> Owned<T> {
    /// Marks `value` as this process's.
    pub(crate) fn new(value: T) -> Self {
        Self { process: std::process::id(), value: Some(value) }
    }

    /// The value, unless this is another process than the one that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.process == std::process::id())
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}
