//! Replicas that say what tests want.

#![allow(dead_code, unreachable_pub)] // Not every test uses all of it.

use std::time::{Duration, Instant};

use anyserve_cluster::policy::{Keys, Policy};
use anyserve_cluster::{
    Announce, Call, Event, Heartbeat, Load, Offer, Registry, RegistryConfig, Route, Step, Target, Trip,
};
use anyserve_core::{Capability, Query, Upgrades, Value};

pub const READY: Load =
    Load { ready: true, saturated: false, pending: 0, wait: Duration::ZERO, service: Duration::from_millis(100) };

pub fn registry() -> Registry {
    Registry::new(RegistryConfig::default())
}

/// `a=b,c=d`, all texts.
pub fn capability(text: &str) -> Capability {
    let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), Value::Text(value.to_owned())));
    Capability::try_new(text.split(',').map(|text| pair(text).unwrap())).unwrap()
}

pub fn offer(text: &str) -> Offer {
    Offer { capability: capability(text), idempotent: false, slots: 1, load: READY }
}

pub fn announce(id: &str, epoch: u64, seq: u64, offers: &[&str]) -> Announce {
    let (id, endpoint, draining) = (id.to_owned(), "http://10.0.0.1:8000".to_owned(), false);
    let (offers, upgrades) = (offers.iter().map(|text| offer(text)).collect(), Upgrades::default());
    Announce { id, epoch, seq, endpoint, draining, offers, upgrades }
}

pub fn rules(texts: &[&str]) -> Upgrades {
    Upgrades::parse(texts.iter().copied()).unwrap()
}

pub fn heartbeat(id: &str, epoch: u64, seq: u64, announced: u64, loads: usize) -> Heartbeat {
    Heartbeat { id: id.to_owned(), epoch, seq, announced, draining: false, loads: vec![READY; loads] }
}

pub fn call(selector: &str) -> Call {
    Call { query: Query::parse(selector).unwrap(), keys: Keys::default(), deadline: None, trip: Trip::default() }
}

/// Who gets a request first, if anybody does. The request is answered at once.
pub fn first(registry: &mut Registry, selector: &str, policy: &dyn Policy, now: Instant) -> Option<Target> {
    let mut route = Route::new(call(selector));
    match route.begin(registry, policy, now) {
        Step::Send(target) => {
            route.on(Event::Answered, registry, policy, now).unwrap();
            target.capability.is_some().then_some(target)
        }
        Step::Over(_) => None,
        Step::Ask(target) => panic!("the first one is not asked: {target:?}"),
    }
}
