//! The object table: every state with every event, and random lives against a plain model.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

#[path = "table/events.rs"]
mod events;
#[path = "table/model.rs"]
mod model;
#[path = "table/world.rs"]
mod world;

use std::time::{Duration, Instant};

use anyserve_shm::{Lease, Pins, Table, TableError, Writer};
use events::{STATES, after_every_event};
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use world::{World, op};

proptest! {
    // In a build without optimization the usual generator takes more time than all the rest.
    #![proptest_config(ProptestConfig {
        cases: 2500,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_is_what_a_plain_model_says(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for (step, op) in ops.iter().enumerate() {
            world.apply(op);
            world.check();
            if step % 10 == 9 {
                world.check_all();
            }
        }
        world.check_all();
        world.end();
    }
}

/// Rows are states, columns events, in the order of [`events::EVENTS`]: `yes`, `no` or an error, then the state after it;
/// only the state where it does not change.
#[test]
fn every_event_in_every_state_does_what_is_written_here() {
    let expected = [
        "nothing:   seal gone, adopt gone, discard -, hold gone, unhold -, lease no, delete no, expire -, evict no, \
         sweep -, writer_gone -, containing no",
        "granted:   seal yes>object, adopt yes>tensor, discard ->nothing, hold gone, unhold -, lease no, delete no, \
         expire -, evict no, sweep -, writer_gone ->nothing, containing no",
        "object:    seal not yours, adopt not yours, discard -, hold yes, unhold -, lease yes, delete yes>withdrawn, \
         expire ->withdrawn, evict no, sweep -, writer_gone -, containing yes",
        "cacheable: seal not yours, adopt not yours, discard -, hold yes, unhold -, lease yes, delete yes>withdrawn, \
         expire ->withdrawn, evict yes>withdrawn, sweep -, writer_gone -, containing yes",
        "tensor:    seal not yours, adopt not yours, discard -, hold yes, unhold ->withdrawn, lease no, delete no, \
         expire -, evict no, sweep -, writer_gone -, containing yes",
        "withdrawn: seal not yours, adopt not yours, discard -, hold gone, unhold -, lease no, delete no, expire -, \
         evict no, sweep ->nothing, writer_gone -, containing no",
        "held:      seal not yours, adopt not yours, discard -, hold gone, unhold -, lease no, delete no, expire -, \
         evict no, sweep -, writer_gone -, containing yes",
        "stale:     seal gone, adopt gone, discard -, hold gone, unhold -, lease no, delete no, expire -, evict no, \
         sweep -, writer_gone ->nothing, containing no",
    ];
    let found = STATES.map(after_every_event);
    for (found, expected) in found.iter().zip(expected) {
        let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(*found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

struct Nobody;

impl Pins for Nobody {
    fn is_pinned(&self, _: u32) -> bool {
        false
    }

    fn last_used(&self, _: u32) -> Option<u32> {
        None
    }
}

#[test]
fn a_full_table_says_what_is_free_and_in_one_piece() {
    let mut table = Table::new(640, 8, Instant::now());
    let blocks: Vec<_> = (1..=10).map_while(|generation| table.grant(64, Writer::Runtime, generation).ok()).collect();
    assert_eq!(blocks.len(), 8, "as many places as there are");
    assert_eq!(table.grant(64, Writer::Runtime, 11), Err(TableError::Crowded { max: 8 }));
    table.discard(blocks[2].block, Writer::Runtime);
    table.discard(blocks[5].block, Writer::Runtime);
    let full = TableError::Full { len: 129, free: 256, longest: 128, capacity: 640 };
    assert_eq!(table.grant(129, Writer::Runtime, 12), Err(full.clone()));
    assert!(full.to_string().contains("no room for 129 bytes: 256 of 640 are free, 128 in one piece"), "{full}");
    assert_eq!(table.grant(128, Writer::Runtime, 13).unwrap().start, 512);
}

#[test]
fn ingress_has_half_of_the_arena_and_counts_what_blocks_take() {
    let mut table = Table::new(1280, 64, Instant::now());
    let taken: Vec<_> = (1..=20).map_while(|generation| table.grant(1, Writer::Ingress, generation).ok()).collect();
    assert_eq!((taken.len(), table.usage().used), (10, 640));
    assert!(table.grant(1, Writer::Runtime, 30).is_ok(), "others have the rest");
    table.discard(taken[0].block, Writer::Ingress);
    assert!(table.grant(65, Writer::Ingress, 31).is_err());
    assert!(table.grant(64, Writer::Ingress, 32).is_ok());
}

#[test]
fn an_older_object_under_a_key_may_be_evicted_and_is_never_found_by_it_again() {
    let now = Instant::now();
    let mut table = Table::new(1 << 20, 8, now);
    let put = |table: &mut Table, generation| {
        let block = table.grant(64, Writer::Runtime, generation).unwrap().block;
        let lease = Lease { key: Some("weights".to_owned()), ..Lease::default() };
        table.seal(block, Writer::Runtime, 64, lease, now).unwrap();
        block
    };
    let (older, newer) = (put(&mut table, 1), put(&mut table, 2));
    assert_eq!(table.lookup("weights", now), Some(newer));
    assert!(table.lease(older, now).is_some(), "who has the reference still reads it");
    assert!(table.delete(newer) && table.lookup("weights", now).is_none());
    assert!(table.evict(&Nobody) && !table.evict(&Nobody));
}

/// A worker whose pins say that it uses everything at this very moment, each time they are looked at.
struct Liar(std::cell::Cell<u32>);

impl Pins for Liar {
    fn is_pinned(&self, _: u32) -> bool {
        false
    }

    fn last_used(&self, _: u32) -> Option<u32> {
        self.0.set(self.0.get().saturating_add(1));
        assert!(self.0.get() < 100, "eviction looks at its objects again and again");
        Some(self.0.get())
    }
}

#[test]
fn a_worker_that_lies_about_its_uses_does_not_keep_eviction_busy() {
    let now = Instant::now();
    let mut table = Table::new(1 << 20, 8, now);
    for generation in 1..=3 {
        let block = table.grant(64, Writer::Runtime, generation).unwrap().block;
        table.seal(block, Writer::Runtime, 64, Lease { cacheable: true, ..Lease::default() }, now).unwrap();
    }
    assert!(table.evict(&Liar(1.into())));
}

#[test]
fn a_lease_ends_at_its_instant_and_not_before() {
    let now = Instant::now();
    let mut table = Table::new(1 << 20, 8, now);
    let block = table.grant(64, Writer::Runtime, 1).unwrap().block;
    let ttl = Duration::from_millis(10);
    table.seal(block, Writer::Runtime, 64, Lease { ttl, ..Lease::default() }, now).unwrap();
    let before = now + Duration::from_nanos(9_999_999);
    assert!(table.lease(block, before).is_some() && table.hold(block, before).is_ok());
    table.unhold(block);
    assert!(table.lease(block, now + ttl).is_none() && table.hold(block, now + ttl) == Err(TableError::Gone));
    assert_eq!(table.expire(before), Some(now + ttl));
    assert_eq!((table.expire(now + ttl), table.usage().withdrawn), (None, 1));
}
