//! The runtime's plane and workers that are attached to it, in one process.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

#[path = "plane/hostile.rs"]
mod hostile;
#[path = "plane/pressure.rs"]
mod pressure;
#[path = "plane/support.rs"]
mod support;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, StoreId, TensorMemory};
use anyserve_shm::{BlockId, Extent, Lease, MAX_TTL, Owner, Plane, PlaneConfig, PlaneError, TableError, Writer};
use bytes::Bytes;
use support::{MIB, attach, block, number, plane, put, signed, until};

const ONE: Owner = Owner(1);
const TWO: Owner = Owner(2);

fn cacheable() -> Lease {
    Lease { cacheable: true, ..Lease::default() }
}

#[test]
fn what_is_copied_in_is_viewed_on_aligned_bytes_by_both_sides() {
    let plane = plane(8 * MIB);
    let worker = attach(&plane, ONE);
    for len in [16, 17, 63, 64, 65, 4095, 4096, 4097, 3 << 20] {
        let bytes = signed(len as u64, len);
        let objref = put(&plane, &bytes, Lease::default());
        for view in [worker.view(block(objref)).unwrap(), plane.object(objref).unwrap().bytes] {
            assert!(view == bytes && view.as_ptr().addr().is_multiple_of(64), "{len} bytes");
        }
        assert_eq!(plane.lease(objref).unwrap().1, len as u64);
        assert!(plane.delete(objref));
    }
    assert_eq!(worker.pinned(), 0);
    plane.tick();
    assert_eq!(plane.usage().used, 0);
}

#[test]
fn an_object_without_bytes_is_one_and_takes_a_line() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let objref = put(&plane, &[], Lease::default());
    assert_eq!(worker.view(block(objref)).unwrap(), Bytes::new());
    assert_eq!((plane.usage().used, worker.pinned()), (64, 0));
}

#[test]
fn both_sides_tell_of_bytes_which_block_they_are_of() {
    let plane = plane(8 * MIB);
    let worker = attach(&plane, ONE);
    let (first, second) = (put(&plane, &signed(1, 100), cacheable()), put(&plane, &signed(2, 100), cacheable()));
    let view = worker.view(block(second)).unwrap();
    let held = plane.object(second).unwrap().bytes;
    for at in [0, 1, 63, 64, 99] {
        let expected = Some((block(second), at as u64));
        assert_eq!((worker.locate(&view[at..]), plane.locate(&held[at..])), (expected, expected));
    }
    assert_eq!((worker.locate(&view[100..]), plane.locate(&held[100..])), (None, None), "behind its last byte");
    let own = signed(1, 100);
    assert_eq!((worker.locate(&own), plane.locate(&own)), (None, None), "other memory");
    assert_eq!((worker.locate(&held), plane.locate(&view)), (None, None), "the other one's mapping");
    let unpinned = plane.object(first).unwrap().bytes;
    assert_eq!(plane.locate(&unpinned), Some((block(first), 0)));
    let clone = view.clone();
    drop(view);
    assert_eq!(worker.locate(&clone), Some((block(second), 0)), "a clone pins it too");
}

#[test]
fn a_block_is_used_again_only_after_its_last_view() {
    let plane = plane(MIB);
    let (one, two) = (attach(&plane, ONE), attach(&plane, TWO));
    let objref = put(&plane, &signed(7, 900 << 10), Lease::default());
    let (view, other) = (one.view(block(objref)).unwrap(), two.view(block(objref)).unwrap().slice(100..200));
    let held = plane.object(objref).unwrap();
    assert!(plane.delete(objref) && !plane.delete(objref));
    assert!(
        one.view(block(objref)).is_none() && matches!(plane.object(objref), Err(PlaneError::Table(TableError::Gone)))
    );
    let is_kept = || {
        plane.tick();
        assert!(plane.create(200 << 10).is_err());
        plane.usage().withdrawn == 1
    };
    assert!(is_kept() && number(&view) == Some(7) && number(&held.bytes) == Some(7));
    assert_eq!(plane.kept(), [(ONE, 1), (TWO, 1)]);
    drop(view);
    assert!(is_kept() && plane.kept() == [(ONE, 0), (TWO, 1)]);
    drop(other);
    assert!(is_kept());
    drop(held);
    assert_eq!((plane.usage().used, plane.usage().withdrawn), (0, 0), "the last hold gives it back at once");
    assert!(plane.create(1 << 20).is_ok());
}

