//! The threads that requests are carried on, one runtime each.

use std::num::NonZeroUsize;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;

/// Threads without another number: one for each core, but no more than this. Each has a connection to each replica.
const MOST: usize = 8;

/// Time for what blocks when a thread ends.
const PATIENCE: Duration = Duration::from_millis(100);

/// Started threads. Dropping them ends what runs on them, and waits for that.
pub(super) struct Threads {
    stop: CancellationToken,
    handles: Vec<Handle>,
    joined: Vec<JoinHandle<()>>,
}

/// How many there are if nobody says.
pub(super) fn as_many_as_cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST)
}

// === impl Threads ===

impl Threads {
    /// Starts so many.
    ///
    /// # Errors
    /// The system has no more threads or files; none is left running then.
    pub(super) fn start(count: usize) -> Result<Self> {
        let mut threads = Self { stop: CancellationToken::new(), handles: Vec::new(), joined: Vec::new() };
        for number in 0..count {
            threads.add(number).with_context(|| format!("thread {number} of {count} cannot be started"))?;
        }
        Ok(threads)
    }

    /// Their runtimes.
    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    fn add(&mut self, number: usize) -> std::io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), self.stop.clone());
        let thread = Builder::new().name(format!("anyserve-{number}"));
        let run = move || {
            runtime.block_on(stop.cancelled_owned());
            // What blocks, the resolution of a name, is not waited for.
            runtime.shutdown_timeout(PATIENCE);
        };
        self.joined.push(thread.spawn(run)?);
        self.handles.push(handle);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.joined.drain(..) {
            // A panic in it was told when it happened.
            let _ = thread.join();
        }
    }
}
