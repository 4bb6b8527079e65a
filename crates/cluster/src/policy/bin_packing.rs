//! Few full replicas instead of many that have little to do.

use super::{Candidates, Keys, LeastWait, Policy};
use crate::Candidate;

/// Takes the fullest replica where the request would run at once, so that others become idle and can be freed.
///
/// Among equals the order is that of the ids' hashes, which is the same everywhere: several API servers fill the same
/// ones. Where nobody has room the wait decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct BinPacking;

// === impl BinPacking ===

impl Policy for BinPacking {
    fn name(&self) -> &'static str {
        "bin-packing"
    }

    fn needs_all(&self, _: &Keys) -> bool {
        true
    }

    fn choose<'a>(&self, among: &Candidates<'a>, keys: &Keys, turn: u64) -> Option<&'a Candidate> {
        among.fullest().or_else(|| LeastWait.choose(among, keys, turn))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{idle, send};
    use super::*;

    #[test]
    fn one_is_filled_after_the_other_and_the_rest_stay_idle() {
        let mut list = idle(10, 4);
        (0..12).for_each(|turn| _ = send(&BinPacking, &mut list, &Keys::default(), turn));
        let mut pending: Vec<_> = list.candidates().iter().map(|one| one.pending).collect();
        pending.sort_unstable();
        assert_eq!(pending, [0, 0, 0, 0, 0, 0, 0, 4, 4, 4]);
    }

    #[test]
    fn a_place_that_becomes_free_is_taken_before_an_idle_replica() {
        let mut list = idle(3, 2);
        let first = send(&BinPacking, &mut list, &Keys::default(), 0);
        assert_eq!(send(&BinPacking, &mut list, &Keys::default(), 1), first);
        let second = send(&BinPacking, &mut list, &Keys::default(), 2);
        assert_ne!(second, first);
        assert_eq!(send(&BinPacking, &mut list, &Keys::default(), 3), second);
        list.change(usize::try_from(first).unwrap(), Candidate::finished);
        assert_eq!(send(&BinPacking, &mut list, &Keys::default(), 4), first);
    }

    #[test]
    fn when_nobody_has_room_the_wait_is_shared() {
        let mut list = idle(4, 1);
        (0..40).for_each(|turn| _ = send(&BinPacking, &mut list, &Keys::default(), turn));
        assert!(list.candidates().iter().all(|one| (8..=12).contains(&one.pending)), "{list:?}");
    }
}