#[test]
fn a_pin_that_was_handed_over_is_given_back_whatever_comes_of_it() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let objref = put(&plane, &signed(7, 4096), Lease::default());
    let view = worker.view(block(objref)).unwrap();
    worker.hand_over(block(objref));
    drop(view);
    let read = plane.take(block(objref), ONE, 0).unwrap();
    assert!(number(&read) == Some(7) && plane.locate(&read) == Some((block(objref), 0)));
    let view = worker.view(block(objref)).unwrap();
    worker.hand_over(block(objref));
    assert!(plane.delete(objref));
    drop((view, read));
    plane.tick();
    assert_eq!(plane.usage().withdrawn, 1, "the pin that is on its way");
    let still = plane.take(block(objref), ONE, 0).unwrap();
    assert_eq!(number(&still), Some(7), "a pin vouches for what nobody finds any more");
    assert!(matches!(plane.take(block(objref), ONE, 0), Err(PlaneError::Table(TableError::Gone))), "one pin, once");
    drop(still);
    plane.tick();
    assert_eq!((plane.usage().used, worker.pinned()), (0, 0));
}

#[test]
fn a_block_that_was_lent_is_read_by_its_worker_also_after_it_was_withdrawn() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let objref = put(&plane, &signed(7, 4096), Lease::default());
    let held = plane.object(objref).unwrap();
    plane.lend(block(objref), ONE);
    assert!(plane.delete(objref));
    drop(held);
    plane.tick();
    assert_eq!(plane.usage().withdrawn, 1, "the pin that was lent");
    let lent = worker.lent(block(objref)).unwrap();
    assert!(number(&lent) == Some(7) && worker.locate(&lent) == Some((block(objref), 0)));
    drop(lent);
    plane.tick();
    assert_eq!((plane.usage().used, worker.pinned()), (0, 0));
    let other = BlockId { generation: 1, ..block(objref) };
    assert!(worker.lent(BlockId { index: u32::MAX, ..other }).is_none());
}

#[test]
fn a_pin_that_nobody_has_is_not_given_back() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let objref = put(&plane, &signed(7, 4096), Lease::default());
    for owner in [ONE, TWO] {
        assert!(plane.take(block(objref), owner, 0).is_err());
    }
    assert!(plane.delete(objref));
    plane.tick();
    assert_eq!((plane.usage().used, worker.pinned()), (0, 0));
}

#[test]
fn an_object_whose_lease_is_over_is_viewed_by_nobody_and_freed_by_a_tick() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let lease = Lease { ttl: Duration::from_millis(1), key: Some("k".to_owned()), ..Lease::default() };
    let objref = put(&plane, &signed(7, 4096), lease);
    until("its lease is over", || worker.view(block(objref)).is_none());
    assert!(plane.lookup("k").is_none() && plane.object(objref).is_err());
    assert_eq!((worker.pinned(), plane.usage().objects), (0, 1), "nobody has said that time went on");
    plane.tick();
    assert_eq!(plane.usage().used, 0);
}

#[test]
fn a_lease_has_bounds() {
    let plane = plane(MIB);
    let objref = put(&plane, &signed(7, 64), Lease { ttl: Duration::MAX, ..Lease::default() });
    let (lease, _) = plane.lease(objref).unwrap();
    assert!(lease.ttl <= MAX_TTL && lease.ttl + Duration::from_mins(5) > MAX_TTL);
}

#[test]
fn a_dead_workers_grants_and_pins_are_gone_and_nobody_elses() {
    let plane = plane(MIB);
    let (one, two) = (attach(&plane, ONE), attach(&plane, TWO));
    let objref = put(&plane, &signed(7, 64 << 10), Lease::default());
    let views = [one.view(block(objref)).unwrap(), two.view(block(objref)).unwrap()];
    let theirs = plane.grant(64 << 10, Writer::Worker(TWO), false).unwrap();
    let dead = plane.grant(64 << 10, Writer::Worker(ONE), false).unwrap();
    assert!(plane.delete(objref));
    plane.worker_gone(ONE);
    assert_eq!((plane.usage().used, plane.usage().withdrawn), (128 << 10, 1));
    assert!(plane.seal(dead.block, Writer::Worker(ONE), 1, Lease::default()).is_err());
    assert!(plane.seal(theirs.block, Writer::Worker(TWO), 1, Lease::default()).is_ok());
    plane.worker_gone(TWO);
    assert_eq!((plane.usage().used, plane.usage().objects, plane.kept()), (64, 1, vec![]));
    drop(views);
}

