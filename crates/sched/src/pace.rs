//! How long a batch waits for more requests: as long as that has paid lately.

use std::time::{Duration, Instant};

/// The last batch of a handler.
///
/// A batch is held back only while it is smaller than the one before it, and never longer than the handler's delay. When
/// requests come one at a time the last batch had one, so nothing is ever held: an idle handler costs no latency.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    size: usize,
    busy_until: Option<Instant>,
}

// === impl Pace ===

impl Pace {
    /// A batch goes to a worker.
    pub(crate) fn sent(&mut self, size: usize, now: Instant) {
        self.size = size;
        self.busy_until = Some(now);
    }

    /// A batch is over.
    pub(crate) fn over(&mut self, now: Instant) {
        self.busy_until = Some(now);
    }

    /// When a batch must go whose oldest request came at `arrived`; `None` is now.
    pub(crate) fn hold_until(
        &self,
        waiting: usize,
        arrived: Instant,
        delay: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let until = arrived + delay;
        let busy = self.busy_until.is_some_and(|busy| now.saturating_duration_since(busy) <= delay);
        (busy && waiting < self.size && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(5);

    #[test]
    fn a_batch_is_held_back_only_while_the_one_before_was_larger_and_recent() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.hold_until(1, now, DELAY, now), None, "nothing was sent before");
        pace.sent(1, now);
        assert_eq!(pace.hold_until(1, now, DELAY, now), None, "one at a time");
        pace.sent(8, now);
        assert_eq!(pace.hold_until(3, now, DELAY, now), Some(now + DELAY));
        assert_eq!(pace.hold_until(8, now, DELAY, now), None, "as large as the last");
        assert_eq!(pace.hold_until(3, now, DELAY, now + DELAY), None, "it has waited");
        let later = now + 2 * DELAY;
        assert_eq!(pace.hold_until(3, later, DELAY, later), None, "nothing happened for a while");
    }
}
