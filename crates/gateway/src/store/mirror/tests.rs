//! One mirror at a time, step by step. Several of them with a store that fails: [`super::simulation`].

use super::*;
use anyserve_cluster::{Announce, Heartbeat, Load, Offer};
use anyserve_core::{Capability, Upgrades, Value};

const SECOND: Duration = Duration::from_secs(1);

pub(super) const CONFIG: MirrorConfig = MirrorConfig {
    lease: Duration::from_secs(5),
    pace: SECOND,
    first_back_off: Duration::from_millis(200),
    longest_back_off: Duration::from_secs(5),
    hold: Duration::from_mins(10),
    max_writes: 4,
    max_seen: 100,
};

pub(super) fn announce(id: &str, epoch: u64, seq: u64) -> Announce {
    let capability = Capability::try_new([("type".to_owned(), Value::Text("x".into()))]).unwrap();
    let load = Load { ready: true, ..Load::default() };
    let offers = vec![Offer { capability, idempotent: false, slots: 1, load }];
    let (endpoint, upgrades) = (format!("http://{id}:1"), Upgrades::default());
    Announce { id: id.into(), epoch, seq, endpoint, draining: false, offers, upgrades }
}

pub(super) fn beat(id: &str, epoch: u64, seq: u64, announced: u64, pending: u32) -> Heartbeat {
    let loads = vec![Load { ready: true, pending, ..Load::default() }];
    Heartbeat { id: id.into(), epoch, seq, announced, draining: false, loads }
}

fn entry(id: &str, epoch: u64, seq: u64) -> Arc<Entry> {
    Arc::new(Entry::new(announce(id, epoch, seq)))
}

fn put(id: &str, entry: &Arc<Entry>) -> Change {
    Change::Put(id.into(), Arc::clone(entry))
}

/// A mirror that watches a store with these entries, at revision 10.
fn watching(entries: Vec<(Id, Arc<Entry>)>, now: Instant) -> (Mirror, Vec<Action>) {
    let mut mirror = Mirror::new(CONFIG, now);
    assert_eq!(mirror.tick(now), [Action::Connect]);
    assert_eq!(mirror.on(Event::Connected, now), [Action::List]);
    let actions = mirror.on(Event::Listed { revision: 10, entries }, now);
    assert!(mirror.is_connected() && actions.last() == Some(&Action::Watch { from: 11 }));
    (mirror, actions)
}

/// The writes among actions, as id and lease.
fn writes(actions: &[Action]) -> Vec<(&str, Option<LeaseId>)> {
    let write = |action| if let &Action::Write { ref id, lease, .. } = action { Some((&**id, lease)) } else { None };
    actions.iter().filter_map(write).collect()
}

fn renewed(actions: &[Action]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(|action| if let Action::Renew(entry) = action { Some(entry.id()) } else { None })
        .collect()
}

#[test]
fn what_is_heard_is_written_at_once_and_loads_once_a_second() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.tick(now);
    assert_eq!(mirror.heard(Said::Announced(&announce("a", 1, 1)), now), Noted::ForNow);
    assert_eq!(writes(&mirror.tick(now)), [("a", None)]);
    mirror.on(Event::Written { id: "a".into(), lease: 7 }, now);
    for seq in 2..9 {
        let said = beat("a", 1, seq, 1, u32::try_from(seq).unwrap());
        assert_eq!(mirror.heard(Said::Beat(&said), now), Noted::ForLater);
        assert_eq!(writes(&mirror.tick(now + SECOND / 2)), []);
    }
    assert_eq!(writes(&mirror.tick(now + SECOND)), [("a", Some(7))]);
    mirror.on(Event::Written { id: "a".into(), lease: 7 }, now + SECOND);
    mirror.heard(Said::Beat(&beat("a", 1, 9, 1, 8)), now + SECOND);
    assert_eq!(writes(&mirror.tick(now + 9 * SECOND / 4)), [], "it says nothing new");
}

