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
use crate::list::List;

/// A way to choose.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Its name, as options spell it.
    fn name(&self) -> &'static str;

    /// Whether what it decides depends on who all the candidates are. Otherwise a part of them is put before it where
    /// very many different capabilities match.
    fn needs_all(&self, keys: &Keys) -> bool;

    /// Whether it looks at how a prompt begins. Otherwise nobody needs to read that.
    fn reads_prompts(&self) -> bool {
        false
    }

    /// The one that gets the request; `None` only if there are no candidates. `turn` is another one at every choice.
    fn choose<'a>(&self, among: &Candidates<'a>, keys: &Keys, turn: u64) -> Option<&'a Candidate>;
}

/// The replicas that may get a request, as a few lists.
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    lists: Vec<&'a List>,
    len: usize,
    /// Slots that are left out.
    excluded: &'a [u32],
}

// === impl Candidates ===

impl<'a> Candidates<'a> {
    pub(crate) fn new(lists: Vec<&'a List>, excluded: &'a [u32]) -> Self {
        let len = lists.iter().map(|list| list.candidates().len()).sum();
        Self { lists, len, excluded }
    }

    /// Every candidate.
    pub fn iter(&self) -> impl Iterator<Item = &'a Candidate> {
        let excluded = self.excluded;
        self.lists.iter().flat_map(|list| list.candidates()).filter(move |one| !excluded.contains(&one.slot))
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

    /// The candidate where a key belongs, among those that `fits` says yes to. When it goes its keys are spread over
    /// the others, and no other key moves.
    ///
    /// Source: rendezvous hashing, Thaler and Ravishankar, 1998.
    pub fn nearest(&self, key: u64, fits: impl Fn(&Candidate) -> bool) -> Option<&'a Candidate> {
        let factor = mix(key) | 1;
        // At 0 it would be taken for one that does not fit.
        self.highest(List::hashes, |hash| affinity(key ^ hash, factor).max(1), fits)
    }

    /// The fullest candidate that has room, the same everywhere among equals.
    pub fn fullest(&self) -> Option<&'a Candidate> {
        self.highest(List::fullness, |fullness| fullness, |_| true)
    }

    /// What all candidates have pending together, those that are left out too.
    pub fn pending(&self) -> u64 {
        self.lists.iter().map(|list| list.pending()).sum()
    }

    /// The one with the highest score, the first among equals; a score of 0 is none. Only who has a higher score than
    /// those before is looked at any further, which is seldom.
    fn highest(
        &self,
        column: impl Fn(&'a List) -> &'a [u64],
        score: impl Fn(u64) -> u64,
        fits: impl Fn(&Candidate) -> bool,
    ) -> Option<&'a Candidate> {
        let (mut highest, mut found) = (0, None);
        for list in &self.lists {
            for (at, value) in column(list).iter().enumerate() {
                let score = score(*value);
                if score > highest {
                    let one = &list.candidates()[at];
                    if !self.excluded.contains(&one.slot) && fits(one) {
                        (highest, found) = (score, Some(one));
                    }
                }
            }
        }
        found
    }

    fn at(&self, mut place: usize) -> Option<&'a Candidate> {
        for list in &self.lists {
            match list.candidates().get(place) {
                Some(one) => return Some(one),
                None => place -= list.candidates().len(),
            }
        }
        None
    }
}

/// How much a key and a candidate belong together: a number that looks random.
fn affinity(both: u64, factor: u64) -> u64 {
    let mixed = both.wrapping_mul(factor);
    (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::time::Duration;

    /// Idle candidates with so many slots.
    pub(crate) fn idle(count: u32, slots: u32) -> List {
        let one = |slot: u32| Candidate {
            hash: mix(u64::from(slot)),
            pending: 0,
            slots,
            wait: Duration::ZERO,
            step: Duration::from_millis(100) / slots,
            slot,
            offer: 0,
        };
        list((0..count).map(one))
    }

    pub(crate) fn list(candidates: impl IntoIterator<Item = Candidate>) -> List {
        let mut list = List::default();
        candidates.into_iter().for_each(|one| _ = list.push(one));
        list
    }

    /// Sends a request to whom the policy chooses; returns his slot.
    pub(crate) fn send(policy: &dyn Policy, list: &mut List, keys: &Keys, turn: u64) -> u32 {
        let chosen = policy.choose(&Candidates::new(vec![&*list], &[]), keys, turn).unwrap().slot;
        let at = list.candidates().iter().position(|one| one.slot == chosen).unwrap();
        list.change(at, Candidate::sent);
        chosen
    }

    #[test]
    fn no_policy_chooses_an_excluded_one_or_one_of_none() {
        let all = idle(5, 2);
        let [first, rest] = [&all.candidates()[..2], &all.candidates()[2..]].map(|some| list(some.iter().copied()));
        let policies: [&dyn Policy; 5] = [&LeastWait, &BinPacking, &Sticky, &PrefixAffinity::default(), &RoundRobin];
        for (policy, turn) in policies.into_iter().flat_map(|policy| (0..200).map(move |turn| (policy, turn))) {
            let keys = Keys { session: Some(mix(turn)), prefix: Some(mix(turn)) };
            let two = Candidates::new(vec![&first, &rest], &[0, 2, 3]);
            assert!([1, 4].contains(&policy.choose(&two, &keys, turn).unwrap().slot), "{}", policy.name());
            let none = Candidates::new(vec![&first], &[0, 1]);
            assert_eq!(policy.choose(&none, &keys, turn), None, "{}", policy.name());
            assert_eq!(policy.choose(&Candidates::new(vec![], &[]), &keys, turn), None, "{}", policy.name());
        }
    }

    #[test]
    fn every_place_is_found_and_a_vacant_one_is_the_next() {
        let all = idle(5, 1);
        let [first, rest] = [&all.candidates()[..2], &all.candidates()[2..]].map(|some| list(some.iter().copied()));
        let none = List::default();
        let all = Candidates::new(vec![&first, &none, &rest], &[3]);
        let found: Vec<_> = (0..7).map(|place| all.at_or_after(place).unwrap().slot).collect();
        assert_eq!(found, [0, 1, 2, 4, 4, 0, 0]);
    }
}
