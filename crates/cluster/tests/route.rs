//! The way of one request: attempts, questions, hand-backs, and what each teaches the registry.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod common;

use std::time::{Duration, Instant};

use anyserve_cluster::policy::LeastWait;
use anyserve_cluster::{Announce, Call, Event, Health, Load, Offer, Registry, Route, Step, Target, Trip};
use anyserve_core::{Code, Error, Query};
use common::{READY, announce, call, first, heartbeat, offer, registry};

/// A request on its way, with its registry.
struct World {
    registry: Registry,
    route: Route,
    now: Instant,
}

impl World {
    fn new(replicas: &[(&str, &[&str])], call: Call) -> Self {
        let (mut registry, now) = (registry(), Instant::now());
        for (id, offers) in replicas {
            registry.announce(&announce(id, 1, 1, offers), now).unwrap();
        }
        Self { registry, route: Route::new(call), now }
    }

    fn begin(&mut self) -> Step {
        self.route.begin(&mut self.registry, &LeastWait, self.now)
    }

    fn on(&mut self, event: Event) -> Step {
        self.route.on(event, &mut self.registry, &LeastWait, self.now).unwrap()
    }
}

fn sent(step: Step) -> Target {
    match step {
        Step::Send(target) => target,
        other => panic!("expected to send, got {other:?}"),
    }
}

fn asked(step: Step) -> Target {
    match step {
        Step::Ask(target) => target,
        other => panic!("expected to ask, got {other:?}"),
    }
}

fn code(step: Step) -> Code {
    match step {
        Step::Over(Err(error)) => error.code,
        other => panic!("expected an error, got {other:?}"),
    }
}

fn failed(code: Code) -> Event {
    Event::Failed { error: Error::new(code, "as the test wants it"), emitted: false }
}

#[test]
fn a_request_goes_to_the_most_specific_one_and_ends_with_its_answer() {
    let mut world = World::new(&[("plain", &["type=chat"]), ("more", &["type=chat,size=7"])], call("type=chat"));
    let target = sent(world.begin());
    assert_eq!((&*target.id, target.epoch, target.delegations), ("plain", 1, 0));
    assert_eq!(target.capability.unwrap().to_string(), "type=chat");
    assert_eq!(world.on(Event::Answered), Step::Over(Ok(())));
    assert_eq!((world.route.attempts(), world.route.delegations()), (1, 0));
}

#[test]
fn who_cannot_be_reached_is_ejected_and_costs_no_attempt() {
    let ids = ["a", "b", "c", "d"];
    let mut world = World::new(&ids.map(|id| (id, &["type=x"][..])), call("type=x"));
    let mut seen = vec![sent(world.begin()).id];
    for _ in 0..3 {
        seen.push(sent(world.on(Event::Unreached)).id);
    }
    assert_eq!(world.on(Event::Answered), Step::Over(Ok(())));
    assert_eq!(world.route.attempts(), 1);
    let ejected = ids.iter().filter(|id| world.registry.view(id).unwrap().health != Health::Up).count();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((ejected, seen.len()), (3, 4));
    let up = ids.into_iter().find(|id| world.registry.view(id).unwrap().health == Health::Up).unwrap();
    assert_eq!(&*first(&mut world.registry, "type=x", &LeastWait, world.now).unwrap().id, up);
}

#[test]
fn when_nobody_can_be_reached_it_ends_and_says_when_to_come_back() {
    let mut world = World::new(&[("a", &["type=x"]), ("b", &["type=x"])], call("type=x"));
    sent(world.begin());
    sent(world.on(Event::Unreached));
    let Step::Over(Err(error)) = world.on(Event::Unreached) else { panic!("nobody is left") };
    assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
}

#[test]
fn an_ejected_one_is_tried_when_there_is_nobody_else_and_is_back_when_it_answers() {
    let mut world = World::new(&[("a", &["type=x"])], call("type=x"));
    let handle = world.registry.view("a").unwrap().handle;
    world.registry.eject(handle, world.now);
    assert_eq!(&*sent(world.begin()).id, "a");
    world.on(failed(Code::InvalidInput));
    assert_eq!(world.registry.view("a").unwrap().health, Health::Up, "an error is an answer");
}

