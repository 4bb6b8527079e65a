//! One after the other.

use super::{Candidates, Keys, Policy};
use crate::Candidate;

/// Takes the candidates in turn, whatever they have to do. Where more than 64 different capabilities match, it is the
/// turn of one among the holders of some of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

// === impl RoundRobin ===

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn needs_all(&self, _: &Keys) -> bool {
        false
    }

    fn choose<'a>(&self, among: &Candidates<'a>, _: &Keys, turn: u64) -> Option<&'a Candidate> {
        let places = u64::try_from(among.places()).ok().filter(|places| *places > 0)?;
        among.at_or_after(usize::try_from(turn % places).expect("it is below a length"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{idle, send};
    use super::*;

    #[test]
    fn everybody_has_a_turn_before_anybody_has_a_second_one() {
        let mut list = idle(7, 1);
        for round in 1..5_u32 {
            (0..7).for_each(|turn| _ = send(&RoundRobin, &mut list, &Keys::default(), u64::from(round) * 7 + turn));
            assert!(list.candidates().iter().all(|one| one.pending == round));
        }
    }
}
