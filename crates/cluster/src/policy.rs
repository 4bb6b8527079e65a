//! Who of several replicas gets a request: one trait, and a file for each way to decide.
//!
//! | policy | takes | for |
//! | --- | --- | --- |
//! | [`LeastWait`] | the one with the shorter wait of two drawn ones | anything; the default |
//! | [`BinPacking`] | the fullest one that has room | fleets that shrink when they can |
//! | [`Sticky`] | the same one for the same session | engines that keep something for a session |
//! | [`PrefixAffinity`] | the same one for the same beginning of a prompt | engines with a cache of keys and values |
//! | [`RoundRobin`] | one after the other | measuring, and replicas that tell no load |
//!
//! A policy keeps nothing: what it decides follows from the candidates, the keys and the turn. Only candidates of the
//! same standing are put before it, and the ones that a request must not go to are left out.

mod bin_packing;
mod keys;
mod least_wait;
mod prefix;
mod round_robin;
mod sticky;

use std::fmt;

pub use bin_packing::BinPacking;
pub use keys::{BLOCK, BLOCKS, Keys, SESSION};
pub use least_wait::LeastWait;
pub use prefix::PrefixAffinity;
pub use round_robin::RoundRobin;
pub use sticky::Sticky;

use crate::Candidate;
use crate::hash::mix;

/// A way to choose.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Its name, as options spell it.
    fn name(&self) -> &'static str;

    /// The one that gets the request; `None` only if there are no candidates. `turn` is another one at every choice.
    fn choose<'a>(&self, among: &Candidates<'a>, keys: &Keys, turn: u64) -> Option<&'a Candidate>;
}

/// The replicas that may get a request, as a few lists.
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    lists: Vec<&'a [Candidate]>,
    len: usize,
    /// Slots that are left out.
    excluded: &'a [u32],
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    pub(crate) fn new(lists: Vec<&'a [Candidate]>, excluded: &'a [u32]) -> Self {
        let len = lists.iter().map(|list| list.len()).sum();
        Self { lists, len, excluded }
    }

    /// Every candidate.
    pub fn iter(&self) -> impl Iterator<Item = &'a Candidate> {
        let excluded = self.excluded;
        self.lists.iter().flat_map(|list| list.iter()).filter(move |one| !excluded.contains(&one.slot))
    }

    /// Places of candidates; some of them may be vacant.
    pub fn places(&self) -> usize {
        self.len
    }

    /// The candidate at a place or, if it is vacant, the next one.
    pub fn at_or_after(&self, place: usize) -> Option<&'a Candidate> {
        let next = |place: usize| (place..self.len).chain(0..place.min(self.len));
        next(place).filter_map(|place| self.at(place)).find(|one| !self.excluded.contains(&one.slot))
    }

    /// The one that has the most of something, the first among equals.
    pub fn most<K: PartialOrd>(&self, of: impl Fn(&Candidate) -> K) -> Option<&'a Candidate> {
        let mut most: Option<(K, &Candidate)> = None;
        for one in self.iter() {
            let value = of(one);
            if most.as_ref().is_none_or(|(other, _)| value > *other) {
                most = Some((value, one));
            }
        }
        most.map(|(_, one)| one)
    }

    fn at(&self, mut place: usize) -> Option<&'a Candidate> {
        for list in &self.lists {
            match list.get(place) {
                Some(one) => return Some(one),
                None => place -= list.len(),
            }
        }
        None
    }
}

/// How much a key and a candidate belong together: a number that looks random. The candidate with the highest is where
/// the key belongs; when it goes its keys are spread over the others, and no other key moves.
///
/// Source: rendezvous hashing, Thaler and Ravishankar, 1998.
pub(crate) fn affinity(key: u64, candidate: &Candidate) -> u64 {
    mix(key ^ candidate.hash)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::time::Duration;

    /// Idle candidates with so many slots.
    pub(crate) fn idle(count: u32, slots: u32) -> Vec<Candidate> {
        let one = |slot: u32| Candidate {
            hash: mix(u64::from(slot)),
            pending: 0,
            slots,
            wait: Duration::ZERO,
            step: Duration::from_millis(100) / slots,
            slot,
            offer: 0,
        };
        (0..count).map(one).collect()
    }

    /// Sends a request to whom the policy chooses; returns his slot.
    pub(crate) fn send(policy: &dyn Policy, list: &mut [Candidate], keys: &Keys, turn: u64) -> u32 {
        let chosen = policy.choose(&Candidates::new(vec![&*list], &[]), keys, turn).unwrap().slot;
        list.iter_mut().find(|one| one.slot == chosen).unwrap().sent();
        chosen
    }

    #[test]
    fn no_policy_chooses_an_excluded_one_or_one_of_none() {
        let list = idle(5, 2);
        let policies: [&dyn Policy; 5] = [&LeastWait, &BinPacking, &Sticky, &PrefixAffinity::default(), &RoundRobin];
        for (policy, turn) in policies.into_iter().flat_map(|policy| (0..200).map(move |turn| (policy, turn))) {
            let keys = Keys { session: Some(mix(turn)), prefix: Some(mix(turn)) };
            let two = Candidates::new(vec![&list[..2], &list[2..]], &[0, 2, 3]);
            assert!([1, 4].contains(&policy.choose(&two, &keys, turn).unwrap().slot), "{}", policy.name());
            let none = Candidates::new(vec![&list[..2]], &[0, 1]);
            assert_eq!(policy.choose(&none, &keys, turn), None, "{}", policy.name());
            assert_eq!(policy.choose(&Candidates::new(vec![], &[]), &keys, turn), None, "{}", policy.name());
        }
    }

    #[test]
    fn every_place_is_found_and_a_vacant_one_is_the_next() {
        let list = idle(5, 1);
        let all = Candidates::new(vec![&list[..2], &[], &list[2..]], &[3]);
        let found: Vec<_> = (0..7).map(|place| all.at_or_after(place).unwrap().slot).collect();
        assert_eq!(found, [0, 1, 2, 4, 4, 0, 0]);
    }
}
