//! The registry from outside: epochs, leases, ejections and limits.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod common;

use std::time::{Duration, Instant};

use anyserve_cluster::policy::LeastWait;
use anyserve_cluster::{
    Announce, Answer, Health, Heartbeat, Load, MessageError, Registry, RegistryConfig, RegistryLimits,
};
use anyserve_core::{Capability, Value};
use common::{announce, first, heartbeat, offer, registry, rules};
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(5);
const MANY: usize = usize::MAX;

fn just_before(instant: Instant) -> Instant {
    instant.checked_sub(Duration::from_nanos(1)).unwrap()
}

fn limited(limits: RegistryLimits) -> Registry {
    Registry::new(RegistryConfig { limits, ..RegistryConfig::default() })
}

#[test]
fn a_stale_epoch_never_comes_back() {
    let (mut registry, now) = (registry(), Instant::now());
    let mut say = |epoch, seq| registry.announce(&announce("a", epoch, seq, &["type=x"]), now).unwrap();
    assert_eq!(say(5, 1), Answer::Accepted);
    assert_eq!(say(4, 9), Answer::StaleEpoch { latest: 5 });
    assert_eq!(say(6, 1), Answer::Accepted);
    assert_eq!(say(5, 2), Answer::StaleEpoch { latest: 6 });
    assert_eq!(registry.heartbeat(&heartbeat("a", 5, 3, 2, 1), now), Ok(Answer::StaleEpoch { latest: 6 }));
    let later = now + LEASE;
    assert_eq!((registry.expire(later), registry.len()), (1, 0));
    assert_eq!(registry.announce(&announce("a", 5, 9, &[]), later), Ok(Answer::StaleEpoch { latest: 6 }));
    assert_eq!(registry.heartbeat(&heartbeat("a", 5, 9, 2, 1), later), Ok(Answer::StaleEpoch { latest: 6 }));
}

#[test]
fn who_left_is_back_only_with_a_later_epoch() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 5, 1, &[]), now).unwrap();
    assert_eq!(registry.leave("a", 4, now), Answer::StaleEpoch { latest: 5 });
    assert_eq!(registry.leave("a", 5, now), Answer::Accepted);
    assert_eq!(registry.announce(&announce("a", 5, 2, &[]), now), Ok(Answer::StaleEpoch { latest: 5 }));
    assert_eq!(registry.announce(&announce("a", 6, 1, &[]), now), Ok(Answer::Accepted));
    assert_eq!(registry.leave("nobody", 1, now), Answer::Accepted);
}

#[test]
fn a_lease_lasts_exactly_so_long_and_every_message_begins_it_anew() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    assert_eq!(registry.next_due(), Some(now + LEASE));
    assert_eq!(registry.expire(just_before(now + LEASE)), 0);
    let beat = just_before(now + LEASE);
    assert_eq!(registry.heartbeat(&heartbeat("a", 1, 2, 1, 1), beat), Ok(Answer::Accepted));
    assert_eq!(registry.expire(just_before(beat + LEASE)), 0);
    assert_eq!(registry.expire(beat + LEASE), 1);
    assert_eq!(registry.next_due(), None);
    assert!(registry.capabilities().is_empty());
    let heartbeat = heartbeat("a", 1, 3, 1, 1);
    assert_eq!(registry.heartbeat(&heartbeat, beat + LEASE), Ok(Answer::AnnounceAgain));
    assert_eq!(registry.announce(&announce("a", 1, 4, &["type=x"]), beat + LEASE), Ok(Answer::Accepted));
}

#[test]
fn it_tells_what_is_offered_whether_a_worker_is_there_for_it_and_who_may_get_requests() {
    let (mut registry, now) = (registry(), Instant::now());
    assert!(!registry.is_ready());
    let mut said = announce("a", 1, 1, &["type=x", "type=y"]);
    said.offers[1].load.ready = false;
    registry.announce(&said, now).unwrap();
    let mut offered: Vec<_> = registry.offered().map(|(capability, warm)| (capability.to_string(), warm)).collect();
    offered.sort();
    assert_eq!(offered, [("type=x".to_owned(), true), ("type=y".to_owned(), false)]);
    let handle = registry.view("a").unwrap().handle;
    assert!(registry.is_ready() && registry.knows(handle));
    registry.announce(&Announce { seq: 2, draining: true, ..said }, now).unwrap();
    assert!(!registry.is_ready() && registry.offered().all(|(_, warm)| !warm));
    registry.leave("a", 1, now);
    assert!(!registry.knows(handle) && registry.offered().next().is_none());
}

