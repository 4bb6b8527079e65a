//! A plane, workers that are attached to it in this very process, and bytes that say what they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::ObjRef;
use anyserve_shm::{Attached, BlockId, Lease, Owner, Plane, PlaneAt, PlaneConfig};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn plane(capacity: u64) -> Plane {
    Plane::open(PlaneConfig { capacity, threshold: 1024 }).unwrap()
}

pub(crate) fn attach(plane: &Plane, owner: Owner) -> Arc<Attached> {
    let pins = plane.add_worker(owner).unwrap();
    let (segment, layout, store) = (plane.segment_path(), plane.layout(), plane.store());
    Attached::open(&PlaneAt { store, segment: &segment, pins: &pins, layout, threshold: 1024 }).unwrap()
}

pub(crate) fn block(objref: ObjRef) -> BlockId {
    BlockId { index: objref.index, generation: objref.generation }
}

pub(crate) fn put(plane: &Plane, bytes: &[u8], lease: Lease) -> ObjRef {
    let mut room = plane.create(bytes.len()).unwrap();
    room.write(bytes);
    assert_eq!(room.missing(), 0);
    room.seal(lease).unwrap()
}

/// A number again and again: bytes of two blocks are never taken for those of one.
pub(crate) fn signed(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().repeat(len.div_ceil(8));
    bytes.truncate(len);
    bytes
}

/// The number of signed bytes, or `None` if they are torn.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes == signed(number, bytes.len())).then_some(number)
}

/// Waits for a condition behind a watchdog.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what}");
        std::thread::yield_now();
    }
}
