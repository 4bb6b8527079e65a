//! Requests that kill workers: counted by fingerprint, refused after the second death.
//!
//! ```text
//!   unknown ──death──► Suspect ──death──► Refused ──ttl, release──► unknown
//!      ▲                  │
//!      └── success, ttl ──┘
//! ```
//!
//! A suspect runs alone on its worker the next time, so that the second death names the culprit and not its neighbours.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyserve_core::Fingerprint;

use crate::GroupId;

/// Deaths that make a fingerprint refused.
const DEATHS: u32 = 2;
/// Fingerprints that are remembered; the oldest one is forgotten for a new one.
const MAX_ENTRIES: usize = 1024;

/// What is known of a fingerprint that was with dying workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub fingerprint: Fingerprint,
    /// The group whose workers died.
    pub group: GroupId,
    /// The handler that ran it.
    pub handler: usize,
    /// Workers that died with it.
    pub deaths: u32,
    /// Requests that were refused for it.
    pub refused: u64,
    /// When it is forgotten.
    pub until: Instant,
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Clean,
    /// It was with a worker that died: it runs alone.
    Suspect,
    /// It is refused.
    Refused,
}

/// The fingerprints that are remembered.
#[derive(Debug)]
pub struct Quarantine {
    records: HashMap<Fingerprint, Record>,
    ttl: Duration,
}

// === impl Quarantine ===

impl Quarantine {
    /// Nothing is known yet; what becomes known is forgotten after `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { records: HashMap::new(), ttl }
    }

    /// Whether nothing is remembered; no fingerprint need be computed then.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is known of this fingerprint.
    pub fn standing(&self, fingerprint: Fingerprint, now: Instant) -> Standing {
        match self.records.get(&fingerprint) {
            Some(record) if record.until <= now => Standing::Clean,
            Some(record) if record.deaths >= DEATHS => Standing::Refused,
            Some(_) => Standing::Suspect,
            None => Standing::Clean,
        }
    }

    /// A worker died while it ran this. Returns what that makes of it.
    ///
    /// A suspect's death counts only if it ran `alone`: workers that are killed together while each runs the same harmless
    /// request say nothing about it.
    pub fn death(&mut self, fingerprint: Fingerprint, alone: bool, of: (GroupId, usize), now: Instant) -> Standing {
        self.forget(now);
        let (until, (group, handler)) = (now + self.ttl, of);
        let new = Record { fingerprint, group, handler, deaths: 0, refused: 0, until };
        let record = self.records.entry(fingerprint).or_insert(new);
        if alone || record.deaths == 0 {
            record.deaths += 1;
            record.until = until;
        }
        if record.deaths >= DEATHS { Standing::Refused } else { Standing::Suspect }
    }

    /// It ran to its end: nothing is held against it any more, unless it is refused already.
    pub fn success(&mut self, fingerprint: Fingerprint) {
        if self.records.get(&fingerprint).is_some_and(|record| record.deaths < DEATHS) {
            self.records.remove(&fingerprint);
        }
    }

    /// A request was refused for it.
    pub fn refuse(&mut self, fingerprint: Fingerprint) {
        if let Some(record) = self.records.get_mut(&fingerprint) {
            record.refused += 1;
        }
    }

    /// Everything that is refused now, the newest first.
    pub fn refused(&self, now: Instant) -> Vec<Record> {
        let refused = |record: &&Record| record.deaths >= DEATHS && record.until > now;
        let mut list: Vec<_> = self.records.values().filter(refused).cloned().collect();
        list.sort_by_key(|record| (std::cmp::Reverse(record.until), record.fingerprint));
        list
    }

    /// Forgets one fingerprint, or all. Returns how many of them were refused.
    pub fn release(&mut self, fingerprint: Option<Fingerprint>, now: Instant) -> usize {
        let refused = |record: &Record| record.deaths >= DEATHS && record.until > now;
        match fingerprint {
            Some(one) => usize::from(self.records.remove(&one).as_ref().is_some_and(refused)),
            None => self.records.drain().filter(|(_, record)| refused(record)).count(),
        }
    }

    fn forget(&mut self, now: Instant) {
        self.records.retain(|_, record| record.until > now);
        if self.records.len() >= MAX_ENTRIES {
            let oldest = self.records.values().min_by_key(|record| record.until).map(|record| record.fingerprint);
            oldest.map(|oldest| self.records.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Fingerprint = Fingerprint(7);
    const G: (GroupId, usize) = (GroupId(0), 1);
    const TTL: Duration = Duration::from_mins(1);

    #[test]
    fn the_second_death_refuses_a_fingerprint_until_its_time_is_over() {
        let (mut quarantine, now) = (Quarantine::new(TTL), Instant::now());
        assert_eq!(quarantine.death(F, true, G, now), Standing::Suspect);
        assert_eq!((quarantine.standing(F, now), quarantine.refused(now).len()), (Standing::Suspect, 0));
        assert_eq!(quarantine.death(F, true, G, now), Standing::Refused);
        quarantine.refuse(F);
        assert_eq!((quarantine.refused(now)[0].deaths, quarantine.refused(now)[0].refused), (2, 1));
        assert_eq!(quarantine.standing(F, now + TTL), Standing::Clean);
        assert!(quarantine.refused(now + TTL).is_empty());
    }

    #[test]
    fn a_success_clears_a_suspect_but_not_one_that_is_refused() {
        let (mut quarantine, now) = (Quarantine::new(TTL), Instant::now());
        quarantine.death(F, true, G, now);
        quarantine.success(F);
        assert!(quarantine.is_empty());
        quarantine.death(F, true, G, now);
        quarantine.death(F, true, G, now);
        quarantine.success(F);
        assert_eq!(quarantine.standing(F, now), Standing::Refused);
        assert_eq!((quarantine.release(Some(F), now), quarantine.release(None, now)), (1, 0));
    }

    #[test]
    fn workers_that_die_together_with_the_same_request_make_it_a_suspect_only() {
        let (mut quarantine, now) = (Quarantine::new(TTL), Instant::now());
        assert_eq!(quarantine.death(F, false, G, now), Standing::Suspect);
        assert_eq!(quarantine.death(F, false, G, now), Standing::Suspect);
        assert_eq!(quarantine.death(F, true, G, now), Standing::Refused);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut quarantine, now) = (Quarantine::new(TTL), Instant::now());
        for number in 0..5000 {
            quarantine.death(Fingerprint(number), true, G, now + Duration::from_millis(number));
        }
        assert_eq!(quarantine.records.len(), MAX_ENTRIES);
        assert!(quarantine.records.contains_key(&Fingerprint(4999)));
    }
}
