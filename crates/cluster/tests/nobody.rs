//! What a fleet says to a request that nobody serves.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod common;

use std::time::{Duration, Instant};

use anyserve_cluster::policy::LeastWait;
use anyserve_cluster::{Announce, Call, Event, Registry, RegistryConfig, Route, Step};
use anyserve_core::{Code, Error, Query};
use common::{announce, call, offer, registry};

fn fleet(replicas: &[&[&str]]) -> Registry {
    let (mut registry, now) = (registry(), Instant::now());
    for (number, offers) in replicas.iter().enumerate() {
        registry.announce(&announce(&format!("r{number}"), 1, 1, offers), now).unwrap();
    }
    registry
}

/// How a request ends that everybody hands back.
fn end(registry: &mut Registry, query: &Query) -> Error {
    let now = Instant::now();
    let mut route = Route::new(Call { query: query.clone(), ..call("a=b") });
    let mut step = route.begin(registry, &LeastWait, now);
    loop {
        step = match step {
            Step::Over(end) => return end.unwrap_err(),
            _ => route.on(Event::HandedBack(query.clone()), registry, &LeastWait, now).unwrap(),
        }
    }
}

#[test]
fn an_empty_fleet_says_how_to_start_a_replica() {
    let error = end(&mut registry(), &Query::model("echo"));
    assert_eq!((error.code, error.retry_after), (Code::Unavailable, Some(Duration::from_secs(2))));
    assert!(error.message.contains("anyserve serve app:app --api-server URL"), "{error}");
}

#[test]
fn a_wrong_name_is_told_what_is_near_and_where_to_look() {
    let mut one = fleet(&[&["type=echo"]]);
    let message = "no replica serves model 'ech': did you mean 'echo'? GET /registry lists what 1 replica offers; \
                   GET /explain says why";
    assert_eq!(end(&mut one, &Query::model("ech")), Error::new(Code::NoCapability, message));
    let mut three = fleet(&[&["type=echo"], &["type=chat,size=big"], &[]]);
    let message = "no replica serves 'size=big,type=caht': did you mean 'type=chat'? GET /registry lists what 3 replicas \
                   offer; GET /explain says why";
    assert_eq!(end(&mut three, &Query::parse("type=caht,size=big").unwrap()).message, message);
    let message = "no replica serves model 'other'; GET /registry lists what 3 replicas offer; GET /explain says why";
    assert_eq!(end(&mut three, &Query::model("other")).message, message);
}

#[test]
fn what_is_offered_and_refused_is_not_told_to_be_unknown() {
    let mut registry = fleet(&[&["type=echo"]]);
    let message = "the replicas that offer 'type=echo' take none now; GET /explain says why";
    assert_eq!(end(&mut registry, &Query::parse("type=echo").unwrap()).message, message);
    let error = registry.nobody(&Query::model("echo"), 1);
    let message = "none of 1 replicas, 1 of which are to be avoided, serves model 'echo'; GET /explain says why";
    assert_eq!(error.message, message);
}

#[test]
fn who_is_out_of_reach_is_counted_and_a_wrong_name_told_all_the_same() {
    let told = |name: &str| {
        let (mut registry, now) = (fleet(&[&["type=echo"]]), Instant::now());
        let mut route = Route::new(Call { query: Query::model(name), ..call("a=b") });
        let mut step = route.begin(&mut registry, &LeastWait, now);
        while !matches!(step, Step::Over(_)) {
            step = route.on(Event::Unreached, &mut registry, &LeastWait, now).unwrap();
        }
        let Step::Over(Err(error)) = step else { panic!("{step:?}") };
        assert_eq!(error.code, Code::Unavailable);
        error.message
    };
    assert_eq!(told("echo"), "1 replica for model 'echo' could not be reached");
    let message = "1 replica could not be reached, and no replica serves model 'ech': did you mean 'echo'? GET /registry \
                   lists what 1 replica offers; GET /explain says why";
    assert_eq!(told("ech"), message);
}

#[test]
fn a_long_query_leaves_room_for_what_is_said_of_it() {
    let mut registry = fleet(&[&["type=echo"]]);
    let told = |len: usize, registry: &mut Registry| registry.nobody(&Query::model("é".repeat(len)), 0).message;
    // "model '" and the quote at the end count too.
    for (len, cut) in [(191, false), (192, false), (193, true)] {
        assert_eq!(told(len, &mut registry).contains('…'), cut, "{len}");
    }
}

#[test]
fn what_left_is_not_meant_any_more() {
    let mut registry = fleet(&[&["type=echo"], &["type=chat"]]);
    registry.leave("r0", 1, Instant::now());
    assert!(!registry.nobody(&Query::model("ech"), 0).message.contains("did you mean"));
}

/// In a fleet of 1 000 replicas with 20 capabilities each, all of them different, as in a small one.
#[test]
fn what_was_meant_is_found_in_a_large_fleet_too() {
    let (mut registry, now) = (Registry::new(RegistryConfig::default()), Instant::now());
    for number in 0..1000 {
        let offers = (0..20).map(|kind| offer(&format!("model=model-{kind},host=host-{number}"))).collect();
        let announce = Announce { offers, ..announce(&format!("r{number}"), 1, 1, &[]) };
        registry.announce(&announce, now).unwrap();
    }
    assert_eq!(registry.capabilities().len(), 20_000);
    let message = registry.nobody(&Query::model("modle-7"), 0).message;
    assert!(message.contains("did you mean 'model-7'?"), "{message}");
}