#[test]
fn a_full_plane_says_how_full_and_what_cannot_fit_evicts_nothing() {
    let plane = plane(MIB);
    let kept = put(&plane, &signed(1, 256 << 10), Lease::default());
    let cached = put(&plane, &signed(2, 256 << 10), cacheable());
    let too_large = plane.create((1 << 20) + 1).unwrap_err();
    let text = "the object store has no room for 1048577 bytes: 524288 of 1048576 are free, 524288 in one piece";
    assert!(too_large.to_string().starts_with(text), "{too_large}");
    assert!(plane.grant(u64::MAX, Writer::Worker(ONE), false).is_err());
    assert!(plane.grant(513 << 10, Writer::Ingress, false).is_err());
    assert!(plane.object(cached).is_ok(), "nothing was evicted for what can never fit");
    let ahead = plane.grant(300 << 10, Writer::Worker(ONE), true).unwrap_err().to_string();
    assert!(ahead.contains("300") || ahead.contains("307200"), "{ahead}");
    assert!(ahead.contains("524288 of 1048576 are free"), "{ahead}");
    let room = plane.create(700 << 10).unwrap();
    assert!(plane.object(cached).is_err() && plane.object(kept).is_ok());
    assert_eq!((plane.usage().evicted, room.missing()), (1, 700 << 10));
    let full = plane.create(100 << 10).unwrap_err();
    assert!(full.to_string().contains("102400 bytes: 69632 of 1048576 are free, 69632 in one piece"), "{full}");
    assert_eq!(Error::from(full).code, Code::ObjectStoreFull);
}

#[test]
fn eviction_spares_what_is_read_and_takes_what_was_not_used_for_the_longest_time() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let objrefs: Vec<_> = (0..4).map(|number| put(&plane, &signed(number, 256 << 10), cacheable())).collect();
    let (view, held) = (worker.view(block(objrefs[0])).unwrap(), plane.object(objrefs[1]).unwrap());
    let rooms = [plane.create(256 << 10).unwrap(), plane.create(256 << 10).unwrap()];
    assert!(plane.create(1).is_err(), "the rest is read");
    assert_eq!((number(&view), number(&held.bytes), plane.usage().evicted), (Some(0), Some(1), 2));
    drop(view);
    assert!(plane.create(1).is_ok() && plane.object(objrefs[0]).is_err());
    drop((held, rooms));
}

#[test]
fn what_a_worker_has_viewed_is_evicted_after_what_nobody_has() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let [viewed, other] = [1, 2].map(|number| put(&plane, &signed(number, 512 << 10), cacheable()));
    let began = Instant::now();
    until("the table counts on", || began.elapsed() > Duration::from_millis(150));
    assert!(worker.view(block(viewed)).is_some());
    let room = plane.create(512 << 10).unwrap();
    assert!(plane.object(viewed).is_ok() && plane.object(other).is_err());
    drop(room);
}

#[test]
fn a_tensor_of_ingress_is_free_when_its_last_clone_is_dropped() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let memory: &dyn TensorMemory = &plane;
    assert!(memory.allocate((512 << 10) + 1).is_none());
    let mut room = memory.allocate(512 << 10).unwrap();
    assert!(memory.allocate(1).is_none(), "half of the arena is taken");
    let bytes = signed(7, 512 << 10);
    bytes.chunks(1000).for_each(|part| room.write(part));
    let tensor = room.freeze();
    let (id, offset) = plane.locate(&tensor[1000..]).unwrap();
    let view = worker.view(id).unwrap();
    assert!(offset == 1000 && view == bytes && plane.usage().tensors == 1);
    let clone = tensor.slice(5..6);
    drop(tensor);
    plane.tick();
    assert_eq!(plane.usage().tensors, 1);
    drop(clone);
    assert!((plane.usage().tensors, plane.usage().withdrawn) == (0, 1) && number(&view) == Some(7));
    drop(view);
    plane.tick();
    assert_eq!(plane.usage().used, 0);
    assert!(memory.allocate(512 << 10).is_some(), "and dropping a room gives it back");
    assert_eq!(plane.usage().used, 0);
}

#[test]
fn what_a_room_does_not_fill_is_given_back() {
    let plane = plane(MIB);
    let mut room = plane.create(1 << 20).unwrap();
    room.write(&[7; 65]);
    let objref = room.seal(Lease::default()).unwrap();
    assert_eq!((plane.usage().used, plane.lease(objref).unwrap().1), (128, 65));
}

#[test]
#[should_panic(expected = "11 bytes for 10 missing ones")]
fn more_than_a_room_has_is_not_written() {
    plane(MIB).create(10).unwrap().write(&[0; 11]);
}

#[test]
fn a_worker_writes_an_object_and_the_runtime_reads_it() {
    let plane = plane(MIB);
    let (one, two) = (attach(&plane, ONE), attach(&plane, TWO));
    let granted = plane.grant(4096, Writer::Worker(ONE), true).unwrap();
    assert!(two.view(granted.block).is_none(), "nobody finds it before it is sealed");
    let bytes = signed(9, 3000);
    assert!(one.write(&granted, 1000, &bytes[1000..]) && one.write(&granted, 0, &bytes[..1000]));
    let objref = plane.seal(granted.block, Writer::Worker(ONE), 3000, Lease::default()).unwrap();
    assert!(two.view(block(objref)).unwrap() == bytes && plane.object(objref).unwrap().bytes == bytes);
    let copied = plane.grant(3000, Writer::Worker(TWO), false).unwrap();
    assert!(two.write(&copied, 0, &two.view(block(objref)).unwrap()), "from one block to another");
    let tensor = plane.adopt(copied.block, Writer::Worker(TWO), 3000).unwrap();
    assert_eq!(number(&tensor), Some(9));
}

