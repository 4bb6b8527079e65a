//! How much memory the messages of all clients may take together, and where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyserve_core::{Code, Error};

use crate::rooms::Rooms;

/// A number of bytes that everybody takes from, and the rooms of large tensors, which are not counted: their memory has
/// bounds of its own.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    used: AtomicUsize,
    max: usize,
    rooms: Rooms,
}

/// Bytes that were taken; dropping it gives them back.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

/// When to come back: what a message holds is free once it has been read.
const RETRY_AFTER: Duration = Duration::from_millis(100);

// === impl Budget ===

impl Budget {
    /// A budget of `max` bytes beside `rooms`.
    pub(crate) fn new(max: usize, rooms: Rooms) -> Self {
        Self(Arc::new(Inner { used: AtomicUsize::new(0), max, rooms }))
    }

    /// A budget of `max` bytes without rooms: whatever is received is charged.
    pub fn of(max: usize) -> Self {
        Self::new(max, Rooms::new(None))
    }

    /// Where large tensors go.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// A charge that has taken nothing yet.
    pub fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

// === impl Charge ===

impl Charge {
    /// Takes more bytes.
    ///
    /// # Errors
    /// `OVERLOADED` if they are not there; nothing is taken then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let Inner { used, max, .. } = &*self.budget.0;
        // Relaxed: a count, nothing is published by it.
        let before = used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > *max {
            used.fetch_sub(bytes, Ordering::Relaxed);
            let message = format!("requests in transit hold {before} bytes: no room for {bytes} more of {max}");
            return Err(Error::new(Code::Overloaded, message).with_retry_after(RETRY_AFTER));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Where large tensors go.
    pub(crate) fn rooms(&self) -> &Rooms {
        self.budget.rooms()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_given_up_to_its_last_byte_and_comes_back() {
        let budget = Budget::new(10, Rooms::new(None));
        let mut first = budget.charge();
        assert!(first.grow(9).is_ok());
        assert!(budget.charge().grow(2).is_err());
        let mut second = budget.charge();
        assert!(second.grow(1).is_ok());
        let error = second.grow(1).unwrap_err();
        assert_eq!((error.code, error.retry_after), (Code::Overloaded, Some(RETRY_AFTER)));
        drop(first);
        assert!(second.grow(9).is_ok());
    }
}
