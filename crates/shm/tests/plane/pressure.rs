//! Many threads on a small arena: whatever is read is whole, and is what its name promises.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use anyserve_core::ObjRef;
use anyserve_shm::{Lease, Owner, Plane, Writer};
use parking_lot::Mutex;

use crate::support::{MIB, attach, block, number, plane, signed};

/// Objects that a writer makes.
const ROUNDS: u64 = 4000;
/// Those that are known to readers: the arena has room for a part of them only.
const SHELF: usize = 64;

/// What was made lately, and the number in its bytes.
struct Shelf {
    objects: Mutex<Vec<(ObjRef, u64)>>,
    next: AtomicU64,
    done: AtomicBool,
}

// === impl Shelf ===

impl Shelf {
    fn show(&self, objref: ObjRef, signed: u64) {
        let mut objects = self.objects.lock();
        let place = usize::try_from(signed).unwrap() % SHELF;
        if place < objects.len() {
            objects[place] = (objref, signed);
        } else {
            objects.push((objref, signed));
        }
    }

    fn pick(&self, pick: usize) -> Option<(ObjRef, u64)> {
        let objects = self.objects.lock();
        objects.get(pick % objects.len().max(1)).copied()
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// From 16 bytes to half a megabyte.
fn len(number: u64) -> usize {
    16 + usize::try_from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 45).unwrap()
}

fn lease(number: u64) -> Lease {
    let key = number.is_multiple_of(3).then(|| format!("key {}", number % 7));
    Lease { cacheable: true, key, ..Lease::default() }
}

fn write_as_runtime(plane: &Plane, shelf: &Shelf) {
    for round in 0..ROUNDS {
        let number = shelf.number();
        let Ok(mut room) = plane.create(len(number)) else { continue };
        room.write(&signed(number, len(number)));
        shelf.show(room.seal(lease(number)).unwrap(), number);
        if round % 5 == 0 {
            shelf
                .pick(usize::try_from(number * 31).unwrap())
                .into_iter()
                .for_each(|(objref, _)| _ = plane.delete(objref));
        }
    }
}

fn write_as_worker(plane: &Plane, shelf: &Shelf, owner: Owner) {
    let worker = attach(plane, owner);
    for _ in 0..ROUNDS {
        let number = shelf.number();
        let Ok(granted) = plane.grant(len(number) as u64, Writer::Worker(owner), false) else { continue };
        assert!(worker.write(&granted, 0, &signed(number, len(number))));
        let sealed = plane.seal(granted.block, Writer::Worker(owner), granted.len, lease(number));
        shelf.show(sealed.unwrap(), number);
    }
}

/// Returns how often it found something.
fn read(plane: &Plane, shelf: &Shelf, owner: Owner) -> u64 {
    let worker = attach(plane, owner);
    let (mut found, mut pick) = (0, 0_usize);
    let mut kept = std::collections::VecDeque::new();
    while !shelf.done.load(Ordering::Relaxed) {
        pick = pick.wrapping_mul(5).wrapping_add(owner.0 as usize);
        let Some((objref, expected)) = shelf.pick(pick) else { continue };
        let Some(view) = worker.view(block(objref)) else { continue };
        assert_eq!(number(&view), Some(expected), "torn, or of another block");
        found += 1;
        kept.push_back((view, expected));
        if found % 4 == 0 {
            worker.hand_over(block(objref));
            let read = plane.take(block(objref), owner, 0);
            assert!(read.is_err() || number(&read.unwrap()) == Some(expected));
        }
        if kept.len() > 3 {
            let (view, expected) = kept.pop_front().unwrap();
            assert_eq!(number(&view), Some(expected), "changed while it was read");
        }
    }
    drop(kept);
    assert_eq!(worker.pinned(), 0);
    found
}

#[test]
fn no_read_is_torn_while_many_threads_fill_and_empty_a_small_arena() {
    let plane = plane(8 * MIB);
    let shelf = Shelf { objects: Mutex::default(), next: AtomicU64::new(0), done: AtomicBool::new(false) };
    let found: u64 = std::thread::scope(|scope| {
        let (plane, shelf) = (&plane, &shelf);
        let readers = [11, 13, 17].map(|owner| scope.spawn(move || read(plane, shelf, Owner(owner))));
        let writers = [
            scope.spawn(move || write_as_runtime(plane, shelf)),
            scope.spawn(move || write_as_worker(plane, shelf, Owner(1))),
        ];
        let ended = writers.map(ScopedJoinHandle::join);
        shelf.done.store(true, Ordering::Relaxed);
        ended.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    println!("{found} reads, {:?}", plane.usage());
    assert!(found > 0 && plane.usage().evicted > 0);
    for (objref, _) in shelf.objects.into_inner() {
        plane.delete(objref);
    }
    while let Some(objref) = (0..7).find_map(|key| plane.lookup(&format!("key {key}"))) {
        plane.delete(objref);
    }
    plane.tick();
    assert_eq!((plane.usage().withdrawn, plane.usage().tensors), (0, 0), "every pin was given back");
    assert!(plane.create(8 << 20).is_ok(), "what nobody named any more was evicted");
}
