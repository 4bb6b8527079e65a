//! Pulling from peers that keep to the protocol, and from those that don't.

#![allow(clippy::unwrap_used)] // A test that cannot be set up fails here, by its line.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, FarObjects, Lease, LocalObjects, StoreId};
use anyserve_proto::v1::PullChunk;
use anyserve_testkit::Shelf;
use support::{Scripted, THERE, chunk, chunks, far, fetch, objref, until, watchdog};
use tokio::net::TcpListener;
use tonic::Status;
use tonic::metadata::MetadataMap;

const CAPACITY: usize = 1000;

/// A way to break the protocol.
type Change = fn(&mut Vec<PullChunk>);

fn shelf() -> Shelf {
    Shelf::new(1, CAPACITY)
}

fn named(code: Code, message: &str, store: Option<&str>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-anyserve-code", code.name().parse().unwrap());
    if let Some(store) = store {
        metadata.insert("x-anyserve-store", store.parse().unwrap());
    }
    Status::with_metadata(tonic::Code::from_i32(code.grpc()), message, metadata)
}

/// An address that nobody listens on: its port was free a moment ago.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Chunks of twelve bytes in three, with one thing changed.
fn changed(change: impl FnOnce(&mut Vec<PullChunk>)) -> Vec<PullChunk> {
    let mut sent = chunks(b"twelve bytes", 4);
    change(&mut sent);
    sent
}

#[tokio::test]
async fn an_object_is_pulled_once_and_then_looked_up_until_its_copy_is_evicted() {
    let peer = Scripted::start(|| Ok(chunks(b"twelve bytes", 5))).await;
    let (shelf, there) = (shelf(), [nobody().await, peer.address]);
    let far = far(&shelf, &there, None);
    let copy = fetch(&far).await.unwrap();
    let held = shelf.object(copy).unwrap();
    assert_eq!((copy.store, held.bytes.as_ref()), (StoreId(1), &b"twelve bytes"[..]));
    assert!(held.lease.cacheable && held.lease.ttl <= Duration::from_mins(1) && !held.lease.ttl.is_zero());
    assert_eq!(fetch(&far).await, Ok(copy));
    assert_eq!((peer.pulls(), peer.asks()), (1, 1));
    shelf.evict(copy);
    assert_ne!(fetch(&far).await.unwrap(), copy);
    assert_eq!((peer.pulls(), peer.asks(), shelf.used()), (2, 1, 12));
}

#[tokio::test]
async fn what_is_here_is_not_looked_for_and_what_was_here_is_gone() {
    let peer = Scripted::start(|| Ok(chunks(b"x", 1))).await;
    let shelf = shelf();
    let far = far(&shelf, &[peer.address], None);
    let own = shelf.put(b"own", Lease::default()).unwrap();
    assert_eq!(watchdog(far.fetch(own, None)).await, Ok(own));
    shelf.evict(own);
    let error = watchdog(far.fetch(own, None)).await.unwrap_err();
    assert_eq!((error.code, peer.asks(), peer.pulls()), (Code::NotFound, 0, 0));
}

#[tokio::test]
async fn a_hundred_who_wait_for_one_object_make_one_pull() {
    let peer = Scripted::start_gated(1, || Ok(chunks(b"twelve bytes", 4))).await;
    let shelf = shelf();
    let far = far(&shelf, &[peer.address], None);
    let waiters = (0..100).map(|_| far.fetch(objref(), None));
    let all = tokio::spawn(futures_util::future::join_all(waiters));
    until(|| shelf.used() == 12).await;
    peer.seen.gate.add_permits(100);
    let copies = watchdog(all).await.unwrap();
    let first = copies[0].clone().unwrap();
    assert!(copies.iter().all(|copy| *copy == Ok(first)));
    assert_eq!((peer.pulls(), shelf.rooms()), (1, 1));
}

#[tokio::test]
async fn the_last_who_leaves_ends_the_pull_and_gives_the_room_back() {
    let peer = Scripted::start_gated(1, || Ok(chunks(b"twelve bytes", 4))).await;
    let shelf = shelf();
    let far = far(&shelf, &[peer.address], None);
    let [one, other] = [far.fetch(objref(), None), far.fetch(objref(), None)].map(tokio::spawn);
    until(|| shelf.used() == 12 && peer.open() == 1).await;
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    assert_eq!((shelf.used(), peer.open()), (12, 1), "another still waits");
    other.abort();
    assert!(other.await.unwrap_err().is_cancelled());
    assert_eq!(shelf.used(), 0);
    until(|| peer.open() == 0).await;
    peer.seen.gate.add_permits(100);
    assert!(fetch(&far).await.is_ok());
}

