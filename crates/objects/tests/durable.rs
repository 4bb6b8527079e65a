//! Objects that outlive the replica that made them.

mod support;

use std::time::Duration;

use anyserve_core::{Code, FarObjects, Lease, LocalObjects};
use anyserve_objects::Spill;
use anyserve_testkit::Shelf;
use support::{Scripted, chunks, far, fetch, objref, watchdog};

fn durable() -> Lease {
    Lease { ttl: Duration::from_mins(1), durable: true, ..Lease::default() }
}

#[tokio::test]
async fn a_durable_object_is_read_by_the_next_replica_by_reference_and_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Spill::open(dir.path().to_str().unwrap()).unwrap();
    let (first, second) = (Shelf::new(1, 100), Shelf::new(2, 100));
    let made = first.put(b"state", durable()).unwrap();
    let before = far(&first, &[], Some(&open()));
    watchdog(before.keep(made, Some("key".into()))).await.unwrap();
    drop((before, first));
    let after = far(&second, &[], Some(&open()));
    assert_eq!(watchdog(after.lookup("key".into(), None)).await, Ok(Some(made)));
    let copy = watchdog(after.fetch(made, None)).await.unwrap();
    assert_eq!(second.object(copy).unwrap().bytes.as_ref(), b"state");
    assert_eq!(watchdog(after.fetch(made, None)).await, Ok(copy), "the copy is remembered");
    assert_eq!(watchdog(after.delete(made)).await, Ok(true));
    assert_eq!(watchdog(after.lookup("key".into(), None)).await, Ok(None));
    assert_eq!(watchdog(after.fetch(made, None)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn an_object_of_ones_own_that_was_evicted_comes_back_from_the_store() {
    let spill = Spill::open("memory:///").unwrap();
    let shelf = Shelf::new(1, 100);
    let far = far(&shelf, &[], Some(&spill));
    let own = shelf.put(b"own", durable()).unwrap();
    watchdog(far.keep(own, None)).await.unwrap();
    shelf.evict(own);
    let copy = watchdog(far.fetch(own, None)).await.unwrap();
    assert_ne!(copy, own);
    assert_eq!(shelf.object(copy).unwrap().bytes.as_ref(), b"own");
}

#[tokio::test]
async fn the_store_is_asked_where_the_peers_have_nothing_and_not_before() {
    let spill = Spill::open("memory:///").unwrap();
    let shelf = Shelf::new(1, 100);
    let peer = Scripted::start(|| Ok(chunks(b"theirs", 6))).await;
    let held = anyserve_core::HeldObject { bytes: "kept".into(), lease: durable() };
    spill.keep(objref(), held, None).await.unwrap();
    let far = far(&shelf, &[peer.address], Some(&spill));
    let copy = fetch(&far).await.unwrap();
    assert_eq!(shelf.object(copy).unwrap().bytes.as_ref(), b"theirs");
    shelf.evict(copy);
    drop(peer);
    let copy = fetch(&far).await.unwrap();
    assert_eq!(shelf.object(copy).unwrap().bytes.as_ref(), b"kept");
}

#[tokio::test]
async fn without_a_store_nothing_is_kept_and_nothing_is_found() {
    let shelf = Shelf::new(1, 100);
    let far = far(&shelf, &[], None);
    let own = shelf.put(b"own", durable()).unwrap();
    let error = watchdog(far.keep(own, None)).await.unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.message.contains("--object-spill"), "{error}");
    assert_eq!(watchdog(far.lookup("key".into(), None)).await, Ok(None));
    assert_eq!(watchdog(far.delete(own)).await, Ok(false));
}

#[tokio::test]
async fn what_is_gone_cannot_be_kept() {
    let far = far(&Shelf::new(1, 100), &[], Some(&Spill::open("memory:///").unwrap()));
    assert_eq!(watchdog(far.keep(objref(), None)).await.unwrap_err().code, Code::NotFound);
}
