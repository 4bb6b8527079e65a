//! Which of several API servers is asked. Pure.

use std::time::{Duration, Instant};

/// Time for which an API server that did not answer is left alone, at first and at most.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// API servers by their places in the order in which they were given.
///
/// The one that answered last is asked first. One that does not answer is left alone for a while, every time in a row
/// twice as long, and asked all the same where there is nobody else.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    all: Vec<Standing>,
    /// The one that answered last.
    good: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Failures in a row.
    strikes: u32,
    /// When it may be asked again.
    until: Option<Instant>,
}

// === impl Servers ===

impl Servers {
    /// So many API servers of which nothing is known yet.
    pub(super) fn new(count: usize) -> Self {
        Self { all: vec![Standing::default(); count], good: 0 }
    }

    /// Those that may be asked now, in this order.
    pub(super) fn able(&self, now: Instant) -> Vec<usize> {
        self.rotated().filter(|place| self.is_able(*place, now)).collect()
    }

    /// All of them, those that may not be asked now last: for who has no other way.
    pub(super) fn all(&self, now: Instant) -> Vec<usize> {
        let mut able = self.able(now);
        able.extend(self.rotated().filter(|place| !self.is_able(*place, now)));
        able
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&mut self, place: usize) {
        (self.all[place], self.good) = (Standing::default(), place);
    }

    /// It could not be reached, or did not answer in time.
    pub(super) fn failed(&mut self, place: usize, now: Instant) {
        let standing = &mut self.all[place];
        // Of several that fail at once, one counts.
        if standing.until.is_none_or(|until| until <= now) {
            let time = FIRST.saturating_mul(1 << standing.strikes.min(8)).min(LONGEST);
            *standing = Standing { strikes: standing.strikes.saturating_add(1), until: Some(now + time) };
        }
    }

    fn is_able(&self, place: usize, now: Instant) -> bool {
        self.all[place].until.is_none_or(|until| until <= now)
    }

    fn rotated(&self) -> impl Iterator<Item = usize> {
        (self.good..self.all.len()).chain(0..self.good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_answered_last_is_asked_first() {
        let (mut servers, now) = (Servers::new(3), Instant::now());
        assert_eq!(servers.able(now), [0, 1, 2]);
        servers.answered(1);
        assert_eq!(servers.able(now), [1, 2, 0]);
    }

    #[test]
    fn one_that_fails_is_left_alone_longer_every_time_and_never_for_ever() {
        let (mut servers, mut now) = (Servers::new(2), Instant::now());
        for expected in [100, 200, 400, 800, 1_000, 1_000] {
            servers.failed(0, now);
            let until = now + Duration::from_millis(expected);
            let before = until.checked_sub(Duration::from_nanos(1)).unwrap();
            assert_eq!((servers.able(before), servers.all(before)), (vec![1], vec![1, 0]), "{expected}");
            servers.failed(0, before);
            assert_eq!(servers.able(until), [0, 1], "a failure meanwhile makes it no longer");
            now = until;
        }
        servers.answered(0);
        servers.failed(0, now);
        assert_eq!(servers.able(now + Duration::from_millis(100)), [0, 1], "an answer makes up for all failures");
    }

    #[test]
    fn where_all_have_failed_nobody_may_be_asked_without_need() {
        let (mut servers, now) = (Servers::new(2), Instant::now());
        (0..2).for_each(|place| servers.failed(place, now));
        assert_eq!((servers.able(now), servers.all(now)), (vec![], vec![0, 1]));
    }
}