#[test]
fn one_write_is_under_way_for_a_replica_and_so_many_for_all() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    for number in 0..6 {
        mirror.heard(Said::Announced(&announce(&format!("r{number}"), 1, 1)), now);
        mirror.heard(Said::Announced(&announce(&format!("r{number}"), 1, 2)), now);
    }
    assert_eq!(writes(&mirror.tick(now)).len(), 4);
    assert_eq!(writes(&mirror.tick(now)), []);
    mirror.on(Event::Written { id: "r0".into(), lease: 1 }, now);
    assert_eq!(writes(&mirror.tick(now)), [("r4", None)]);
}

#[test]
fn leases_are_kept_for_those_that_are_heard_and_for_no_others() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    for (id, lease) in [("a", 1), ("b", 2)] {
        mirror.heard(Said::Announced(&announce(id, 1, 1)), now);
        mirror.tick(now);
        mirror.on(Event::Written { id: id.into(), lease }, now);
    }
    let kept = |mirror: &mut Mirror, now| {
        let kept = mirror.tick(now).into_iter().find_map(|action| match action {
            Action::KeepAlive(mut leases) => {
                leases.sort_unstable();
                Some(leases)
            }
            _ => None,
        });
        mirror.on(Event::KeptAlive { gone: vec![] }, now);
        mirror.on(Event::Ponged, now);
        kept
    };
    let later = |seconds: u32| now + seconds * SECOND;
    assert_eq!(kept(&mut mirror, later(2)), Some(vec![1, 2]), "both were heard when they announced themselves");
    mirror.heard(Said::Beat(&beat("a", 1, 2, 1, 0)), later(3));
    assert_eq!(kept(&mut mirror, later(4)), Some(vec![1]));
    assert_eq!(kept(&mut mirror, later(6)), None);
}

#[test]
fn a_write_keeps_no_lease() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.heard(Said::Announced(&announce("a", 1, 1)), now);
    mirror.tick(now);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    let mut kept = 0;
    for second in 1..=10 {
        let now = now + second * SECOND;
        mirror.heard(Said::Beat(&beat("a", 1, 1 + u64::from(second), 1, second)), now);
        let actions = mirror.tick(now);
        assert_eq!(writes(&actions), [("a", Some(1))]);
        mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
        kept += actions.iter().filter(|action| matches!(action, Action::KeepAlive(_))).count();
        mirror.on(Event::KeptAlive { gone: vec![] }, now);
    }
    assert_eq!(kept, 5);
}

#[test]
fn a_lease_or_a_key_that_is_gone_is_written_anew_once_the_replica_is_heard_again() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.heard(Said::Announced(&announce("a", 1, 1)), now);
    mirror.tick(now);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    mirror.on(Event::KeptAlive { gone: vec![1, 9] }, now);
    let later = |seconds: u32| now + seconds * SECOND;
    assert_eq!(writes(&mirror.tick(later(1))), [], "others may hear it");
    mirror.heard(Said::Beat(&beat("a", 1, 2, 1, 0)), later(1));
    assert_eq!(writes(&mirror.tick(later(1))), [("a", None)]);
    mirror.on(Event::Expired { id: "a".into() }, later(1));
    assert_eq!(writes(&mirror.tick(later(2))), [("a", None)]);
    // It goes while it is written: whether the write was before or after, nobody knows.
    mirror.on(Event::Watched(vec![Change::Gone("a".into())]), later(2));
    mirror.on(Event::Written { id: "a".into(), lease: 2 }, later(2));
    mirror.heard(Said::Beat(&beat("a", 1, 3, 1, 0)), later(2));
    assert_eq!(writes(&mirror.tick(later(3))), [("a", Some(2))]);
}

