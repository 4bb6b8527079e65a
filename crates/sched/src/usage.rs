//! How many workers a group's requests filled, and when.

use std::time::Instant;

/// For each number of workers the last instant at which what ran filled just so many.
///
/// Workers take turns, so that a group with little to do uses all of them: what each of them did says nothing about
/// how many would have done.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    last: Vec<Option<Instant>>,
}

// === impl Usage ===

impl Usage {
    /// What runs at this instant fills so many workers.
    pub(crate) fn note(&mut self, filled: usize, now: Instant) {
        let Some(place) = filled.checked_sub(1) else { return };
        if self.last.len() <= place {
            self.last.resize(place + 1, None);
        }
        self.last[place] = Some(now);
    }

    /// When so many workers or more were last filled.
    pub(crate) fn since(&self, workers: usize) -> Option<Instant> {
        self.last.iter().skip(workers.saturating_sub(1)).copied().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_workers_or_more_were_filled_last_at_the_latest_of_both() {
        let (mut usage, now) = (Usage::default(), Instant::now());
        assert_eq!(usage.since(1), None);
        usage.note(3, now);
        usage.note(0, now + Duration::from_secs(1));
        usage.note(1, now + Duration::from_secs(2));
        assert_eq!(usage.since(1), Some(now + Duration::from_secs(2)));
        assert_eq!((usage.since(2), usage.since(3), usage.since(4)), (Some(now), Some(now), None));
    }
}
