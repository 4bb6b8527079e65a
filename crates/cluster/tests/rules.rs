//! Who gets what nobody claims to serve: the upgrade rules that replicas announced.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod common;

use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::policy::{Keys, LeastWait};
use anyserve_cluster::{Announce, Call, Event, Registry, Route, Step, Target, Trip};
use anyserve_core::{Code, Error, Query};
use common::{announce, call, heartbeat, registry, rules};

const RULE: &str = "type=decode -> type=decode.heavy";
const ASKED: &str = "type=decode,size=large";

/// A fleet of these: name, capabilities, rules.
fn fleet(replicas: &[(&str, &[&str], &[&str])], now: Instant) -> Registry {
    let mut registry = registry();
    for (id, offers, texts) in replicas {
        say(&mut registry, id, 1, offers, texts, now);
    }
    registry
}

fn say(registry: &mut Registry, id: &str, seq: u64, offers: &[&str], texts: &[&str], now: Instant) {
    registry.announce(&Announce { upgrades: rules(texts), ..announce(id, 1, seq, offers) }, now).unwrap();
}

fn begun(registry: &mut Registry, call: Call, now: Instant) -> (Route, Target) {
    let mut route = Route::new(call);
    match route.begin(registry, &LeastWait, now) {
        Step::Send(target) => (route, target),
        other => panic!("expected to send, got {other:?}"),
    }
}