#[test]
fn no_answer_ejects_whatever_its_code() {
    for any in Code::all() {
        let mut world = World::new(&[("a", &["type=x"])], call("type=x"));
        sent(world.begin());
        world.on(failed(any));
        assert_eq!(world.registry.view("a").unwrap().health, Health::Up, "{any}");
    }
}

#[test]
fn only_what_a_replica_did_not_begin_goes_elsewhere_and_that_once() {
    let elsewhere = [Code::NoCapability, Code::Draining, Code::Overloaded, Code::Starting];
    for any in Code::all() {
        let ids = ["a", "b", "c"];
        let mut world = World::new(&ids.map(|id| (id, &["type=x"][..])), call("type=x"));
        let one = sent(world.begin());
        let step = world.on(failed(any));
        if !elsewhere.contains(&any) {
            assert_eq!(code(step), any);
            continue;
        }
        let other = asked(step);
        assert_ne!(one.id, other.id);
        assert_eq!(sent(world.on(Event::Can)).delegations, 1, "the last one must not hand it back");
        assert_eq!(code(world.on(failed(any))), any, "not a third time");
        assert_eq!(world.route.attempts(), 2);
    }
}

#[test]
fn a_hand_back_is_sent_on_once_with_its_query_and_not_to_who_refused() {
    let mut world = World::new(&[("a", &["type=decode"]), ("b", &["type=heavy"])], call("type=decode"));
    assert_eq!(&*sent(world.begin()).id, "a");
    let target = asked(world.on(Event::HandedBack(Query::parse("type=heavy").unwrap())));
    assert_eq!((&*target.id, target.query.to_string().as_str()), ("b", "'type=heavy'"));
    let target = sent(world.on(Event::Can));
    assert_eq!((&*target.id, target.delegations), ("b", 1));
    let again = Event::HandedBack(Query::parse("type=decode").unwrap());
    assert_eq!(code(world.on(again)), Code::NoCapability);
    assert_eq!((world.route.attempts(), world.route.delegations()), (2, 1));
}

#[test]
fn wrong_claims_cost_questions_and_are_taken_back_until_they_are_made_again() {
    let ids = ["a", "b", "c", "d", "e"];
    let mut world = World::new(&ids.map(|id| (id, &["type=x"][..])), call("type=x"));
    let one = sent(world.begin()).id;
    let mut step = world.on(Event::HandedBack(Query::parse("type=x").unwrap()));
    for _ in 0..3 {
        asked(step);
        step = world.on(Event::Cannot);
    }
    let last = asked(step).id;
    sent(world.on(Event::Can));
    assert_eq!(world.on(Event::Answered), Step::Over(Ok(())));
    assert_eq!(first(&mut world.registry, "type=x", &LeastWait, world.now).unwrap().id, last);
    let heartbeat = world.registry.heartbeat(&heartbeat(&one, 1, 2, 1, 1), world.now);
    assert_eq!(heartbeat, Ok(anyserve_cluster::Answer::AnnounceAgain));
    world.registry.announce(&announce(&one, 1, 3, &["type=x"]), world.now).unwrap();
    world.registry.leave(&last, 1, world.now);
    assert_eq!(first(&mut world.registry, "type=x", &LeastWait, world.now).unwrap().id, one);
}

#[test]
fn an_upgrade_that_nobody_serves_falls_back_to_what_was_asked_for() {
    let mut world = World::new(&[("a", &["type=x"]), ("b", &["type=x"])], call("type=x"));
    let one = sent(world.begin()).id;
    let other = asked(world.on(Event::HandedBack(Query::parse("type=heavy").unwrap())));
    assert_ne!(one, other.id);
    assert_eq!(other.query, Query::parse("type=x").unwrap());
}

#[test]
fn where_nobody_claims_it_the_most_promising_one_gets_it_once() {
    let replicas: [(&str, &[&str]); 3] = [("a", &["type=y,gpu=h"]), ("b", &["type=x,gpu=a"]), ("c", &["type=z"])];
    let mut world = World::new(&replicas, call("type=x,gpu=h,size=7"));
    let target = sent(world.begin());
    assert_eq!(target.capability, None);
    let id = target.id;
    assert_eq!(code(world.on(Event::HandedBack(Query::parse("type=none").unwrap()))), Code::NoCapability);
    let mut near = World::new(&replicas, call("type=x,gpu=h"));
    assert_ne!(&*sent(near.begin()).id, "c", "{id}");
    let mut upgraded = World::new(&replicas, call("type=none"));
    let refusing = sent(upgraded.begin()).id;
    let step = upgraded.on(Event::HandedBack(Query::parse("type=z").unwrap()));
    match step {
        Step::Ask(target) => assert!(*target.id == *"c" && refusing != target.id),
        other => assert!(*refusing == *"c" && code(other) == Code::NoCapability),
    }
}