#[test]
fn a_message_that_comes_late_or_twice_makes_no_difference() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 3, &["type=new"]), now).unwrap();
    let later = now + Duration::from_secs(1);
    for seq in [1, 2, 3] {
        let old = announce("a", 1, seq, &["type=old"]);
        assert_eq!(registry.announce(&old, later), Ok(Answer::Outdated { latest: 3 }));
        assert_eq!(registry.heartbeat(&heartbeat("a", 1, seq, 3, 1), later), Ok(Answer::Outdated { latest: 3 }));
    }
    assert_eq!(registry.view("a").unwrap().lease_until, now + LEASE);
    assert!(first(&mut registry, "type=new", &LeastWait, later).is_some());
    registry.expire(now + LEASE);
    let replayed = registry.announce(&announce("a", 1, 3, &["type=new"]), now + LEASE);
    assert_eq!(replayed, Ok(Answer::Outdated { latest: 3 }), "not after its lease either");
}

#[test]
fn a_heartbeat_that_is_not_of_the_last_announcement_asks_for_another() {
    let (mut registry, now) = (registry(), Instant::now());
    assert_eq!(registry.heartbeat(&heartbeat("a", 1, 1, 1, 0), now), Ok(Answer::AnnounceAgain));
    registry.announce(&announce("a", 1, 2, &["type=x", "type=y"]), now).unwrap();
    assert_eq!(registry.heartbeat(&heartbeat("a", 1, 3, 1, 2), now), Ok(Answer::AnnounceAgain));
    for count in [1, 3] {
        let wrong = MessageError::Loads { id: "a".into(), count, expected: 2 };
        assert_eq!(registry.heartbeat(&heartbeat("a", 1, 3, 2, count), now), Err(wrong));
    }
    assert_eq!(registry.heartbeat(&heartbeat("a", 1, 3, 2, 2), now), Ok(Answer::Accepted));
}

#[test]
fn a_heartbeat_of_a_later_start_ends_the_earlier_one() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    assert_eq!(registry.heartbeat(&heartbeat("a", 2, 1, 1, 1), now), Ok(Answer::AnnounceAgain));
    assert!(registry.is_empty());
    assert_eq!(registry.announce(&announce("a", 1, 2, &["type=x"]), now), Ok(Answer::StaleEpoch { latest: 1 }));
    assert_eq!(registry.announce(&announce("a", 2, 2, &["type=x"]), now), Ok(Answer::Accepted));
}

#[test]
fn an_ejected_replica_comes_back_by_one_probe_and_not_by_its_heartbeats() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &["type=x"]), now).unwrap();
    let handle = registry.view("a").unwrap().handle;
    registry.eject(handle, now);
    registry.heartbeat(&heartbeat("a", 1, 2, 1, 1), now).unwrap();
    assert!(matches!(registry.view("a").unwrap().health, Health::Ejected { strikes: 1, .. }));
    let due = registry.next_due().unwrap();
    assert_eq!(registry.probes(MANY, just_before(due)), []);
    let probes = registry.probes(MANY, due);
    assert_eq!(probes.iter().map(|one| one.handle).collect::<Vec<_>>(), [handle]);
    assert_eq!(registry.probes(MANY, due), [], "one at a time");
    registry.probed(handle, false, due);
    let again = registry.next_due().unwrap();
    assert!(again - due > due - now, "the next one later");
    registry.heartbeat(&heartbeat("a", 1, 3, 1, 1), again).unwrap();
    assert_eq!(registry.probes(MANY, again).len(), 1);
    registry.probed(handle, true, again);
    assert_eq!(registry.view("a").unwrap().health, Health::Up);
}

