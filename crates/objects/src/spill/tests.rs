//! What every store for durable objects does, and what becomes of files that somebody spoilt.

use std::time::Duration;

use anyserve_core::{Lease, StoreId};
use anyserve_testkit::Shelf;
use bytes::Bytes;
use object_store::PutPayload;
use tempfile::TempDir;

use super::header::HEADER;
use super::janitor::Swept;
use super::*;

const DAY: Duration = Duration::from_hours(24);

fn objref(generation: u64) -> ObjRef {
    ObjRef { store: StoreId(7), index: 1, generation }
}

fn object(bytes: impl Into<Bytes>, ttl: Duration) -> HeldObject {
    HeldObject { bytes: bytes.into(), lease: Lease { ttl, durable: true, ..Lease::default() } }
}

/// Every kind of store that can be had without a network.
fn stores() -> (TempDir, [Spill; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let spills = [dir.path().to_str().unwrap(), "memory:///"].map(|place| Spill::open(place).unwrap());
    (dir, spills)
}

fn shelf() -> Shelf {
    Shelf::new(1, 100 << 20)
}

async fn sweep(spill: &Spill) -> usize {
    spill.sweep(&Swept::default(), 1000).await.unwrap().deleted
}

/// Bytes that no two blocks of a store have in common.
fn bytes(len: usize) -> Bytes {
    let mut bytes = (0..=250).collect::<Vec<u8>>().repeat(len / 251 + 1);
    bytes.truncate(len);
    bytes.into()
}

/// Puts bytes where the object's file is.
async fn spoil(spill: &Spill, bytes: Vec<u8>) {
    spill.store.put(&object_path(objref(1)), PutPayload::from(bytes)).await.unwrap();
}

async fn file(spill: &Spill) -> Vec<u8> {
    spill.store.get(&object_path(objref(1))).await.unwrap().bytes().await.unwrap().into()
}

#[tokio::test]
async fn an_object_comes_back_as_it_was_kept_whatever_its_length() {
    let (_dir, spills) = stores();
    for spill in spills {
        let part = 16 << 20;
        for len in [0, 1, 8192 - HEADER, part - HEADER - 1, part - HEADER, part - HEADER + 1, 2 * part + 3] {
            let bytes = bytes(len);
            spill.keep(objref(1), object(bytes.clone(), DAY), None).await.unwrap();
            let shelf = shelf();
            let copy = spill.fetch(objref(1), &shelf).await.unwrap().unwrap();
            let HeldObject { bytes: back, lease } = shelf.object(copy).unwrap();
            assert!(back == bytes, "{len} bytes in {spill:?}");
            assert!(lease.cacheable && lease.ttl <= DAY && lease.ttl > DAY / 2);
        }
    }
}

#[tokio::test]
async fn what_was_not_kept_is_not_there() {
    let (_dir, spills) = stores();
    for spill in spills {
        assert_eq!(spill.fetch(objref(1), &shelf()).await, Ok(None), "{spill:?}");
        assert_eq!(spill.lookup("key").await, Ok(None));
        assert_eq!(spill.delete(objref(1)).await, Ok(false));
        assert_eq!(sweep(&spill).await, 0);
    }
}

#[tokio::test]
async fn the_newest_object_has_the_key_and_a_deleted_one_has_none() {
    let (_dir, spills) = stores();
    for spill in spills {
        for (generation, key) in [(1, "a/../b\n"), (2, ""), (3, "a/../b\n")] {
            spill.keep(objref(generation), object("x", DAY), Some(key)).await.unwrap();
        }
        assert_eq!(spill.lookup("a/../b\n").await, Ok(Some(objref(3))), "{spill:?}");
        assert_eq!(spill.lookup("").await, Ok(Some(objref(2))));
        assert_eq!(spill.delete(objref(3)).await, Ok(true));
        assert_eq!(spill.delete(objref(3)).await, Ok(false));
        assert_eq!(spill.lookup("a/../b\n").await, Ok(None));
        assert_eq!(spill.fetch(objref(3), &shelf()).await, Ok(None));
        assert_eq!(sweep(&spill).await, 1, "the key of what was deleted");
        assert!(spill.fetch(objref(1), &shelf()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_expired_object_is_not_there_and_is_removed() {
    let (_dir, spills) = stores();
    for spill in spills {
        for generation in [1, 2] {
            spill.keep(objref(generation), object("x", Duration::ZERO), Some("key")).await.unwrap();
        }
        spill.keep(objref(3), object("x", DAY), Some("other")).await.unwrap();
        assert_eq!(spill.lookup("key").await, Ok(None), "{spill:?}");
        assert_eq!(spill.delete(objref(2)).await, Ok(false));
        assert_eq!(spill.fetch(objref(1), &shelf()).await, Ok(None));
        let gone = spill.store.head(&object_path(objref(1))).await;
        assert!(matches!(gone, Err(object_store::Error::NotFound { .. })), "{gone:?}");
        assert_eq!(spill.lookup("other").await, Ok(Some(objref(3))));
    }
}

#[tokio::test]
async fn a_sweep_deletes_what_has_expired_and_goes_on_where_the_last_one_ended() {
    let (_dir, spills) = stores();
    for spill in spills {
        for generation in 0..10 {
            let ttl = if generation % 2 == 0 { Duration::ZERO } else { DAY };
            spill.keep(objref(generation), object("x", ttl), Some(&generation.to_string())).await.unwrap();
        }
        spill.store.put(&Path::from("objects/somebody's"), "else's".into()).await.unwrap();
        let (mut last, mut deleted) = (Swept::default(), 0);
        for _ in 0..5 {
            last = spill.sweep(&last, 4).await.unwrap();
            assert!(last.deleted <= 8, "at most so many are looked at");
            deleted += last.deleted;
        }
        deleted += sweep(&spill).await;
        assert_eq!(deleted, 10, "five objects and their keys in {spill:?}");
        for generation in 0..10 {
            let kept = spill.lookup(&generation.to_string()).await.unwrap();
            assert_eq!(kept, (generation % 2 == 1).then_some(objref(generation)));
        }
        assert!(spill.store.head(&Path::from("objects/somebody's")).await.is_ok());
    }
}

#[tokio::test]
async fn a_spoilt_file_is_refused_gives_the_room_back_and_is_left_alone_by_the_sweep() {
    let (_dir, spills) = stores();
    for spill in spills {
        spill.keep(objref(1), object(vec![5; 20_000], DAY), None).await.unwrap();
        let good = file(&spill).await;
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        for (bytes, part) in [
            (Vec::new(), "it has 0 bytes, a header alone has 40"),
            (good[..HEADER - 1].to_vec(), "it has 39 bytes"),
            (good[..HEADER].to_vec(), "it has 0 bytes behind its header, which says 20000"),
            (good[..good.len() - 1].to_vec(), "it has 19999 bytes behind its header"),
            ([&good[..], b"x"].concat(), "it has 20001 bytes behind its header"),
            (flipped(0), "it begins with"),
            (flipped(4), "it has version 0"),
            (flipped(8), "its header has the checksum"),
            (flipped(24), "its header has the checksum"),
            (flipped(HEADER), "its header says the checksum"),
            (flipped(good.len() - 1), "its header says the checksum"),
        ] {
            spoil(&spill, bytes).await;
            let shelf = shelf();
            let error = spill.fetch(objref(1), &shelf).await.unwrap_err();
            assert_eq!(error.code, Code::NotFound);
            assert!(error.message.contains(part), "{spill:?}: {error}");
            assert_eq!(shelf.used(), 0);
            assert_eq!(sweep(&spill).await, 0);
        }
    }
}

#[tokio::test]
async fn a_lying_length_is_refused_before_room_is_made() {
    let (_dir, spills) = stores();
    for spill in spills {
        for len in [0, 1, 3, u64::MAX] {
            let header = Header { len, checksum: 0, expires_ms: u64::MAX };
            spoil(&spill, [&header.write()[..], b"xx"].concat()).await;
            let shelf = shelf();
            let error = spill.fetch(objref(1), &shelf).await.unwrap_err();
            assert!(error.message.contains(&format!("2 bytes behind its header, which says {len}")), "{error}");
            assert_eq!(shelf.rooms(), 0);
        }
    }
}

#[tokio::test]
async fn an_object_may_be_as_long_as_the_store_here_is_large_and_no_longer() {
    let (_dir, spills) = stores();
    for spill in spills {
        for (len, code) in [(9, None), (10, None), (11, Some(Code::ObjectStoreFull))] {
            spill.keep(objref(1), object(vec![1; len], DAY), None).await.unwrap();
            let fetched = spill.fetch(objref(1), &Shelf::new(1, 10)).await;
            assert_eq!(fetched.err().map(|error| error.code), code, "{len} bytes");
        }
    }
}

#[tokio::test]
async fn a_spoilt_key_leads_nowhere_and_one_of_the_same_hash_is_told_apart() {
    let (_dir, spills) = stores();
    for spill in spills {
        spill.keep(objref(1), object("x", DAY), Some("key")).await.unwrap();
        let entry = |key: &str| key::Entry::try_new(key, objref(1)).unwrap().write();
        for text in ["", "anyserve-key 2\n", &entry("other"), &"x".repeat(10_000)] {
            spill.store.put(&key::path("key"), text.to_owned().into()).await.unwrap();
            assert_eq!(spill.lookup("key").await, Ok(None), "{text}");
        }
        spill.store.put(&key::path("key"), vec![0xff; 9].into()).await.unwrap();
        assert_eq!(spill.lookup("key").await, Ok(None));
        let too_long = spill.keep(objref(1), object("x", DAY), Some(&"k".repeat(4097))).await.unwrap_err();
        assert_eq!(too_long.code, Code::InvalidInput);
    }
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let spill = Spill::open(dir.path().to_str().unwrap()).unwrap();
    // A file where a folder has to be: nothing can be written below it, whoever tries.
    std::fs::write(dir.path().join(OBJECTS), "in the way").unwrap();
    let error = spill.keep(objref(1), object("x", DAY), None).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.starts_with("the store for durable objects failed on objects/"), "{error}");
}