#[test]
fn a_block_beyond_the_first_pages_has_pages_to_its_last_byte() {
    let plane = plane(130 * MIB);
    let worker = attach(&plane, ONE);
    let granted = plane.grant(130 * MIB, Writer::Worker(ONE), false).unwrap();
    let last: Extent = Extent { len: 130 * MIB, ..granted };
    assert!(worker.write(&last, 130 * MIB - 1, &[7]) && !worker.write(&last, 130 * MIB, &[7]));
    let bytes = plane.adopt(granted.block, Writer::Worker(ONE), granted.len).unwrap();
    assert_eq!(bytes.last(), Some(&7));
    let segment = std::fs::metadata(plane.segment_path()).unwrap();
    assert_eq!(segment.blocks() * 512, segment.len(), "pages that nobody touched are there too");
    let pins = std::fs::metadata(plane.add_worker(TWO).unwrap()).unwrap();
    assert_eq!((pins.blocks() * 512, pins.len() > 0), (pins.len(), true));
}

#[test]
fn views_outlive_the_plane() {
    let plane = plane(MIB);
    let worker = attach(&plane, ONE);
    let objref = put(&plane, &signed(7, 100_000), Lease::default());
    let (view, held) = (worker.view(block(objref)).unwrap(), plane.object(objref).unwrap());
    drop((plane, worker));
    assert_eq!((number(&view), number(&held.bytes)), (Some(7), Some(7)));
}

#[test]
fn an_object_of_another_store_is_told_from_one_that_is_gone() {
    let plane = plane(MIB);
    let mut objref = put(&plane, &signed(7, 64), Lease::default());
    objref.store = StoreId(objref.store.0 ^ 1);
    assert!(matches!(plane.object(objref), Err(PlaneError::Elsewhere { theirs, ours }) if theirs != ours));
    assert!(plane.lease(objref).is_err() && !plane.delete(objref));
    assert_eq!(plane.usage().objects, 1);
}

#[test]
fn a_plane_that_is_too_large_is_none_and_says_both_numbers() {
    let open = |capacity| Plane::open(PlaneConfig { capacity, threshold: 1 });
    let PlaneError::Left { left, wanted } = open(1 << 42).unwrap_err() else { panic!("4 TiB fit into memory") };
    assert!(left < wanted && wanted > 1 << 42);
    let error = PlaneError::Left { left, wanted }.to_string();
    assert!(error.contains(&left.to_string()) && error.contains(&wanted.to_string()), "{error}");
    for capacity in [1 << 62, i64::MAX.cast_unsigned(), u64::MAX - 1, u64::MAX] {
        assert!(matches!(open(capacity), Err(PlaneError::Io(_) | PlaneError::Left { .. })), "{capacity}");
    }
    let own = format!("{}{}-", anyserve_shm::OWN_PREFIX, std::process::id());
    let mut names = std::fs::read_dir("/dev/shm").unwrap().flatten();
    assert!(!names.any(|name| name.file_name().to_string_lossy().starts_with(&own)), "nothing stays behind");
}

#[test]
fn a_plane_of_any_small_size_works() {
    for capacity in [0, 1, 64 << 10, (64 << 10) + 1] {
        let plane = plane(capacity);
        let rounded = usize::try_from(capacity.next_multiple_of(64 << 10)).unwrap();
        assert_eq!(plane.usage().capacity, rounded as u64);
        assert!(plane.create(rounded + 1).is_err());
        assert_eq!(plane.create(rounded).is_ok(), rounded > 0);
    }
}

#[test]
fn blocks_that_are_granted_ahead_are_small_and_few_and_do_not_count_as_used() {
    let plane = plane(64 * MIB);
    let _worker = attach(&plane, ONE);
    let (own, mib) = (Writer::Worker(ONE), MIB);
    assert!(plane.grant(mib + 1, own, true).is_err(), "more than a 64th of the arena");
    let granted: Vec<_> = std::iter::from_fn(|| plane.grant(mib, own, true).ok()).collect();
    assert_eq!((granted.len(), plane.usage().used), (8, 0), "an eighth of the arena");
    plane.seal(granted[0].block, own, mib, Lease::default()).unwrap();
    assert_eq!(plane.usage().used, mib);
    assert!(plane.grant(mib, own, true).is_ok() && plane.grant(mib, own, true).is_err());
    plane.worker_gone(ONE);
    assert_eq!((plane.usage().used, plane.usage().longest_free), (mib, 63 * mib));
}
