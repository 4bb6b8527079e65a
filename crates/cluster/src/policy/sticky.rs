//! A session stays with its replica.

use super::{Candidates, Keys, LeastWait, Policy};
use crate::Candidate;

/// Takes the same replica for the same session as long as it is among the candidates, however busy it is. A request
/// without a session goes where the wait is short.
///
/// A session moves only when its replica goes, or comes back. Nothing is written down, so every API server says the
/// same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sticky;

// === impl Sticky ===

impl Policy for Sticky {
    fn name(&self) -> &'static str {
        "sticky"
    }

    fn needs_all(&self, keys: &Keys) -> bool {
        keys.session.is_some()
    }

    fn choose<'a>(&self, among: &Candidates<'a>, keys: &Keys, turn: u64) -> Option<&'a Candidate> {
        match keys.session {
            Some(session) => among.nearest(session, |_| true),
            None => LeastWait.choose(among, keys, turn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{idle, list};
    use super::*;
    use crate::hash::mix;
    use crate::list::List;

    const SESSIONS: u64 = 10_000;

    fn homes(list: &List) -> Vec<u32> {
        let keys = |session| Keys { session: Some(mix(session)), prefix: None };
        let home = |session| Sticky.choose(&Candidates::new(vec![list], &[]), &keys(session), session).unwrap().slot;
        (0..SESSIONS).map(home).collect()
    }

    #[test]
    fn only_sessions_of_the_replica_that_goes_move_and_they_go_to_many() {
        let all = idle(20, 1);
        let before = homes(&all);
        let after = homes(&list(all.candidates()[..19].iter().copied()));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
        assert!(moved.iter().all(|(old, _)| **old == 19), "others moved too");
        assert!((400..600).contains(&moved.len()), "{} of {SESSIONS} moved, a twentieth is 500", moved.len());
        let to: std::collections::BTreeSet<_> = moved.iter().map(|(_, new)| **new).collect();
        assert_eq!(to.len(), 19);
    }

    #[test]
    fn sessions_are_spread_evenly() {
        let mut count = [0_u32; 20];
        for slot in homes(&idle(20, 1)) {
            count[usize::try_from(slot).unwrap()] += 1;
        }
        assert!(count.iter().all(|count| (400..600).contains(count)), "{count:?}");
    }

    #[test]
    fn a_session_stays_however_busy_its_replica_is() {
        let mut list = idle(5, 1);
        let before = homes(&list);
        (0..100).for_each(|_| list.change(0, Candidate::sent));
        assert_eq!(homes(&list), before);
    }
}
