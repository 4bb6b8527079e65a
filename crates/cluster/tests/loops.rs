//! A request never goes in circles, whatever replicas answer.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::policy::{BinPacking, LeastWait, Policy, PrefixAffinity, RoundRobin, Sticky};
use anyserve_cluster::{Announce, Arrival, Call, Event, Offer, Refusal, Registry, Route, Step, Target, Trip, refuse};
use anyserve_core::{Code, Error, Query, Upgrades};
use common::{READY, announce, call, offer, registry};
use proptest::prelude::*;

const KINDS: u8 = 4;

fn kind(number: u8) -> String {
    format!("type=t{number}")
}

/// Replicas with these kinds, all with the same rules.
fn fleet(offers: &[Vec<u8>], upgrades: &Upgrades, now: Instant) -> Registry {
    let mut registry = registry();
    for (id, kinds) in offers.iter().enumerate() {
        let offers = kinds.iter().map(|number| Offer { idempotent: true, load: READY, ..offer(&kind(*number)) });
        let (offers, upgrades) = (offers.collect(), upgrades.clone());
        let announce = Announce { offers, upgrades, ..announce(&format!("r{id}"), 1, 1, &[]) };
        registry.announce(&announce, now).unwrap();
    }
    registry
}

/// Rules from every kind to the one so many further on; that many are none.
fn circle(by: u8) -> Upgrades {
    let rule = |from| format!("{} -> {}", kind(from), kind((from + by) % KINDS));
    let rules: Vec<_> = (0..if by == KINDS { 0 } else { KINDS }).map(rule).collect();
    Upgrades::parse(rules.iter().map(String::as_str)).unwrap()
}

/// What a replica may say, as a number: anything, in any order, as often as it likes.
fn answer(said: u8, asked: bool) -> Event {
    let failed =
        |code| Event::Failed { error: Error::new(code, "as the test wants it"), emitted: said.is_multiple_of(2) };
    match (asked, said % 16) {
        (true, 0..6) => Event::Can,
        (true, 6..12) => Event::Cannot,
        (true, _) | (false, 0..2) => Event::Unreached,
        (false, 2..9) => Event::HandedBack(Query::parse(&kind(said % KINDS)).unwrap()),
        (false, 9) => failed(Code::NoCapability),
        (false, 10) => failed(Code::Overloaded),
        (false, 11) => failed(Code::Draining),
        (false, 12) => failed(Code::Starting),
        (false, 13) => failed(Code::InvalidInput),
        (false, 14) => Event::Broken { emitted: false },
        (false, _) => Event::Answered,
    }
}

/// What a request has been through.
#[derive(Default)]
struct Log {
    /// Sent, and not unreached.
    attempts: u32,
    handed_back: u32,
    refused_by: BTreeSet<Arc<str>>,
    steps: usize,
}

impl Log {
    fn note(&mut self, target: &Target, sent: bool, event: &Event) {
        assert!(!self.refused_by.contains(&target.id), "{} has refused it", target.id);
        assert!(target.delegations <= 1 && target.delegations >= self.handed_back);
        self.steps += 1;
        if !sent || *event == Event::Unreached {
            return;
        }
        self.attempts += 1;
        if let Event::HandedBack(_) = event {
            self.handed_back += u32::from(target.delegations == 0);
            self.refused_by.insert(Arc::clone(&target.id));
        }
    }
}

/// Runs one request against what replicas say, to its end.
fn run(
    route: &mut Route,
    registry: &mut Registry,
    policy: &dyn Policy,
    mut says: impl FnMut(&Target, bool) -> Event,
) -> Log {
    let (now, mut log) = (Instant::now(), Log::default());
    let mut step = route.begin(registry, policy, now);
    loop {
        let (target, sent) = match step {
            Step::Over(_) => return log,
            Step::Ask(target) => (target, false),
            Step::Send(target) => (target, true),
        };
        let event = says(&target, !sent);
        log.note(&target, sent, &event);
        step = route.on(event, registry, policy, now).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_replicas_say_there_are_two_attempts_and_one_delegation_and_an_end(
        offers in prop::collection::vec(prop::collection::vec(0..KINDS, 0..4), 0..8),
        wanted in 0..KINDS,
        delegations in 0..2_u32,
        says in prop::collection::vec(any::<u8>(), 64),
        which in 0..5_usize,
    ) {
        let policies: [&dyn Policy; 5] = [&LeastWait, &BinPacking, &Sticky, &PrefixAffinity::default(), &RoundRobin];
        let upgrades = circle(says[0] % KINDS + 1);
        let mut registry = fleet(&offers, &upgrades, Instant::now());
        let trip = Trip { delegations, refused_by: (delegations == 1).then(|| "r0".to_owned()) };
        let mut route = Route::new(Call { trip, ..call(&kind(wanted)) });
        let mut said = says.iter().cycle();
        let log = run(&mut route, &mut registry, policies[which], |target, asked| {
            assert!(delegations == 0 || *target.id != *"r0", "it refused before");
            answer(*said.next().unwrap(), asked)
        });
        prop_assert!(log.attempts + delegations <= 2 && log.handed_back + delegations <= 1);
        prop_assert!(route.attempts() <= 2 && route.delegations() <= 1);
        prop_assert!(log.steps <= 2 * offers.len() + 2, "{} steps among {}", log.steps, offers.len());
    }

    #[test]
    fn rules_that_lead_in_circles_end_after_one(
        offers in prop::collection::vec(prop::collection::vec(0..KINDS, 0..4), 1..8),
        wanted in 0..KINDS,
        circle in 1..KINDS,
    ) {
        let upgrades = self::circle(circle);
        let mut registry = fleet(&offers, &upgrades, Instant::now());
        let mut route = Route::new(call(&kind(wanted)));
        // Everybody claims to serve and nobody does.
        let log = run(&mut route, &mut registry, &LeastWait, |target, asked| {
            if asked {
                return Event::Can;
            }
            let trip = Trip { delegations: target.delegations, refused_by: None };
            match refuse(&target.query, &trip, Arrival::ByServer, &upgrades) {
                Refusal::HandBack(query) => Event::HandedBack(query),
                Refusal::Fail(error) => Event::Failed { error, emitted: false },
                Refusal::Forward(query) => panic!("it came through the API server: {query}"),
            }
        });
        prop_assert!(log.attempts <= 2 && log.handed_back <= 1 && log.steps <= 3);
    }
}