#[test]
fn what_others_hear_is_taken_over_and_renewed_while_its_key_is_there() {
    let now = Instant::now();
    let (mut mirror, actions) = watching(vec![("a".into(), entry("a", 1, 1))], now);
    assert_eq!(actions[0], Action::Adopt(entry("a", 1, 1)));
    let newer = entry("b", 1, 5);
    assert_eq!(mirror.on(Event::Watched(vec![put("b", &newer)]), now), [Action::Adopt(newer)]);
    let actions = mirror.tick(now + SECOND);
    let mut ids = renewed(&actions);
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(mirror.on(Event::Watched(vec![Change::Gone("a".into())]), now), [], "its lease here ends it");
    assert_eq!(renewed(&mirror.tick(now + 2 * SECOND)), ["b"]);
}

#[test]
fn ones_own_is_believed_and_nobody_else_but_for_a_later_start_and_a_leave() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.heard(Said::Announced(&announce("a", 2, 1)), now);
    mirror.tick(now);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    assert_eq!(mirror.on(Event::Watched(vec![put("a", &entry("a", 2, 9))]), now), []);
    assert_eq!(renewed(&mirror.tick(now + SECOND)), [""; 0]);
    // An earlier start is written over again.
    assert_eq!(mirror.on(Event::Watched(vec![put("a", &entry("a", 1, 9))]), now), []);
    mirror.heard(Said::Beat(&beat("a", 2, 2, 1, 0)), now);
    assert_eq!(writes(&mirror.tick(now + SECOND)), [("a", Some(1))]);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    let later = entry("a", 3, 1);
    assert_eq!(mirror.on(Event::Watched(vec![put("a", &later)]), now), [Action::Adopt(Arc::clone(&later))]);
    let left = Arc::new(later.leaving());
    assert_eq!(mirror.on(Event::Watched(vec![put("a", &left)]), now), [Action::Leave { id: "a".into(), epoch: 3 }]);
    assert_eq!(renewed(&mirror.tick(now + 2 * SECOND)), [""; 0]);
}

#[test]
fn a_replica_that_goes_is_told_and_its_key_is_taken_away() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![("b".into(), entry("b", 4, 1))], now);
    mirror.heard(Said::Announced(&announce("a", 1, 1)), now);
    mirror.tick(now);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    assert_eq!(mirror.heard(Said::Left { id: "a", epoch: 1 }, now), Noted::ForNow);
    assert_eq!(mirror.heard(Said::Left { id: "b", epoch: 4 }, now), Noted::ForNow, "one that others hear");
    assert_eq!(mirror.heard(Said::Left { id: "nobody", epoch: 4 }, now), Noted::ForLater);
    let removed: Vec<_> =
        mirror.tick(now).into_iter().filter(|action| matches!(action, Action::Remove { .. })).collect();
    assert_eq!(removed.len(), 2, "without waiting for its turn");
    mirror.on(Event::Removed { id: "a".into() }, now);
    mirror.on(Event::Watched(vec![Change::Gone("a".into())]), now);
    assert_eq!(writes(&mirror.tick(now + SECOND)), []);
    assert_eq!(mirror.own.len(), 1);
}

#[test]
fn who_moves_here_from_another_server_is_written_from_here() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![("a".into(), entry("a", 1, 1))], now);
    mirror.tick(now);
    assert_eq!(mirror.heard(Said::Beat(&beat("a", 1, 2, 1, 0)), now), Noted::ForNow);
    assert_eq!(mirror.heard(Said::Beat(&beat("b", 1, 2, 1, 0)), now), Noted::Unknown, "it is to announce itself");
    let actions = mirror.tick(now + SECOND);
    assert_eq!((writes(&actions), renewed(&actions)), (vec![("a", None)], vec![]));
}

#[test]
fn a_silent_replica_is_forgotten_unless_others_hear_it() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    for id in ["a", "b"] {
        mirror.heard(Said::Announced(&announce(id, 1, 1)), now);
        mirror.tick(now);
        mirror.on(Event::Written { id: id.into(), lease: 1 }, now);
        mirror.on(Event::Watched(vec![put(id, &entry(id, 1, 1))]), now);
    }
    let busier = Arc::new(Entry::new(announce("b", 1, 1)).with_beat(&beat("b", 1, 9, 1, 3)).unwrap());
    mirror.on(Event::Watched(vec![put("b", &busier)]), now);
    assert_eq!(renewed(&mirror.tick(now + 4 * SECOND)), [""; 0]);
    assert_eq!(renewed(&mirror.tick(now + 5 * SECOND)), ["b"]);
    assert!(mirror.own.is_empty());
}