#[test]
fn a_connection_that_breaks_is_tried_again_only_where_it_may_run_twice_and_nothing_came() {
    for (idempotent, emitted, again) in [(true, false, true), (true, true, false), (false, false, false)] {
        let mut world = World::new(&[], call("type=x"));
        for id in ["a", "b"] {
            let offers = vec![Offer { idempotent, ..offer("type=x") }];
            world.registry.announce(&Announce { offers, ..announce(id, 1, 1, &[]) }, world.now).unwrap();
        }
        let one = sent(world.begin()).id;
        let step = world.on(Event::Broken { emitted });
        assert!(world.registry.view(&one).unwrap().health != Health::Up);
        if again {
            assert_ne!(asked(step).id, one);
        } else {
            assert_eq!(code(step), Code::WorkerLost);
        }
    }
}

#[test]
fn what_comes_with_counter_1_is_not_sent_back_to_who_refused_and_has_one_attempt() {
    let trip = Trip { delegations: 1, refused_by: Some("a".to_owned()) };
    let mut world = World::new(&[("a", &["type=x"]), ("b", &["type=x"])], Call { trip, ..call("type=x") });
    assert_eq!(&*asked(world.begin()).id, "b");
    assert_eq!(sent(world.on(Event::Can)).delegations, 1);
    assert_eq!(code(world.on(failed(Code::Draining))), Code::Draining);
}

#[test]
fn a_deadline_that_has_passed_sends_nothing() {
    let now = Instant::now();
    for (left, expected) in [(0, Some(Code::Deadline)), (1, None)] {
        let deadline = Some(now + Duration::from_nanos(left));
        let mut world = World::new(&[("a", &["type=x"])], Call { deadline, ..call("type=x") });
        world.now = now;
        match expected {
            Some(expected) => assert_eq!(code(world.begin()), expected),
            None => assert_eq!(&*sent(world.begin()).id, "a"),
        }
    }
}

#[test]
fn ready_ones_go_before_cold_ones_and_those_before_full_ones() {
    let mut world = World::new(&[], call("type=x"));
    let loads =
        [("ready", READY), ("cold", Load { ready: false, ..READY }), ("full", Load { saturated: true, ..READY })];
    for (id, load) in loads {
        let offers = vec![Offer { load, ..offer("type=x") }];
        world.registry.announce(&Announce { offers, ..announce(id, 1, 1, &[]) }, world.now).unwrap();
    }
    for (id, _) in loads {
        assert_eq!(&*first(&mut world.registry, "type=x", &LeastWait, world.now).unwrap().id, id);
        world.registry.leave(id, 1, world.now);
    }
}

#[test]
fn a_replica_whose_lease_is_over_or_that_drains_gets_nothing() {
    let mut world = World::new(&[("a", &["type=x"])], call("type=x"));
    let draining = Announce { draining: true, ..announce("b", 1, 1, &["type=x"]) };
    world.registry.announce(&draining, world.now).unwrap();
    for _ in 0..20 {
        assert_eq!(&*first(&mut world.registry, "type=x", &LeastWait, world.now).unwrap().id, "a");
    }
    world.now += Duration::from_secs(5);
    assert_eq!(code(world.begin()), Code::Unavailable);
}

#[test]
fn an_event_that_cannot_be_is_refused_and_changes_nothing() {
    let mut world = World::new(&[("a", &["type=x"])], call("type=x"));
    let refuses = |world: &mut World, event: Event, state: &str| {
        let error = world.route.on(event, &mut world.registry, &LeastWait, world.now).unwrap_err();
        assert_eq!(error.state, state);
    };
    refuses(&mut world, Event::Answered, "begun");
    sent(world.begin());
    refuses(&mut world, Event::Can, "sending");
    refuses(&mut world, Event::Cannot, "sending");
    world.on(Event::Answered);
    for event in [Event::Answered, Event::Left, Event::Late, Event::Unreached] {
        refuses(&mut world, event, "over");
    }
}
