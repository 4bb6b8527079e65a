//! What a registry shows, and what it takes over from others.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod common;

use std::time::{Duration, Instant};

use anyserve_cluster::policy::{Keys, LeastWait, RoundRobin};
use anyserve_cluster::{Answer, Counts, Load, Registry, RegistryConfig, Standing};
use anyserve_core::Query;
use common::{READY, announce, heartbeat, registry};

const LEASE: Duration = Duration::from_secs(5);

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

/// Id and capability of who a request should go to.
fn resolved(registry: &mut Registry, selector: &str, avoid: &[&str], now: Instant) -> Option<(String, String)> {
    let avoid: Vec<_> = avoid.iter().map(|id| (*id).into()).collect();
    let found = registry.resolve(&query(selector), &avoid, &RoundRobin, &Keys::default(), now)?;
    Some((found.replica.id.to_string(), found.capability.unwrap().to_string()))
}

fn named(id: &str, capability: &str) -> (String, String) {
    (id.to_owned(), capability.to_owned())
}

#[test]
fn who_is_avoided_or_gone_is_not_resolved_and_who_is_ejected_only_at_last() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    registry.announce(&announce("b", 1, 1, &["type=x,size=1"]), now).unwrap();
    assert_eq!(resolved(&mut registry, "type=x", &[], now), Some(named("a", "type=x")), "the most specific one");
    assert_eq!(resolved(&mut registry, "type=x", &["a"], now), Some(named("b", "size=1,type=x")));
    assert_eq!(resolved(&mut registry, "type=x", &["a", "b", "c"], now), None);
    assert_eq!(resolved(&mut registry, "type=y", &[], now), None);
    registry.eject(registry.view("a").unwrap().handle, now);
    assert_eq!(resolved(&mut registry, "type=x", &[], now), Some(named("b", "size=1,type=x")));
    assert_eq!(resolved(&mut registry, "type=x", &["b"], now), Some(named("a", "type=x")));
    assert_eq!(resolved(&mut registry, "type=x", &[], now + LEASE), None);
}

#[test]
fn what_is_resolved_is_not_counted_as_sent() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    let before = registry.offers("a");
    (0..10).for_each(|_| assert!(resolved(&mut registry, "type=x", &[], now).is_some()));
    assert_eq!(registry.offers("a"), before);
}

#[test]
fn offers_are_shown_with_load_and_standing() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x", "type=y"]), now).unwrap();
    let mut beat = heartbeat("a", 1, 2, 1, 2);
    beat.loads[1] = Load { saturated: true, pending: 7, ..READY };
    registry.heartbeat(&beat, now).unwrap();
    let shown: Vec<_> = registry.offers("a").iter().map(|one| (one.standing, one.load.pending)).collect();
    assert_eq!(shown, [(Some(Standing::Ready), 0), (Some(Standing::Saturated), 7)]);
    registry.eject(registry.view("a").unwrap().handle, now);
    assert_eq!(registry.offers("a")[0].standing, Some(Standing::Ejected));
    registry.heartbeat(&anyserve_cluster::Heartbeat { draining: true, ..heartbeat("a", 1, 3, 1, 2) }, now).unwrap();
    assert_eq!(registry.offers("a")[0].standing, None);
    assert_eq!(registry.offers("nobody"), []);
}

#[test]
fn the_most_promising_one_is_told_without_a_capability() {
    let (mut registry, now) = (registry(), Instant::now());
    let promised = |registry: &mut Registry| {
        let found = registry.promises(&query("type=x,size=2"), &LeastWait, &Keys::default(), now)?;
        assert_eq!(found.capability, None);
        Some(found.replica.id.to_string())
    };
    assert_eq!(promised(&mut registry), None);
    registry.announce(&announce("a", 1, 1, &["type=z"]), now).unwrap();
    assert_eq!(promised(&mut registry).as_deref(), Some("a"));
    registry.announce(&announce("b", 1, 1, &["type=x,size=1"]), now).unwrap();
    assert_eq!(promised(&mut registry).as_deref(), Some("b"), "it has all but one");
}

#[test]
fn no_more_are_probed_than_asked_for_and_the_others_stay_due() {
    let (mut registry, now) = (registry(), Instant::now());
    for id in ["a", "b", "c"] {
        registry.announce(&announce(id, 1, 1, &[]), now).unwrap();
        registry.eject(registry.view(id).unwrap().handle, now);
    }
    let due = registry.next_due().unwrap();
    assert_eq!([0, 2, 3].map(|max| registry.probes(max, due).len()), [0, 2, 1]);
}

