//! The shortest expected wait, as far as two draws tell.

use std::cmp::Reverse;

use super::{Candidates, Keys, Policy};
use crate::Candidate;
use crate::hash::{mix, place};

/// Draws two and takes the one that a request waits for the shorter time.
///
/// The best of all would be the best for everybody who decides within the same heartbeat, and be run over. Two draws
/// have almost the balance of the best, without the herd, and cost the same for any number of replicas.
///
/// Source: Mitzenmacher, "The power of two choices in randomized load balancing", 1996.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastWait;

// === impl LeastWait ===

impl Policy for LeastWait {
    fn name(&self) -> &'static str {
        "least-wait"
    }

    fn needs_all(&self, _: &Keys) -> bool {
        false
    }

    fn choose<'a>(&self, among: &Candidates<'a>, _: &Keys, turn: u64) -> Option<&'a Candidate> {
        let places = among.places();
        if places == 0 {
            return None;
        }
        let first = place(turn, places);
        // Another place than the first, each as likely.
        let second = if places == 1 { first } else { (first + 1 + place(mix(turn), places - 1)) % places };
        let (first, second) = (among.at_or_after(first)?, among.at_or_after(second)?);
        let cost = |one: &Candidate| (one.wait, Reverse(one.slots.saturating_sub(one.pending)), one.pending);
        Some(if cost(second) < cost(first) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{idle, send};
    use super::*;

    #[test]
    fn the_load_of_the_fullest_is_near_the_mean() {
        let mut list = idle(100, 4);
        (0..10_000).for_each(|turn| _ = send(&LeastWait, &mut list, &Keys::default(), turn));
        let (least, most) = {
            let pending = || list.candidates().iter().map(|one| one.pending);
            (pending().min(), pending().max())
        };
        assert!(least >= Some(94) && most <= Some(104), "{least:?} to {most:?} of 100");
    }

    #[test]
    fn a_replica_that_is_twice_as_fast_gets_twice_as_many() {
        let mut list = idle(20, 1);
        (0..10).for_each(|at| list.change(at, |one| one.step /= 2));
        (0..3_000).for_each(|turn| _ = send(&LeastWait, &mut list, &Keys::default(), turn));
        let fast: u32 = list.candidates()[..10].iter().map(|one| one.pending).sum();
        assert!((1_950..2_050).contains(&fast), "{fast} of 3000");
    }

    #[test]
    fn of_two_the_one_with_the_shorter_wait_is_always_chosen() {
        let mut list = idle(2, 1);
        list.change(0, Candidate::sent);
        for turn in 0..100 {
            assert_eq!(LeastWait.choose(&Candidates::new(vec![&list], &[]), &Keys::default(), turn).unwrap().slot, 1);
        }
    }
}
