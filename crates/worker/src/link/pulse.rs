//! Whether a worker still answers: pings, pongs, and handlers that do not stop.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyserve_wire::{Frame, Kind};

use super::{Link, LinkError};

/// Pings within the time that a worker may be silent.
const PINGS: u32 = 5;

// === impl Link ===

impl Link {
    /// Pings for the life of the link. Ends when a ping stays without a pong for `timeout`: the process is stopped, or its
    /// socket's thread hangs. What its handlers do is judged by their deadlines, never here.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ping(&self, timeout: Duration) -> LinkError {
        let interval = timeout / PINGS;
        let (mut sent, mut missed) = (0, 0);
        while missed < PINGS {
            sent += 1;
            self.push(&Frame::bare(Kind::Ping, sent));
            self.flush();
            let before = self.pongs.load(Ordering::Relaxed);
            tokio::time::sleep(interval).await;
            missed = if self.pongs.load(Ordering::Relaxed) == before { missed + 1 } else { 0 };
        }
        LinkError::Unresponsive(timeout)
    }

    /// One of its handlers does not stop.
    pub(crate) fn give_up(&self) {
        self.overrun.cancel();
    }

    /// Ends when one of its handlers does not stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn overrun(&self) -> LinkError {
        self.overrun.cancelled().await;
        LinkError::Overrun
    }

    /// The worker answered a ping.
    pub(crate) fn pong(&self) {
        self.pongs.fetch_add(1, Ordering::Relaxed);
    }
}
