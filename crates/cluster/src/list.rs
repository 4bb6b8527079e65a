//! The candidates of one capability with one standing, with what policies look for laid out so that it is found fast.

use crate::Candidate;

/// Candidates, in no order.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    candidates: Vec<Candidate>,
    /// Of the same candidates.
    hashes: Vec<u64>,
    /// How full the same candidates are; the fullest that has room has the highest number, one without has 0.
    fullness: Vec<u64>,
    /// Sum of what all have pending.
    pending: u64,
}

// === impl List ===

impl List {
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub(crate) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    pub(crate) fn fullness(&self) -> &[u64] {
        &self.fullness
    }

    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    /// Puts one at the end. Its place is returned.
    pub(crate) fn push(&mut self, candidate: Candidate) -> usize {
        self.hashes.push(candidate.hash);
        self.fullness.push(fullness(&candidate));
        self.pending += u64::from(candidate.pending);
        self.candidates.push(candidate);
        self.candidates.len() - 1
    }

    /// Takes one away; the last one has its place then, and is returned if there is one.
    pub(crate) fn remove(&mut self, at: usize) -> Option<&Candidate> {
        self.hashes.swap_remove(at);
        self.fullness.swap_remove(at);
        self.pending -= u64::from(self.candidates.swap_remove(at).pending);
        self.candidates.get(at)
    }

    /// Changes what is told of one.
    pub(crate) fn change(&mut self, at: usize, change: impl FnOnce(&mut Candidate)) {
        let candidate = &mut self.candidates[at];
        self.pending -= u64::from(candidate.pending);
        change(candidate);
        self.pending += u64::from(candidate.pending);
        self.fullness[at] = fullness(candidate);
    }
}

/// The share of the slots that are taken, from 1, in the upper half; the beginning of the hash in the lower one.
fn fullness(candidate: &Candidate) -> u64 {
    if !candidate.has_room() {
        return 0;
    }
    let share = (u64::from(candidate.pending) << 31) / u64::from(candidate.slots) + 1;
    (share << 32) | (candidate.hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::idle;

    /// What is laid out is what it would be if it were laid out anew.
    fn is_consistent(list: &List) {
        let mut anew = List::default();
        list.candidates.iter().for_each(|one| _ = anew.push(*one));
        assert_eq!((&list.hashes, &list.fullness, list.pending), (&anew.hashes, &anew.fullness, anew.pending));
    }

    #[test]
    fn what_is_laid_out_follows_every_change() {
        let mut list = idle(5, 2);
        for (at, times) in [(0, 1), (1, 2), (4, 3)] {
            (0..times).for_each(|_| list.change(at, Candidate::sent));
            is_consistent(&list);
        }
        assert_eq!((list.pending(), list.fullness()[1]), (6, 0));
        assert_eq!(list.remove(1).map(|moved| moved.slot), Some(4));
        is_consistent(&list);
        assert_eq!(list.remove(3), None);
        assert_eq!(list.pending(), 4);
        list.change(1, Candidate::finished);
        is_consistent(&list);
    }

    #[test]
    fn one_with_more_of_its_slots_taken_is_fuller_and_a_full_one_has_no_room() {
        let mut list = idle(3, 4);
        list.change(0, Candidate::sent);
        (0..4).for_each(|_| list.change(1, Candidate::sent));
        let [one, full, none] = list.fullness() else { panic!("three of them") };
        assert!(one > none && *none > 0 && *full == 0);
    }
}