#[test]
fn a_break_is_tried_again_later_and_later_and_everything_is_read_again() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![("a".into(), entry("a", 1, 1))], now);
    mirror.tick(now);
    let mut at = now;
    for expected in [200, 400, 800, 1600, 3200, 5000, 5000] {
        assert_eq!(mirror.on(Event::Broken, at), [Action::Disconnect]);
        assert!(!mirror.is_connected());
        let just_before = at + Duration::from_millis(expected - 1);
        assert!(!mirror.tick(just_before).contains(&Action::Connect), "{expected}");
        at += Duration::from_millis(expected);
        let actions = mirror.tick(at);
        assert!(actions.contains(&Action::Connect), "{expected}");
    }
    assert_eq!(mirror.on(Event::Connected, at), [Action::List]);
    let listed = Event::Listed { revision: 20, entries: vec![] };
    assert_eq!(mirror.on(listed, at), [Action::Watch { from: 21 }]);
    assert_eq!(renewed(&mirror.tick(at + SECOND)), [""; 0], "it was not in the list");
    assert_eq!(mirror.on(Event::Compacted, at), [Action::List]);
}

/// Lets a mirror whose time has come connect, list and watch.
fn watches_again(mirror: &mut Mirror, now: Instant) {
    assert!(mirror.tick(now).contains(&Action::Connect));
    assert_eq!(mirror.on(Event::Connected, now), [Action::List]);
    mirror.on(Event::Listed { revision: 10, entries: vec![] }, now);
    assert!(mirror.is_connected());
}

/// A store that ends each watch like this as soon as it has begun, and is tried again after such times, in milliseconds.
fn is_tried_again(mirror: &mut Mirror, mut at: Instant, event: &Event, times: &[u64]) -> Instant {
    for expected in times {
        assert_eq!(mirror.on(event.clone(), at), [Action::Disconnect]);
        let just_before = at + Duration::from_millis(expected - 1);
        assert!(!mirror.tick(just_before).contains(&Action::Connect), "{expected}");
        at += Duration::from_millis(*expected);
        watches_again(mirror, at);
        assert!(!mirror.is_settled(at));
    }
    at
}

#[test]
fn a_store_that_goes_as_soon_as_it_is_there_is_tried_later_and_later_until_it_stays() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    let at = is_tried_again(&mut mirror, now, &Event::Broken, &[200, 400, 800, 1600, 3200, 5000, 5000]);
    let just_before = at + CONFIG.longest_back_off.checked_sub(Duration::from_millis(1)).unwrap();
    let settled = at + CONFIG.longest_back_off;
    assert!(!mirror.is_settled(just_before) && mirror.is_settled(settled));
    is_tried_again(&mut mirror, settled, &Event::Broken, &[200, 400]);
}

#[test]
fn a_store_that_compacts_whatever_it_lists_is_read_again_once_and_then_later_and_later() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    assert_eq!(mirror.on(Event::Compacted, now), [Action::List], "what was missed is read at once");
    mirror.on(Event::Listed { revision: 10, entries: vec![] }, now);
    let at = is_tried_again(&mut mirror, now, &Event::Compacted, &[200, 400, 800, 1600, 3200]);
    assert_eq!(
        mirror.on(Event::Compacted, at + CONFIG.longest_back_off),
        [Action::List],
        "it has been good for a while"
    );
}

