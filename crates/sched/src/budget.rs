//! How many requests may be sent again: a share of the recent traffic.

use std::time::{Duration, Instant};

/// Seconds that count as recent.
const WINDOW: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Retries so far against requests so far, over the last ten seconds.
///
/// Without a bound, retries multiply the load just when workers are dying.
/// Source: the retry budgets of Finagle and linkerd: a share of requests, with a floor for quiet times.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    seconds: [Second; WINDOW],
    at: usize,
    began: Option<Instant>,
    spent: u64,
    refused: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    requests: u64,
    retries: u64,
}

// === impl RetryBudget ===

impl Default for RetryBudget {
    fn default() -> Self {
        Self { seconds: [Second::default(); WINDOW], at: 0, began: None, spent: 0, refused: 0 }
    }
}

impl RetryBudget {
    /// Retries within ten seconds that are always allowed.
    pub const FLOOR: u64 = 10;

    /// A request was accepted.
    pub fn request(&mut self, now: Instant) {
        self.turn(now);
        self.seconds[self.at].requests += 1;
    }

    /// Takes one retry out of the budget; false if there is none left.
    pub fn spend(&mut self, now: Instant) -> bool {
        self.turn(now);
        let (requests, retries) = self.recent();
        let allowed = retries < (requests / 10).max(Self::FLOOR);
        if allowed {
            self.seconds[self.at].retries += 1;
            self.spent += 1;
        } else {
            self.refused += 1;
        }
        allowed
    }

    /// Retries since the beginning, and those that were refused.
    pub fn totals(&self) -> (u64, u64) {
        (self.spent, self.refused)
    }

    /// Requests and retries of the last ten seconds.
    fn recent(&self) -> (u64, u64) {
        let sum = |(requests, retries), second: &Second| (requests + second.requests, retries + second.retries);
        self.seconds.iter().fold((0, 0), sum)
    }

    /// Forgets the seconds that are no longer recent.
    fn turn(&mut self, now: Instant) {
        let mut began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) > SECOND * 2 * u32::try_from(WINDOW).unwrap_or(1) {
            (self.seconds, began) = ([Second::default(); WINDOW], now);
        }
        while now.saturating_duration_since(began) >= SECOND {
            began += SECOND;
            self.at = (self.at + 1) % WINDOW;
            self.seconds[self.at] = Second::default();
        }
        self.began = Some(began);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.spend(now)).count()
    }

    #[test]
    fn in_quiet_times_ten_retries_are_free_and_then_there_are_none() {
        let (mut budget, now) = (RetryBudget::default(), Instant::now());
        assert_eq!(spent(&mut budget, now), 10);
        assert_eq!(budget.totals(), (10, 1));
    }

    #[test]
    fn under_load_a_tenth_of_the_recent_requests_may_be_sent_again() {
        let (mut budget, now) = (RetryBudget::default(), Instant::now());
        (0..1000).for_each(|n| budget.request(now + Duration::from_millis(n)));
        assert_eq!(spent(&mut budget, now + SECOND), 100);
        assert_eq!(spent(&mut budget, now + 12 * SECOND), 10, "what was long ago does not count");
        assert_eq!(spent(&mut budget, now + 500 * SECOND), 10, "however long nothing came");
    }
}
