//! SIGTERM and SIGINT: the first asks to leave, the second ends the process.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean "leave".
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Exit code of a process that a second signal ended.
const ENDED_BY_SIGNAL: i32 = 130;

// === impl Signals ===

impl Signals {
    /// Takes the signals over from the process.
    pub(crate) fn take() -> Result<Self> {
        let of = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// Safe: no signal is lost.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for a further signal and ends the process at once; the kernel ends its workers.
    pub(crate) async fn end_at_next(mut self) {
        self.next().await;
        crate::logging::settle();
        std::process::exit(ENDED_BY_SIGNAL);
    }
}