#[tokio::test]
async fn a_deadline_ends_the_wait_of_who_has_it_and_of_nobody_else() {
    let peer = Scripted::start_gated(1, || Ok(chunks(b"twelve bytes", 4))).await;
    let shelf = shelf();
    let far = far(&shelf, &[peer.address], None);
    let patient = tokio::spawn(far.fetch(objref(), None));
    until(|| shelf.used() == 12).await;
    let error = watchdog(far.fetch(objref(), Some(Instant::now()))).await.unwrap_err();
    let message = format!("the deadline passed before {} was here", objref());
    assert_eq!(error, Error::new(Code::Deadline, message));
    assert_eq!((shelf.used(), peer.pulls()), (12, 1));
    peer.seen.gate.add_permits(100);
    assert!(watchdog(patient).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_deadline_during_the_pull_gives_the_room_back() {
    let peer = Scripted::start_gated(1, || Ok(chunks(b"twelve bytes", 4))).await;
    let shelf = shelf();
    let far = far(&shelf, &[peer.address], None);
    // Warm: the store is known, and the connection there, so that the deadline passes where it is to.
    peer.seen.gate.add_permits(2);
    shelf.evict(fetch(&far).await.unwrap());
    peer.seen.gate.add_permits(1);
    let error = watchdog(far.fetch(objref(), Some(Instant::now() + Duration::from_millis(200)))).await.unwrap_err();
    assert_eq!((error.code, shelf.used()), (Code::Deadline, 0));
    until(|| peer.open() == 0).await;
}

#[tokio::test]
async fn a_chunk_that_is_not_what_it_should_be_is_refused_and_the_room_given_back() {
    let cases: [(Change, &str); 10] = [
        (|sent| sent[0].head = None, "the first chunk does not say how long the object is"),
        (|sent| sent[1].head = sent[0].head, "a chunk that is not the first begins an object of 12 bytes"),
        (|sent| sent[1].checksum ^= 1, "chunk at byte 4 has the checksum"),
        (|sent| sent[1].data = b"v".repeat(4).into(), "chunk at byte 4 has the checksum"),
        (|sent| sent[2].whole = Some(0), "the object has the checksum 0000000000000000"),
        (|sent| sent[2].whole = None, "the chunk that ends the object of 12 bytes has no checksum of the whole"),
        (|sent| sent[1].whole = Some(0), "the last chunk ends at byte 8 of 12"),
        (|sent| sent.insert(1, chunk(b"")), "chunk at byte 4 of 12 is empty"),
        (|sent| sent.truncate(2), "it ends at byte 8 of 12"),
        (|sent| sent.clear(), "it ends at byte 0 of 0"),
    ];
    for (change, part) in cases {
        let peer = Scripted::start(move || Ok(changed(change))).await;
        let shelf = shelf();
        let error = fetch(&far(&shelf, &[peer.address], None)).await.unwrap_err();
        assert_eq!((error.code, shelf.used()), (Code::Unavailable, 0), "{part}");
        let start = format!("{} cannot be pulled from {}: ", objref(), peer.address);
        assert!(error.message.starts_with(&start) && error.message.contains(part), "{error}");
        assert_eq!((peer.pulls(), peer.asks()), (2, 2), "it had a second chance");
    }
}

#[tokio::test]
async fn a_length_that_cannot_be_is_refused_before_room_is_made() {
    let with = |len: u64| {
        move || {
            Ok(changed(|sent| {
                sent[0].head.as_mut().unwrap().len = len;
            }))
        }
    };
    let capacity = u64::try_from(CAPACITY).unwrap();
    for (len, code) in [
        (0, Code::Unavailable),
        (3, Code::Unavailable),
        (capacity + 1, Code::ObjectStoreFull),
        (u64::MAX, Code::ObjectStoreFull),
    ] {
        let peer = Scripted::start(with(len)).await;
        let shelf = shelf();
        let error = fetch(&far(&shelf, &[peer.address], None)).await.unwrap_err();
        assert_eq!((error.code, shelf.rooms()), (code, 0), "{error}");
        assert!(error.message.contains(&len.to_string()), "{error}");
    }
    for (len, part) in
        [(11, "chunk at byte 8 has 4 bytes, the object has 11"), (13, "the last chunk ends at byte 12 of 13")]
    {
        let peer = Scripted::start(with(len)).await;
        let shelf = shelf();
        let error = fetch(&far(&shelf, &[peer.address], None)).await.unwrap_err();
        assert_eq!((error.code, shelf.used()), (Code::Unavailable, 0));
        assert!(error.message.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_chunk_may_be_as_long_as_the_protocol_says_and_no_longer() {
    let mib = 1 << 20;
    for (size, ok) in [(mib - 1, true), (mib, true), (mib + 1024, false)] {
        let object = vec![7; 3 * mib];
        let peer = Scripted::start(move || Ok(chunks(&object, size))).await;
        let shelf = Shelf::new(1, 4 * mib);
        let fetched = fetch(&far(&shelf, &[peer.address], None)).await;
        assert_eq!(fetched.is_ok(), ok, "{size}: {fetched:?}");
    }
}

#[tokio::test]
async fn an_object_is_pulled_while_there_is_room_and_refused_where_there_is_none() {
    let shelf = shelf();
    let peer = Scripted::start(|| Ok(chunks(&[1; 10], 10))).await;
    let far = far(&shelf, &[peer.address], None);
    let taken = shelf.put(&vec![0; CAPACITY - 9], Lease::default()).unwrap();
    let error = fetch(&far).await.unwrap_err();
    assert_eq!((error.code, peer.pulls()), (Code::ObjectStoreFull, 1));
    shelf.evict(taken);
    assert!(shelf.put(&vec![0; CAPACITY - 10], Lease::default()).is_ok());
    assert!(fetch(&far).await.is_ok());
}

#[tokio::test]
async fn an_object_whose_lease_ended_on_the_way_is_gone() {
    let peer = Scripted::start(|| Ok(changed(|sent| sent[0].head.as_mut().unwrap().remaining_ms = 0))).await;
    let shelf = shelf();
    let error = fetch(&far(&shelf, &[peer.address], None)).await.unwrap_err();
    assert_eq!((error.code, shelf.used()), (Code::NotFound, 0));
}

#[tokio::test]
async fn who_has_the_store_but_not_the_object_settles_it() {
    let there = format!("{THERE:016x}");
    let peer = Scripted::start(move || Err(named(Code::NotFound, "gone", Some(&there)))).await;
    let far = far(&shelf(), &[peer.address], None);
    let error = fetch(&far).await.unwrap_err();
    assert_eq!((error.code, peer.pulls(), peer.asks()), (Code::NotFound, 1, 1));
    assert!(error.message.contains(&objref().to_string()), "{error}");
}

#[tokio::test]
async fn a_peer_that_restarted_is_asked_again_and_the_store_found_where_it_is() {
    let old = Scripted::start(|| Err(named(Code::NotFound, "another store", Some("00000000000000ff")))).await;
    let new = Scripted::start(|| Ok(chunks(b"x", 1))).await;
    new.seen.store.store(0xff, Ordering::SeqCst);
    let shelf = shelf();
    let far = far(&shelf, &[old.address, new.address], None);
    // Both restart after they were asked: the store is at the other address now.
    let error = fetch(&far).await.unwrap_err();
    assert_eq!((error.code, old.pulls()), (Code::NotFound, 2));
    old.seen.store.store(0xff, Ordering::SeqCst);
    new.seen.store.store(THERE, Ordering::SeqCst);
    assert!(fetch(&far).await.is_ok());
    assert_eq!((old.pulls(), new.pulls()), (2, 1));
}

#[tokio::test]
async fn a_busy_peer_is_tried_again_and_then_given_up() {
    let peer = Scripted::start(|| Err(named(Code::Overloaded, "busy", None))).await;
    let error = fetch(&far(&shelf(), &[peer.address], None)).await.unwrap_err();
    assert_eq!((error.code, peer.pulls()), (Code::Unavailable, 6));
    let tries = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let peer = Scripted::start(move || match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Err(named(Code::Overloaded, "busy", None)),
        _ => Ok(chunks(b"x", 1)),
    })
    .await;
    assert!(fetch(&far(&shelf(), &[peer.address], None)).await.is_ok());
}

#[tokio::test]
async fn peers_that_do_not_answer_are_named_and_no_peers_are_not() {
    let silent = [nobody().await, nobody().await, nobody().await, nobody().await];
    let error = fetch(&far(&shelf(), &silent, None)).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    let named = silent[..3].iter().all(|peer| error.message.contains(&peer.to_string()));
    assert!(named && error.message.ends_with(" and 1 more"), "{error}");
    assert_eq!(fetch(&far(&shelf(), &[], None)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_peer_that_is_killed_in_the_midst_is_named() {
    let peer = Scripted::start_gated(1, || Ok(chunks(b"twelve bytes", 4))).await;
    let (shelf, address) = (shelf(), peer.address);
    let far = far(&shelf, &[address], None);
    let fetched = tokio::spawn(far.fetch(objref(), None));
    until(|| shelf.used() == 12).await;
    drop(peer);
    let error = watchdog(fetched).await.unwrap().unwrap_err();
    assert_eq!((error.code, shelf.used()), (Code::Unavailable, 0));
    assert!(error.message.contains(&address.to_string()), "{error}");
}