/// Everybody who gets a request of many that are begun.
fn tried(registry: &mut Registry, selector: &str, now: Instant) -> Vec<String> {
    let mut ids: Vec<_> = (0..50).map(|_| begun(registry, call(selector), now).1.id.to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn one_whose_rule_leads_to_another_goes_before_one_that_comes_near() {
    let now = Instant::now();
    let fleet = &mut fleet(
        &[
            ("near", &["type=decode,size=small"], &[]),
            ("rules", &["type=other"], &[RULE]),
            ("heavy", &["type=decode.heavy,size=large"], &[]),
        ],
        now,
    );
    assert_eq!(tried(fleet, ASKED, now), ["rules"]);
    let (mut route, _) = begun(fleet, call(ASKED), now);
    let upgraded = Query::parse("type=decode.heavy,size=large").unwrap();
    let step = route.on(Event::HandedBack(upgraded.clone()), fleet, &LeastWait, now).unwrap();
    assert!(matches!(step, Step::Ask(target) if *target.id == *"heavy" && target.query == upgraded));
    let step = route.on(Event::Can, fleet, &LeastWait, now).unwrap();
    assert!(matches!(step, Step::Send(target) if *target.id == *"heavy" && target.delegations == 1));
}

#[test]
fn a_rule_that_leads_to_somebody_goes_before_one_that_leads_to_nobody_and_that_before_none() {
    let now = Instant::now();
    let nowhere = "type=decode -> type=nowhere";
    let replicas: [(&str, &[&str], &[&str]); 4] = [
        ("near", &["type=decode,size=small"], &[]),
        ("nowhere", &["type=a"], &[nowhere]),
        ("rules", &["type=b"], &[RULE]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    assert_eq!(tried(&mut fleet(&replicas, now), ASKED, now), ["rules"]);
    assert_eq!(tried(&mut fleet(&replicas[..3], now), ASKED, now), ["nowhere", "rules"]);
    assert_eq!(tried(&mut fleet(&replicas[..2], now), ASKED, now), ["nowhere"]);
    assert_eq!(tried(&mut fleet(&replicas[..1], now), ASKED, now), ["near"]);
}

#[test]
fn the_first_rule_that_applies_counts_as_it_does_with_the_replica() {
    let now = Instant::now();
    let both = ["type=decode -> type=nowhere", RULE];
    let replicas: [(&str, &[&str], &[&str]); 3] = [
        ("first", &["type=a"], &both),
        ("rules", &["type=b"], &[RULE]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    assert_eq!(tried(&mut fleet(&replicas, now), ASKED, now), ["rules"]);
}

#[test]
fn who_alone_serves_what_its_own_rule_makes_of_a_query_is_no_better_than_a_rule_that_leads_nowhere() {
    let now = Instant::now();
    let heavy: &[&str] = &["type=decode.heavy,size=large"];
    let mut alone = fleet(&[("itself", heavy, &[RULE]), ("other", &["type=a"], &["type=decode -> type=nowhere"])], now);
    assert_eq!(tried(&mut alone, ASKED, now), ["itself", "other"]);
    let mut pair = fleet(&[("itself", heavy, &[RULE]), ("other", &["type=a"], &[RULE])], now);
    assert_eq!(tried(&mut pair, ASKED, now), ["other"]);
    let mut both = fleet(&[("itself", heavy, &[RULE]), ("other", heavy, &[RULE])], now);
    assert_eq!(tried(&mut both, ASKED, now), ["itself", "other"]);
    let less = &["type=decode.heavy,size=large,beta=1"][..];
    let mut specific = fleet(&[("itself", heavy, &[RULE]), ("less", less, &[])], now);
    assert_eq!(tried(&mut specific, ASKED, now), ["itself"], "a less specific claim is one");
}

#[test]
fn whoever_claims_the_query_goes_before_every_rule() {
    let now = Instant::now();
    let replicas: [(&str, &[&str], &[&str]); 3] = [
        ("serves", &["type=decode,size=large,beta=1"], &[]),
        ("rules", &["type=b"], &[RULE]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    assert_eq!(tried(&mut fleet(&replicas, now), ASKED, now), ["serves"]);
}

#[test]
fn rules_come_and_go_with_their_replicas_health_announcements_and_leases() {
    let now = Instant::now();
    let replicas: [(&str, &[&str], &[&str]); 3] = [
        ("near", &["type=decode,size=small"], &[]),
        ("rules", &["type=b"], &[RULE]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    let registry = &mut fleet(&replicas, now);
    assert_eq!(registry.upgrades("rules"), rules(&[RULE]));
    let handle = registry.view("rules").unwrap().handle;
    registry.eject(handle, now);
    assert_eq!(tried(registry, ASKED, now), ["near"], "it is ejected");
    registry.probed(handle, true, now);
    assert_eq!(tried(registry, ASKED, now), ["near"], "nobody has probed it");
    let later = registry.next_due().unwrap();
    for probe in registry.probes(9, later) {
        registry.probed(probe.handle, true, later);
    }
    assert_eq!(tried(registry, ASKED, later), ["rules"]);
    say(registry, "rules", 2, &["type=b"], &[], later);
    assert_eq!(tried(registry, ASKED, later), ["near"], "it has no rules any more");
    say(registry, "rules", 3, &["type=b"], &[RULE], later);
    assert_eq!(tried(registry, ASKED, later), ["rules"]);
    registry
        .heartbeat(&anyserve_cluster::Heartbeat { draining: true, ..heartbeat("rules", 1, 4, 3, 1) }, later)
        .unwrap();
    assert_eq!(tried(registry, ASKED, later), ["near"], "it drains");
    registry.leave("rules", 1, later);
    assert_eq!((tried(registry, ASKED, later), registry.upgrades("rules")), (vec!["near".to_owned()], rules(&[])));
}

#[test]
fn a_claim_that_does_not_count_any_more_leads_nowhere() {
    let now = Instant::now();
    let other = "type=decode -> type=decode.light";
    let replicas: [(&str, &[&str], &[&str]); 4] = [
        ("rules", &["type=a"], &[RULE]),
        ("other", &["type=b"], &[other]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
        ("light", &["type=decode.light,size=large"], &[]),
    ];
    let registry = &mut fleet(&replicas, now);
    assert_eq!(tried(registry, ASKED, now), ["other", "rules"]);
    registry.eject(registry.view("heavy").unwrap().handle, now);
    assert_eq!(tried(registry, ASKED, now), ["other"]);
}

#[test]
fn what_was_handed_on_once_is_nobodys_to_upgrade_and_goes_where_it_went_before() {
    let now = Instant::now();
    let replicas: [(&str, &[&str], &[&str]); 3] = [
        ("near", &["type=decode,size=small"], &[]),
        ("rules", &["type=b"], &[RULE]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    let trip = Trip { delegations: 1, refused_by: Some("else".to_owned()) };
    let (_, target) = begun(&mut fleet(&replicas, now), Call { trip, ..call(ASKED) }, now);
    assert_eq!((&*target.id, target.delegations), ("near", 1));
}

#[test]
fn who_cannot_be_reached_is_followed_by_the_next_best() {
    let now = Instant::now();
    let replicas: [(&str, &[&str], &[&str]); 4] = [
        ("one", &["type=a"], &[RULE]),
        ("two", &["type=b"], &[RULE]),
        ("near", &["type=decode,size=small"], &[]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    let registry = &mut fleet(&replicas, now);
    let (mut route, first) = begun(registry, call(ASKED), now);
    let Step::Send(second) = route.on(Event::Unreached, registry, &LeastWait, now).unwrap() else {
        panic!("two is there")
    };
    let mut both = [&*first.id, &*second.id];
    both.sort_unstable();
    assert_eq!((both, second.delegations, route.attempts()), (["one", "two"], 0, 1));
    let Step::Send(third) = route.on(Event::Unreached, registry, &LeastWait, now).unwrap() else {
        panic!("near is there")
    };
    assert_eq!(&*third.id, "near");
    let refused = Event::Failed { error: Error::new(Code::NoCapability, "no"), emitted: false };
    let step = route.on(refused, registry, &LeastWait, now).unwrap();
    assert!(matches!(step, Step::Over(Err(error)) if error.code == Code::NoCapability), "it had it");
}

#[test]
fn a_fleet_that_cannot_be_reached_is_not_walked_through() {
    let now = Instant::now();
    let names: Vec<String> = (0..20).map(|number| format!("r{number}")).collect();
    let replicas: Vec<_> = names.iter().map(|name| (name.as_str(), &["type=a"][..], &[RULE][..])).collect();
    let registry = &mut fleet(&replicas, now);
    let (mut route, _) = begun(registry, call(ASKED), now);
    let mut sent = 1;
    while let Step::Send(_) = route.on(Event::Unreached, registry, &LeastWait, now).unwrap() {
        sent += 1;
    }
    assert_eq!((sent, route.attempts()), (8, 0));
}

#[test]
fn an_explanation_says_what_the_rule_makes_of_the_query() {
    let now = Instant::now();
    let mut registry = fleet(&[("rules", &["type=b"], &[RULE])], now);
    let found = registry.promises(&Query::model("decode"), &LeastWait, &Keys::default(), now).unwrap();
    assert_eq!((&*found.replica.id, found.upgrade), ("rules", Some(Query::parse("type=decode.heavy").unwrap())));
    let other = registry.promises(&Query::model("x"), &LeastWait, &Keys::default(), now).unwrap();
    assert_eq!((&*other.replica.id, other.upgrade), ("rules", None));
}

#[test]
fn who_is_to_be_found_for_what_nobody_claims_is_one_whose_rule_leads_to_another() {
    let now = Instant::now();
    let replicas: [(&str, &[&str], &[&str]); 3] = [
        ("near", &["type=decode,size=small"], &[]),
        ("rules", &["type=other"], &[RULE]),
        ("heavy", &["type=decode.heavy,size=large"], &[]),
    ];
    let found = |registry: &mut Registry, avoid: &[Arc<str>]| {
        let found = registry.resolve(&Query::parse(ASKED).unwrap(), avoid, &LeastWait, &Keys::default(), now)?;
        Some((found.replica.id.to_string(), found.capability.is_some(), found.upgrade))
    };
    let upgraded = Query::parse("type=decode.heavy,size=large").unwrap();
    let mut fleet = fleet(&replicas, now);
    assert_eq!(found(&mut fleet, &[]), Some(("rules".to_owned(), false, Some(upgraded))));
    assert_eq!(found(&mut fleet, &["rules".into()]), None);
    fleet.leave("heavy", 1, now);
    assert_eq!(found(&mut fleet, &[]), None, "a rule that leads nowhere");
}
