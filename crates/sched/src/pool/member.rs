//! A group as the planner knows it: its places, its load at the last look, and what was measured.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ledger::Amounts;
use super::place::{Measured, Place, Stage};
use super::{PlaceId, PoolGroup};
use crate::{GroupLoad, ServiceTime};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: PoolGroup,
    /// What one of its workers needs.
    pub(super) amounts: Amounts,
    pub(super) loaded: bool,
    pub(super) retired: bool,
    /// Workers that somebody waits for, whatever the fewest are.
    pub(super) wanted: u32,
    pub(super) places: BTreeMap<PlaceId, Place>,
    /// Its load when it was last looked at.
    pub(super) load: GroupLoad,
    pub(super) start: ServiceTime,
    pub(super) wake: ServiceTime,
    pub(super) hunger: Option<Hunger>,
    pub(super) trouble: Option<Trouble>,
    /// When it was last seen with a ready worker.
    served: Option<Instant>,
}

/// A group has no ready worker for what waits, or fewer workers than its fewest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hunger {
    pub(super) since: Instant,
    last: Instant,
}

/// A group whose worker did not become ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    failures: u32,
    /// Nothing is started before.
    pub(super) until: Instant,
}

/// Places of a group by what they are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) coming: u32,
    pub(super) ready: u32,
    pub(super) failing: u32,
    /// Asleep, or about to be.
    pub(super) asleep: u32,
}

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

// === impl Census ===

impl Census {
    /// Places that are workers, or will be without another order.
    pub(super) fn up(&self) -> u32 {
        self.coming + self.ready + self.failing
    }
}

// === impl Member ===

impl Member {
    pub(super) fn new(group: PoolGroup, amounts: Amounts) -> Self {
        Self {
            group,
            amounts,
            loaded: true,
            retired: false,
            wanted: 0,
            places: BTreeMap::new(),
            load: GroupLoad::default(),
            start: ServiceTime::default(),
            wake: ServiceTime::default(),
            hunger: None,
            trouble: None,
            served: None,
        }
    }

    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for place in self.places.values() {
            match place.stage {
                Stage::Starting | Stage::Waking => census.coming += 1,
                Stage::Ready => census.ready += 1,
                Stage::Failing => census.failing += 1,
                Stage::Asleep | Stage::FallingAsleep => census.asleep += 1,
                Stage::Stopping => {}
            }
        }
        census
    }

    /// Workers that it always has.
    pub(super) fn fewest(&self) -> u32 {
        if self.loaded && !self.retired { self.group.min } else { 0 }
    }

    /// Workers that it is to have now: its fewest, or as many as somebody waits for.
    pub(super) fn due(&self) -> u32 {
        if self.loaded && !self.retired { self.group.min.max(self.wanted) } else { 0 }
    }

    /// Something waits or runs in it.
    pub(super) fn is_busy(&self) -> bool {
        self.load.queued + self.load.in_flight > 0
    }

    pub(super) fn measure(&mut self, measured: Measured) {
        match measured {
            Measured::Start(took) => self.start.observe(took),
            Measured::Wake(took) => self.wake.observe(took),
        }
    }

    /// Time until one more worker is ready: of a waking if a place sleeps, else of a start.
    pub(super) fn cost(&self) -> Option<Duration> {
        let sleeps = self.places.values().any(|place| place.stage == Stage::Asleep);
        let wake = if sleeps { self.wake.average() } else { None };
        wake.or_else(|| self.start.average())
    }

    /// A worker did not become ready, and its place is over.
    pub(super) fn fail(&mut self, now: Instant) {
        let failures = self.trouble.map_or(0, |trouble| trouble.failures);
        let wait = FIRST_BACKOFF.saturating_mul(1 << failures.min(16)).min(LONGEST_BACKOFF);
        self.trouble = Some(Trouble { failures: failures.saturating_add(1), until: now + wait });
    }

    /// Forgets failures once a worker has been ready for so long.
    pub(super) fn forgive(&mut self, after: Duration, now: Instant) {
        let lasted = |place: &Place| place.stage == Stage::Ready && now.saturating_duration_since(place.since) >= after;
        if self.trouble.is_some() && self.places.values().any(lasted) {
            self.trouble = None;
        }
    }

    /// Takes in a new load. The wait for a worker goes on over gaps shorter than `lull`, so that callers who give up and
    /// ask again do not begin anew.
    pub(super) fn look(&mut self, load: GroupLoad, lull: Duration, now: Instant) {
        self.load = load;
        let (census, fewest) = (self.census(), self.fewest());
        let short = census.up() < fewest;
        if self.loaded && (short || load.queued > 0 && census.ready == 0) {
            let came = load.oldest.filter(|_| !short).unwrap_or(now);
            let since = self.hunger.map_or(came.max(self.served.unwrap_or(came)), |hunger| hunger.since);
            self.hunger = Some(Hunger { since, last: now });
        } else if census.ready > 0 || self.hunger.is_some_and(|hunger| hunger.last + lull <= now) {
            self.hunger = None;
        }
        if census.ready > 0 {
            self.served = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_failed_starts_doubles_up_to_its_bound() {
        let now = Instant::now();
        let mut member = Member::new(PoolGroup::default(), Amounts::default());
        let waits = (0..7).map(|_| {
            member.fail(now);
            member.trouble.unwrap().until.duration_since(now).as_secs()
        });
        assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn hunger_goes_on_when_a_caller_gives_up_and_asks_again() {
        let (now, lull) = (Instant::now(), Duration::from_millis(100));
        let mut member = Member::new(PoolGroup::default(), Amounts::default());
        let waits = |oldest| GroupLoad { queued: 1, oldest: Some(oldest), ..GroupLoad::default() };
        member.look(waits(now), lull, now);
        member.look(GroupLoad::default(), lull, now + lull / 2);
        member.look(waits(now + lull), lull, now + lull);
        assert_eq!(member.hunger.unwrap().since, now);
        member.look(GroupLoad::default(), lull, now + 2 * lull);
        assert!(member.hunger.is_none());
        member.look(waits(now + 3 * lull), lull, now + 3 * lull);
        assert_eq!(member.hunger.unwrap().since, now + 3 * lull);
    }
}