#[test]
fn what_was_seen_of_an_earlier_start_says_nothing_of_a_later_one() {
    let (mut registry, now) = (registry(), Instant::now());
    registry.announce(&announce("a", 1, 1, &[]), now).unwrap();
    let old = registry.view("a").unwrap().handle;
    registry.eject(old, now);
    registry.announce(&announce("a", 2, 1, &[]), now).unwrap();
    assert_eq!(registry.view("a").unwrap().health, Health::Up);
    registry.eject(old, now);
    registry.probed(old, false, now);
    assert_eq!(registry.view("a").unwrap().health, Health::Up);
    assert_eq!(registry.next_due(), Some(now + LEASE), "no probe is due any more");
}

#[test]
fn there_are_as_many_replicas_as_there_may_be() {
    let mut registry = limited(RegistryLimits { max_replicas: 2, ..RegistryLimits::default() });
    let now = Instant::now();
    let mut say = |id, epoch| registry.announce(&announce(id, epoch, 1, &[]), now);
    assert_eq!((say("a", 1), say("b", 1)), (Ok(Answer::Accepted), Ok(Answer::Accepted)));
    assert_eq!(say("c", 1), Err(MessageError::Full { max: 2 }));
    assert_eq!(say("a", 2), Ok(Answer::Accepted), "one that is known has its room");
    registry.leave("b", 1, now);
    assert_eq!(registry.announce(&announce("c", 1, 1, &[]), now), Ok(Answer::Accepted));
}

#[test]
fn every_length_is_accepted_up_to_its_limit() {
    let limits = RegistryLimits {
        max_replicas: 9,
        max_capabilities: 2,
        max_keys: 2,
        max_text: 20,
        max_upgrades: 2,
        max_upgrade: 20,
    };
    let fits = |announce: &Announce| limited(limits).announce(announce, Instant::now()).is_ok();
    let text = |len: usize| "x".repeat(len);
    for (len, expected) in [(19, true), (20, true), (21, false)] {
        assert_eq!(fits(&announce(&text(len), 1, 1, &[])), expected, "id of {len}");
        let endpoint = format!("http://{}", text(len - 7));
        assert_eq!(fits(&Announce { endpoint, ..announce("a", 1, 1, &[]) }), expected, "endpoint of {len}");
        let pair = |key: String, value: String| Capability::try_new([(key, Value::Text(value))]).unwrap();
        for capability in [pair(text(len), text(1)), pair(text(1), text(len))] {
            let offers = vec![anyserve_cluster::Offer { capability, ..offer("type=x") }];
            assert_eq!(fits(&Announce { offers, ..announce("a", 1, 1, &[]) }), expected, "pair of {len}");
        }
    }
    for (count, expected) in [(1, true), (2, true), (3, false)] {
        assert_eq!(fits(&announce("a", 1, 1, &vec!["type=x"; count])), expected, "{count} capabilities");
        let keys = ["a=1", "b=1", "c=1"][..count].join(",");
        assert_eq!(fits(&announce("a", 1, 1, &[keys.as_str()])), expected, "{count} keys");
    }
    for (count, expected) in [(1, true), (2, true), (3, false)] {
        let upgrades = rules(&vec!["a=1 -> a=2"; count]);
        assert_eq!(fits(&Announce { upgrades, ..announce("a", 1, 1, &[]) }), expected, "{count} rules");
    }
    for (len, expected) in [(19, true), (20, true), (21, false)] {
        let upgrades = rules(&[&format!("a=1 -> a={}", text(len - "a=1 -> a=".len()))]);
        assert_eq!(fits(&Announce { upgrades, ..announce("a", 1, 1, &[]) }), expected, "a rule of {len}");
    }
    for endpoint in ["", "http://", "ftp://a", "http://a b", "https://a\n", "http://ä"] {
        assert!(!fits(&Announce { endpoint: endpoint.into(), ..announce("a", 1, 1, &[]) }), "{endpoint}");
    }
    for id in ["", "a b", "a\n", "ä"] {
        assert!(!fits(&announce(id, 1, 1, &[])), "{id}");
    }
}

