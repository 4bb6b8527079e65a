//! One look at the replica's inside a second, however many watch.

use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Code, Error};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Who may watch at the same time.
pub(crate) const MAX_WATCHERS: usize = 256;

/// Time between two looks.
const BEAT: Duration = Duration::from_secs(1);

/// The newest look, shared by all who watch, and the places for them. There is no task: whoever watches and comes first
/// in a second looks.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// The second of the newest look, and what was seen. The lock is held while somebody looks, so that nobody else does.
    newest: Mutex<Option<(u64, Bytes)>>,
    places: Arc<Semaphore>,
}

// === impl Pulse ===

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    /// Nobody has looked, and nobody watches.
    pub fn new() -> Self {
        let places = Arc::new(Semaphore::new(MAX_WATCHERS));
        Self { started: Instant::now(), newest: Mutex::default(), places }
    }

    /// A place to watch from; it is free again when it is dropped.
    ///
    /// # Errors
    /// `OVERLOADED` if all are taken.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("{MAX_WATCHERS} watch the status already: close a page, or ask for /metrics");
            Error::new(Code::Overloaded, message).with_retry_after(BEAT)
        })
    }

    /// What was seen in this second; `look` is called if nobody has looked yet.
    pub fn newest(&self, now: Instant, look: impl FnOnce() -> Bytes) -> Bytes {
        let beat = self.beat(now);
        let mut newest = self.newest.lock();
        match &*newest {
            // Somebody whose clock was read earlier gets what is newer.
            Some((seen, bytes)) if *seen >= beat => bytes.clone(),
            _ => newest.insert((beat, look())).1.clone(),
        }
    }

    /// When the next second begins.
    pub fn next(&self, now: Instant) -> Instant {
        self.started + BEAT * u32::try_from(self.beat(now) + 1).unwrap_or(u32::MAX)
    }

    fn beat(&self, now: Instant) -> u64 {
        now.duration_since(self.started).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_look_a_second_however_many_ask() {
        let pulse = Pulse::new();
        let (start, mut looks) = (pulse.started, 0_u8);
        let mut ask = |after_ms| {
            let now = start + Duration::from_millis(after_ms);
            pulse.newest(now, || {
                looks += 1;
                Bytes::from(vec![looks])
            })[0]
        };
        assert_eq!([0, 1, 999, 1000, 1001, 1999, 5000, 4000].map(&mut ask), [1, 1, 1, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn the_next_second_is_after_this_one() {
        let pulse = Pulse::new();
        let next = |after_ms| pulse.next(pulse.started + Duration::from_millis(after_ms)) - pulse.started;
        assert_eq!([0, 999, 1000, 2500].map(next), [1, 1, 2, 3].map(Duration::from_secs));
    }

    #[test]
    fn a_place_is_free_again_when_its_watcher_leaves() {
        let pulse = Pulse::new();
        let mut watchers: Vec<_> = (0..MAX_WATCHERS).map(|_| pulse.enter().unwrap()).collect();
        let error = pulse.enter().unwrap_err();
        assert_eq!((error.code, error.message.starts_with("256 watch")), (Code::Overloaded, true));
        watchers.pop();
        assert!(pulse.enter().is_ok());
    }
}