#[test]
fn what_happens_is_counted_once() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    registry.announce(&announce("b", 1, 1, &[]), now).unwrap();
    registry.heartbeat(&heartbeat("a", 1, 2, 1, 1), now).unwrap();
    registry.heartbeat(&heartbeat("a", 1, 2, 1, 1), now).unwrap();
    let handle = registry.view("a").unwrap().handle;
    (0..2).for_each(|_| registry.eject(handle, now));
    registry.leave("a", 1, now);
    registry.expire(now + LEASE);
    assert_eq!(registry.counts(), Counts { announced: 2, heartbeats: 1, left: 1, expired: 1, ejected: 1 });
}

#[test]
fn a_replica_that_was_taken_over_is_understood_when_it_comes_itself() {
    let (mut registry, now) = (registry(), Instant::now());
    // The announcement had the number 3, and the newest heartbeat 9.
    assert_eq!(registry.adopt(&announce("a", 1, 9, &["type=x"]), 3, now), Ok(Answer::Accepted));
    assert_eq!(registry.heartbeat(&heartbeat("a", 1, 9, 3, 1), now), Ok(Answer::Outdated { latest: 9 }));
    assert_eq!(registry.heartbeat(&heartbeat("a", 1, 10, 3, 1), now), Ok(Answer::Accepted));
    assert_eq!(registry.adopt(&announce("a", 1, 9, &["type=y"]), 4, now), Ok(Answer::Outdated { latest: 10 }));
    assert_eq!(registry.adopt(&announce("a", 0, 99, &["type=y"]), 1, now), Ok(Answer::StaleEpoch { latest: 1 }));
    assert_eq!(resolved(&mut registry, "type=x", &[], now), Some(named("a", "type=x")));
}

#[test]
fn taking_over_the_same_again_brings_loads_and_no_denied_claim_back() {
    use anyserve_cluster::{Event, Route, Step};
    let (mut registry, now) = (registry(), Instant::now());
    registry.adopt(&announce("a", 1, 5, &["type=x"]), 5, now).unwrap();
    let mut route = Route::new(common::call("type=x"));
    assert!(matches!(route.begin(&mut registry, &LeastWait, now), Step::Send(_)));
    route.on(Event::HandedBack(query("type=x")), &mut registry, &LeastWait, now).unwrap();
    assert!(registry.offers("a")[0].denied);
    let mut newest = announce("a", 1, 6, &["type=x"]);
    newest.offers[0].load.pending = 4;
    registry.adopt(&newest, 5, now).unwrap();
    let offer = &registry.offers("a")[0];
    assert_eq!((offer.denied, offer.load.pending), (true, 4));
    registry.adopt(&announce("a", 1, 7, &["type=x"]), 7, now).unwrap();
    assert!(!registry.offers("a")[0].denied, "it was announced anew");
}

#[test]
fn a_lease_is_renewed_for_the_epoch_that_is_known_and_for_no_other() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.adopt(&announce("a", 2, 5, &["type=x"]), 5, now).unwrap();
    let later = now + Duration::from_secs(4);
    assert!(!registry.renew_adopted("a", 1, later) && !registry.renew_adopted("b", 1, later));
    assert_eq!(registry.view("a").unwrap().lease_until, now + LEASE);
    assert!(registry.renew_adopted("a", 2, later));
    assert_eq!(registry.view("a").unwrap().lease_until, later + LEASE);
    assert!(!registry.renew_adopted("a", 2, later + LEASE), "too late");
}

#[test]
fn who_expired_here_is_taken_over_again_and_who_left_is_not() {
    let (mut registry, now) = (registry(), Instant::now());
    let newest = announce("a", 1, 5, &["type=x"]);
    registry.adopt(&newest, 5, now).unwrap();
    let later = now + LEASE;
    registry.expire(later);
    assert_eq!(registry.adopt(&newest, 5, later), Ok(Answer::Accepted));
    registry.leave("a", 1, later);
    assert_eq!(registry.adopt(&newest, 5, later), Ok(Answer::StaleEpoch { latest: 1 }));
}