#[test]
fn after_the_last_revision_there_can_be_comes_no_other() {
    let now = Instant::now();
    for (revision, from) in [(i64::MAX - 1, i64::MAX), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN + 1)] {
        let mut mirror = Mirror::new(CONFIG, now);
        mirror.tick(now);
        mirror.on(Event::Connected, now);
        assert_eq!(mirror.on(Event::Listed { revision, entries: vec![] }, now), [Action::Watch { from }]);
    }
}

#[test]
fn what_was_seen_is_held_while_the_store_is_away_but_not_for_ever() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![("a".into(), entry("a", 1, 1))], now);
    mirror.on(Event::Broken, now);
    let end = now + CONFIG.hold;
    assert_eq!(renewed(&mirror.tick(end.checked_sub(Duration::from_millis(1)).unwrap())), ["a"]);
    assert_eq!(renewed(&mirror.tick(end + SECOND)), [""; 0]);
}

#[test]
fn what_a_store_that_lost_its_data_does_not_have_is_written_anew() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.heard(Said::Announced(&announce("a", 1, 1)), now);
    mirror.tick(now);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    mirror.on(Event::Broken, now);
    mirror.tick(now + SECOND);
    mirror.on(Event::Connected, now + SECOND);
    mirror.on(Event::Listed { revision: 1, entries: vec![] }, now + SECOND);
    mirror.heard(Said::Beat(&beat("a", 1, 2, 1, 0)), now + SECOND);
    assert_eq!(writes(&mirror.tick(now + SECOND)), [("a", None)]);
}

#[test]
fn what_the_store_refuses_is_not_tried_again_before_it_is_said_anew() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.heard(Said::Announced(&announce("a", 1, 1)), now);
    mirror.tick(now);
    mirror.on(Event::Refused { id: "a".into() }, now);
    assert_eq!(writes(&mirror.tick(now + 2 * SECOND)), []);
    mirror.heard(Said::Announced(&announce("a", 1, 2)), now + 3 * SECOND);
    assert_eq!(writes(&mirror.tick(now + 3 * SECOND)), [("a", None)]);
}

#[test]
fn no_more_replicas_are_noted_than_there_is_room_for() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    let ids: Vec<_> = (0..=CONFIG.max_seen).map(|number| format!("r{number}")).collect();
    let changes = ids.iter().map(|id| put(id, &entry(id, 1, 1))).collect();
    assert_eq!(mirror.on(Event::Watched(changes), now).len(), CONFIG.max_seen);
    let noted =
        ids.iter().filter(|id| mirror.heard(Said::Announced(&announce(id, 1, 1)), now) == Noted::ForNow).count();
    assert_eq!((noted, mirror.seen.len(), mirror.waiting.len()), (100, 100, 100));
}

#[test]
fn a_write_ends_while_everything_is_read_again() {
    let now = Instant::now();
    let (mut mirror, _) = watching(vec![], now);
    mirror.heard(Said::Announced(&announce("a", 1, 1)), now);
    mirror.tick(now);
    assert_eq!(mirror.on(Event::Compacted, now), [Action::List]);
    mirror.on(Event::Written { id: "a".into(), lease: 1 }, now);
    mirror.on(Event::Listed { revision: 20, entries: vec![] }, now);
    mirror.heard(Said::Beat(&beat("a", 1, 2, 1, 0)), now);
    assert_eq!(writes(&mirror.tick(now + SECOND)), [("a", None)], "it was not in the list");
}

#[test]
fn an_event_that_is_late_changes_nothing() {
    let now = Instant::now();
    let mut mirror = Mirror::new(CONFIG, now);
    for event in [
        Event::Connected,
        Event::Listed { revision: 3, entries: vec![("a".into(), entry("a", 1, 1))] },
        Event::Watched(vec![put("a", &entry("a", 1, 1))]),
        Event::Compacted,
        Event::Written { id: "a".into(), lease: 1 },
        Event::Ponged,
        Event::KeptAlive { gone: vec![1] },
    ] {
        assert_eq!(mirror.on(event, now), []);
        assert_eq!((mirror.link, mirror.seen.len()), (Link::Down { until: now }, 0));
    }
}
