//! Which replica a query goes to, as far as one caller knows. Pure.

use std::time::{Duration, Instant};

use crate::Endpoint;

/// Replicas that are remembered of one query.
const MAX_KNOWN: usize = 8;
/// Ids that an API server is told to avoid; it takes no more.
pub(super) const MAX_AVOID: usize = 16;
/// Time for which a replica that failed or refused is avoided.
const SHUN: Duration = Duration::from_secs(5);
/// Longest lease that is believed.
const LONGEST_LEASE: Duration = Duration::from_mins(1);

/// A replica, as an API server named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    /// Its name.
    pub(super) id: String,
    /// Its start.
    pub(super) epoch: u64,
    /// Where it takes requests.
    pub(super) endpoint: Endpoint,
}

/// Name and epoch of a replica: one that was started anew has not been tried.
pub(super) type Start = (String, u64);

/// Who is to be sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one.
    Fresh(Replica),
    /// This one, if no API server names a better one: what is known of it is old.
    Old(Replica),
    /// This one, if no API server names another one and nobody else is known: it failed or refused a moment ago.
    Last(Replica),
    /// Nobody is known.
    Nobody,
}

/// The replicas that served a query, the newest first.
///
/// An API server that names nobody takes nothing away: it may have started a moment ago and know less. Only what a
/// replica itself does speaks against it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Vec<Record>);

#[derive(Clone, Debug)]
struct Record {
    replica: Replica,
    /// The end of the lease that the API server told.
    until: Instant,
    /// It failed or refused, and is avoided until then.
    shunned: Option<Instant>,
}

// === impl Replica ===

impl Replica {
    /// Which start of which replica it is.
    pub(super) fn start(&self) -> Start {
        (self.id.clone(), self.epoch)
    }
}

// === impl Known ===

impl Known {
    /// Who is to be sent a request that these replicas have had already.
    pub(super) fn choose(&self, tried: &[Start], now: Instant) -> Choice {
        let mut able = self.0.iter().filter(|record| !tried.contains(&record.replica.start()));
        let Some(first) = able.clone().next() else { return Choice::Nobody };
        let Some(best) = able.find(|record| !record.is_shunned(now)) else {
            return Choice::Last(first.replica.clone());
        };
        if best.until > now { Choice::Fresh(best.replica.clone()) } else { Choice::Old(best.replica.clone()) }
    }

    /// An API server named a replica.
    pub(super) fn learned(&mut self, replica: Replica, lease: Duration, now: Instant) {
        self.0.retain(|record| record.replica.id != replica.id);
        self.0.insert(0, Record { replica, until: now + lease.min(LONGEST_LEASE), shunned: None });
        self.0.truncate(MAX_KNOWN);
    }

    /// A replica could not be reached, or refused a request without having begun it.
    pub(super) fn shun(&mut self, replica: &Replica, now: Instant) {
        if let Some(record) = self.0.iter_mut().find(|record| record.replica == *replica) {
            record.shunned = Some(now + SHUN);
        }
    }

    /// Who is not to be named by an API server: those that were tried, and those that failed or refused lately.
    pub(super) fn avoid(&self, tried: &[Start], now: Instant) -> Vec<String> {
        let shunned = self.0.iter().filter(|record| record.is_shunned(now)).map(|record| &record.replica.id);
        let shunned = shunned.filter(|id| !tried.iter().any(|(tried, _)| tried == *id));
        tried.iter().map(|(id, _)| id).chain(shunned).take(MAX_AVOID).cloned().collect()
    }
}

// === impl Record ===

impl Record {
    fn is_shunned(&self, now: Instant) -> bool {
        self.shunned.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    fn replica(id: &str) -> Replica {
        Replica { id: id.into(), epoch: 1, endpoint: "localhost:1".parse().unwrap() }
    }

    fn tried(ids: &[&str]) -> Vec<Start> {
        ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
    }

    #[test]
    fn a_replica_is_used_for_its_lease_and_after_it_if_nobody_names_a_better_one() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert_eq!(known.choose(&[], now), Choice::Nobody);
        known.learned(replica("a"), LEASE, now);
        let end = now + LEASE;
        assert_eq!(known.choose(&[], end.checked_sub(Duration::from_nanos(1)).unwrap()), Choice::Fresh(replica("a")));
        assert_eq!(known.choose(&[], end), Choice::Old(replica("a")));
        known.learned(replica("b"), LEASE, end);
        assert_eq!(known.choose(&[], end), Choice::Fresh(replica("b")));
        assert_eq!(known.choose(&tried(&["b"]), end), Choice::Old(replica("a")));
        assert_eq!(known.choose(&tried(&["a", "b"]), end), Choice::Nobody);
    }

    #[test]
    fn one_that_failed_is_avoided_for_a_while_and_the_last_resort() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.learned(replica("a"), LEASE, now);
        known.learned(replica("b"), LEASE, now);
        known.shun(&replica("b"), now);
        assert_eq!(
            (known.choose(&[], now), known.avoid(&[], now)),
            (Choice::Fresh(replica("a")), vec!["b".to_owned()])
        );
        known.shun(&replica("a"), now);
        assert_eq!(known.choose(&[], now), Choice::Last(replica("b")));
        assert_eq!(known.avoid(&tried(&["b", "c"]), now), ["b", "c", "a"]);
        assert_eq!(known.choose(&[], now + SHUN), Choice::Old(replica("b")));
        known.learned(replica("b"), LEASE, now);
        assert_eq!(known.choose(&[], now), Choice::Fresh(replica("b")), "who is named anew is as good as new");
    }

    #[test]
    fn what_speaks_against_an_earlier_start_does_not_speak_against_a_later_one() {
        let (mut known, now) = (Known::default(), Instant::now());
        let again = Replica { epoch: 2, ..replica("a") };
        known.learned(replica("a"), LEASE, now);
        known.learned(again.clone(), LEASE, now);
        known.shun(&replica("a"), now);
        assert_eq!(known.choose(&tried(&["a"]), now), Choice::Fresh(again));
    }

    #[test]
    fn what_is_remembered_is_bounded_whatever_is_told() {
        let (mut known, now) = (Known::default(), Instant::now());
        let ids: Vec<_> = (0..2 * MAX_AVOID).map(|number| number.to_string()).collect();
        for id in &ids {
            known.learned(replica(id), Duration::MAX, now);
        }
        assert_eq!(known.0.len(), MAX_KNOWN);
        let all: Vec<_> = ids.iter().map(|id| (id.clone(), 1)).collect();
        assert_eq!(known.avoid(&all, now).len(), MAX_AVOID);
        assert!(matches!(known.choose(&[], now + LONGEST_LEASE), Choice::Old(_)), "a lease ends some day");
    }
}