#[test]
fn what_is_taken_over_keeps_to_the_limits() {
    let limits = anyserve_cluster::RegistryLimits { max_replicas: 1, ..Default::default() };
    let mut registry = Registry::new(RegistryConfig { limits, ..RegistryConfig::default() });
    let now = Instant::now();
    assert!(registry.adopt(&announce("", 1, 5, &[]), 5, now).is_err());
    registry.adopt(&announce("a", 1, 5, &[]), 5, now).unwrap();
    assert!(registry.adopt(&announce("b", 1, 5, &[]), 5, now).is_err());
}

#[test]
fn who_hears_a_replica_is_known() {
    let (mut registry, now) = (registry(), Instant::now());
    let adopted = |registry: &Registry| registry.view("a").unwrap().adopted;
    registry.adopt(&announce("a", 1, 5, &["type=x"]), 5, now).unwrap();
    assert!(adopted(&registry));
    registry.heartbeat(&heartbeat("a", 1, 6, 5, 1), now).unwrap();
    assert!(!adopted(&registry), "it came here itself");
    registry.adopt(&announce("a", 1, 7, &["type=x"]), 5, now).unwrap();
    assert!(adopted(&registry));
    registry.announce(&announce("a", 1, 8, &["type=x"]), now).unwrap();
    assert!(!adopted(&registry));
    assert!(registry.renew_adopted("a", 1, now) && adopted(&registry));
}

#[test]
fn why_a_replica_is_out_of_reach_is_known_until_it_is_up() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    let handle = registry.view("a").unwrap().handle;
    let trouble = |registry: &Registry| registry.view("a").unwrap().trouble.as_deref().map(str::to_owned);
    registry.blame(handle, "it is up");
    assert_eq!(trouble(&registry), None);
    registry.eject(handle, now);
    for (len, kept) in [(199, 199), (200, 200), (201, 200)] {
        registry.blame(handle, &"é".repeat(len));
        assert_eq!(trouble(&registry).unwrap().chars().count(), kept);
    }
    let due = registry.next_due().unwrap();
    registry.probes(1, due);
    registry.probed(handle, true, due);
    assert_eq!(trouble(&registry), None);
}

#[test]
fn capabilities_are_shown_with_all_who_offer_them() {
    let (mut registry, now) = (registry(), Instant::now());
    for (number, load) in [
        Load { pending: 3, wait: Duration::from_millis(7), ..READY },
        Load { pending: 2, wait: Duration::from_millis(5), ..READY },
        Load { ready: false, ..READY },
        Load { saturated: true, ..READY },
        READY,
        READY,
    ]
    .into_iter()
    .enumerate()
    {
        let mut said = announce(&format!("r{number}"), 1, 1, &["type=x"]);
        (said.offers[0].load, said.draining) = (load, number == 5);
        registry.announce(&said, now).unwrap();
    }
    registry.eject(registry.view("r4").unwrap().handle, now);
    let [shown] = &registry.capability_views(10)[..] else { panic!("one capability") };
    assert_eq!((shown.capability.to_string(), shown.replicas, shown.standings), ("type=x".into(), 6, [2, 1, 1, 1]));
    assert_eq!((shown.pending, shown.wait), (5, Some(Duration::from_millis(5))));
    registry.announce(&announce("more", 1, 1, &["type=y", "type=z"]), now).unwrap();
    assert_eq!([0, 2, 3, 4].map(|max| registry.capability_views(max).len()), [0, 2, 3, 3]);
}

#[test]
fn somebody_is_found_for_a_question_without_a_turn_being_taken() {
    let (mut registry, now) = (registry(), Instant::now());
    assert_eq!(registry.anybody(&query("type=x"), now), None);
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    registry.announce(&announce("b", 1, 1, &["type=x"]), now).unwrap();
    let found = registry.anybody(&query("type=x"), now).unwrap();
    assert_eq!((&*found.replica.id, found.capability.unwrap().to_string()), ("a", "type=x".to_owned()));
    let turns: Vec<_> = (0..4)
        .map(|_| {
            registry.anybody(&query("type=x"), now).unwrap();
            resolved(&mut registry, "type=x", &[], now).unwrap().0
        })
        .collect();
    assert_eq!(turns.iter().filter(|id| **id == "a").count(), 2, "{turns:?}");
    registry.eject(registry.view("a").unwrap().handle, now);
    assert_eq!(&*registry.anybody(&query("type=x"), now).unwrap().replica.id, "b");
    registry.eject(registry.view("b").unwrap().handle, now);
    assert_eq!(registry.anybody(&query("type=x"), now), None);
}
