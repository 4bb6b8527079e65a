//! Prompts that begin alike go to the same replica, unless it has too much to do.

use super::{Candidates, Keys, LeastWait, Policy};
use crate::Candidate;

/// Takes the replica where the beginning of the prompt belongs, so that what an engine has computed for it is used
/// again. One that has its slots full and more than a share above the mean to do is passed over, in favour of the next
/// one where the prompt belongs. A request without a prompt goes where the wait is short.
///
/// Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2016, on rendezvous hashing.
#[derive(Clone, Copy, Debug)]
pub struct PrefixAffinity {
    /// What a replica may have to do, in percent of the mean; from 101.
    percent: u64,
}

// === impl PrefixAffinity ===

impl PrefixAffinity {
    /// Replicas have at most so many percent of the mean load; less than 101 counts as 101.
    pub fn new(percent: u32) -> Self {
        Self { percent: u64::from(percent.max(101)) }
    }
}

impl Default for PrefixAffinity {
    /// A quarter above the mean.
    fn default() -> Self {
        Self::new(125)
    }
}

impl Policy for PrefixAffinity {
    fn name(&self) -> &'static str {
        "prefix"
    }

    fn needs_all(&self, keys: &Keys) -> bool {
        keys.prefix.is_some()
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn choose<'a>(&self, among: &Candidates<'a>, keys: &Keys, turn: u64) -> Option<&'a Candidate> {
        let Some(prefix) = keys.prefix else { return LeastWait.choose(among, keys, turn) };
        let home = among.nearest(prefix, |_| true)?;
        if home.has_room() {
            return Some(home);
        }
        // With this request counted in the mean.
        let bound = u128::from(among.pending() + 1) * u128::from(self.percent);
        let count = u128::try_from(among.places()).unwrap_or(u128::MAX);
        among.nearest(prefix, |one| one.has_room() || u128::from(one.pending) * 100 * count < bound)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{idle, list, send};
    use super::*;
    use crate::hash::mix;
    use crate::list::List;

    fn keys(prompt: u64) -> Keys {
        Keys { session: None, prefix: Some(mix(prompt)) }
    }

    #[test]
    fn the_same_beginning_goes_to_the_same_replica_while_it_has_room() {
        let mut list = idle(10, 8);
        let first = send(&PrefixAffinity::default(), &mut list, &keys(7), 0);
        for turn in 1..8 {
            assert_eq!(send(&PrefixAffinity::default(), &mut list, &keys(7), turn), first);
        }
        assert_ne!(send(&PrefixAffinity::default(), &mut list, &keys(7), 8), first, "its slots are full");
    }

    #[test]
    fn one_prompt_that_everybody_sends_loads_nobody_beyond_the_bound() {
        let mut list = idle(10, 1);
        for turn in 0..1_000_u64 {
            send(&PrefixAffinity::default(), &mut list, &keys(7), turn);
            let most = u64::from(list.candidates().iter().map(|one| one.pending).max().unwrap());
            assert!(most <= ((turn + 1) * 125).div_ceil(1_000).max(1), "{most} after {turn}");
        }
    }

    #[test]
    fn when_a_replica_comes_a_fair_share_of_prompts_moves_to_it_and_no_other() {
        let all = idle(21, 1);
        let homes = |list: &List| -> Vec<u32> {
            let home = |prompt| PrefixAffinity::default().choose(&Candidates::new(vec![list], &[]), &keys(prompt), 0);
            (0..10_000).map(|prompt| home(prompt).unwrap().slot).collect()
        };
        let (before, after) = (homes(&list(all.candidates()[..20].iter().copied())), homes(&all));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).map(|(_, new)| *new).collect();
        assert!(moved.iter().all(|slot| *slot == 20));
        assert!((380..580).contains(&moved.len()), "{} of 10000 moved, a 21st is 476", moved.len());
    }

    #[test]
    fn a_bound_below_the_mean_counts_as_one_above() {
        assert_eq!(PrefixAffinity::new(0).percent, 101);
        assert_eq!(PrefixAffinity::new(100).percent, 101);
        assert_eq!(PrefixAffinity::new(102).percent, 102);
    }
}
