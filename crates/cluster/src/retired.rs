//! Epochs of replicas that are gone, so that none comes back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Answer;

/// What is remembered of replicas that are gone: a bounded number, for a bounded time.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    last: HashMap<Arc<str>, Last>,
    /// In the order in which they went. An entry whose instant is not the one in `last` is void.
    order: VecDeque<(Instant, Arc<str>)>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    epoch: u64,
    seq: u64,
    /// It said that it leaves, so that not even this epoch comes back.
    left: bool,
    since: Instant,
}

// === impl Retired ===

impl Retired {
    /// A replica is gone.
    pub(crate) fn add(&mut self, id: &Arc<str>, (epoch, seq): (u64, u64), left: bool, now: Instant, max: usize) {
        while self.order.len() >= max.max(1) {
            self.forget_first();
        }
        self.last.insert(Arc::clone(id), Last { epoch, seq, left, since: now });
        self.order.push_back((now, Arc::clone(id)));
    }

    /// Why a message of this epoch is not read, if there is a reason.
    pub(crate) fn refuses(&self, id: &str, epoch: u64, seq: u64) -> Option<Answer> {
        let last = self.last.get(id)?;
        if epoch < last.epoch || (epoch == last.epoch && last.left) {
            return Some(Answer::StaleEpoch { latest: last.epoch });
        }
        (epoch == last.epoch && seq <= last.seq).then_some(Answer::Outdated { latest: last.seq })
    }

    /// What this epoch of a replica said before is no reason any more, unless it left.
    pub(crate) fn forgive(&mut self, id: &str, epoch: u64) {
        if self.last.get(id).is_some_and(|last| last.epoch == epoch && !last.left) {
            self.last.remove(id);
        }
    }

    /// The replica is back.
    pub(crate) fn remove(&mut self, id: &str) {
        self.last.remove(id);
    }

    /// Forgets what is older than `age`.
    pub(crate) fn forget(&mut self, age: Duration, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| *since + age <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((since, id)) = self.order.pop_front() else { return };
        if self.last.get(&id).is_some_and(|last| last.since == since) {
            self.last.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_left_is_stale_and_one_that_expired_may_speak_again() {
        let (mut retired, now, id) = (Retired::default(), Instant::now(), Arc::<str>::from("a"));
        retired.add(&id, (7, 3), false, now, 10);
        assert_eq!(retired.refuses("a", 6, 99), Some(Answer::StaleEpoch { latest: 7 }));
        assert_eq!(retired.refuses("a", 7, 3), Some(Answer::Outdated { latest: 3 }));
        assert_eq!(retired.refuses("a", 7, 4), None);
        retired.add(&id, (7, 4), true, now, 10);
        assert_eq!(retired.refuses("a", 7, 5), Some(Answer::StaleEpoch { latest: 7 }));
        assert_eq!(retired.refuses("a", 8, 0), None);
    }

    #[test]
    fn the_oldest_are_forgotten_first_and_all_after_a_time() {
        let (mut retired, start) = (Retired::default(), Instant::now());
        let ids: Vec<Arc<str>> = (0..4).map(|number| number.to_string().into()).collect();
        let at = |second| start + Duration::from_secs(second);
        ids.iter().zip(0..).for_each(|(id, second)| retired.add(id, (1, 1), true, at(second), 3));
        let known = |retired: &Retired| ids.iter().filter(|id| retired.refuses(id, 1, 2).is_some()).count();
        assert_eq!((known(&retired), retired.refuses("0", 1, 2)), (3, None));
        retired.forget(Duration::from_secs(5), at(7));
        assert_eq!((known(&retired), retired.order.len()), (1, 1));
    }
}