#[test]
fn epochs_of_the_gone_are_bounded_in_number_and_in_time() {
    let mut registry = limited(RegistryLimits { max_replicas: 2, ..RegistryLimits::default() });
    let now = Instant::now();
    for id in ["a", "b", "c"] {
        registry.announce(&announce(id, 5, 1, &[]), now).unwrap();
        registry.leave(id, 5, now);
    }
    assert_eq!(registry.announce(&announce("a", 4, 1, &[]), now), Ok(Answer::Accepted), "the oldest is forgotten");
    assert_eq!(registry.announce(&announce("c", 4, 1, &[]), now), Ok(Answer::StaleEpoch { latest: 5 }));
    let later = now + Duration::from_mins(10);
    assert_eq!(registry.announce(&announce("c", 4, 1, &[]), later), Ok(Answer::Accepted));
}

/// Any message of few replicas, epochs and numbers, so that they meet.
#[derive(Clone, Debug)]
enum Message {
    Announce(u8, u64, u64, Vec<u8>),
    Heartbeat(u8, u64, u64, u64, usize),
    Leave(u8, u64),
    Eject(u8),
    Probe(bool),
    Wait(u64),
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let small = 0..4_u64;
    let one = prop_oneof![
        (0..3_u8, small.clone(), 0..20_u64, prop::collection::vec(0..4_u8, 0..4))
            .prop_map(|(id, epoch, seq, offers)| Message::Announce(id, epoch, seq, offers)),
        (0..3_u8, small.clone(), 0..20_u64, 0..20_u64, 0..4_usize)
            .prop_map(|(id, epoch, seq, announced, loads)| Message::Heartbeat(id, epoch, seq, announced, loads)),
        (0..3_u8, small).prop_map(|(id, epoch)| Message::Leave(id, epoch)),
        (0..3_u8).prop_map(Message::Eject),
        any::<bool>().prop_map(Message::Probe),
        (0..3_000_u64).prop_map(Message::Wait),
    ];
    prop::collection::vec(one, 0..60)
}

fn say(registry: &mut Registry, message: &Message, now: Instant) {
    let name = |id: &u8| format!("r{id}");
    match message {
        Message::Announce(id, epoch, seq, offers) => {
            let offers: Vec<_> = offers.iter().map(|kind| format!("type=t{kind}")).collect();
            let offers: Vec<_> = offers.iter().map(String::as_str).collect();
            let rule = format!("type=t9 -> type=t{}", seq % 4);
            let upgrades = rules(&[rule.as_str()][..usize::from(!seq.is_multiple_of(3))]);
            registry.announce(&Announce { upgrades, ..announce(&name(id), *epoch, *seq, &offers) }, now).unwrap();
        }
        Message::Heartbeat(id, epoch, seq, announced, loads) => {
            let loads = vec![Load { ready: seq % 2 == 0, saturated: seq % 3 == 0, ..Load::default() }; *loads];
            let (id, epoch, seq, announced, draining) = (name(id), *epoch, *seq, *announced, seq % 5 == 0);
            drop(registry.heartbeat(&Heartbeat { id, epoch, seq, announced, draining, loads }, now));
        }
        Message::Leave(id, epoch) => _ = registry.leave(&name(id), *epoch, now),
        Message::Eject(id) => {
            if let Some(view) = registry.view(&name(id)) {
                registry.eject(view.handle, now);
            }
        }
        Message::Probe(good) => {
            registry.probes(MANY, now).iter().for_each(|probe| registry.probed(probe.handle, *good, now));
        }
        Message::Wait(_) => {}
    }
}

proptest! {
    #[test]
    fn epochs_only_rise_leases_bound_everybody_and_nothing_panics_in_any_order(messages in messages()) {
        let (mut registry, mut now) = (registry(), Instant::now());
        let mut newest = [0; 3];
        for message in &messages {
            if let Message::Wait(millis) = message {
                now += Duration::from_millis(*millis);
            }
            say(&mut registry, message, now);
            registry.expire(now);
            for (id, newest) in newest.iter_mut().enumerate() {
                let Some(view) = registry.view(&format!("r{id}")) else { continue };
                prop_assert!(view.epoch >= *newest && view.lease_until > now && view.lease_until <= now + LEASE);
                *newest = view.epoch;
            }
            for kind in [0, 1, 2, 3, 9] {
                first(&mut registry, &format!("type=t{kind}"), &LeastWait, now);
            }
        }
    }
}
