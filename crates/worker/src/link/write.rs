//! How what is queued leaves: at once where the worker waits for it, otherwise together with what else is ready.

use std::io;
use std::sync::atomic::Ordering;

use super::{Link, LinkError};

// === impl Link ===

impl Link {
    /// Writes now, as far as the socket takes it; the writer takes over what is left. A failure shows at the reader.
    pub(crate) fn flush(&self) {
        let written = self.outbox.lock().write_with(|slices| self.stream.try_write_vectored(slices));
        if !matches!(written, Ok(true)) {
            self.more.notify_one();
        }
    }

    /// Writes now if the worker was idle, since then it waits for just this. A busy worker gets it from the writer, together
    /// with whatever else comes within this turn of the scheduler.
    pub(crate) fn flush_if_idle(&self) {
        if self.unanswered.load(Ordering::Relaxed) <= 1 { self.flush() } else { self.flush_soon() }
    }

    /// Leaves the writing to the writer.
    pub(crate) fn flush_soon(&self) {
        self.more.notify_one();
    }

    /// Writes for the life of the link. Ends only when the socket fails.
    ///
    /// # Cancel safety
    /// Safe: what was not written stays queued.
    pub(crate) async fn write(&self) -> LinkError {
        loop {
            self.more.notified().await;
            tokio::task::yield_now().await;
            if let Err(error) = self.write_all().await {
                return error.into();
            }
        }
    }

    async fn write_all(&self) -> io::Result<()> {
        while !self.outbox.lock().write_with(|slices| self.stream.try_write_vectored(slices))? {
            self.stream.writable().await?;
        }
        Ok(())
    }
}
