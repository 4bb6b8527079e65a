//! Objects of a plane that come and go while workers read them.

use std::sync::atomic::{AtomicU64, Ordering};

use anyserve_core::{Datatype, ObjRef};
use anyserve_shm::object::{Kind, Part, Plan};
use anyserve_shm::{BlockId, Lease, Plane};
use parking_lot::Mutex;

use crate::draw::Draw;
use crate::part::object_number;

/// Objects by the number that each of their elements is.
pub(crate) struct Stock {
    objects: Mutex<Vec<(ObjRef, u64)>>,
    next: AtomicU64,
}

// === impl Stock ===

impl Stock {
    pub(crate) fn of(plane: &Plane, count: usize) -> Self {
        let stock = Self { objects: Mutex::default(), next: AtomicU64::new(1) };
        let objects = (0..count).map(|_| stock.make(plane)).collect();
        *stock.objects.lock() = objects;
        stock
    }

    pub(crate) fn all(&self) -> Vec<(BlockId, u64)> {
        let block = |objref: ObjRef| BlockId { index: objref.index, generation: objref.generation };
        self.objects.lock().iter().map(|(objref, number)| (block(*objref), *number)).collect()
    }

    /// Deletes an object and makes another, most likely in the same memory.
    pub(crate) fn turn_over(&self, plane: &Plane, draw: &mut Draw) {
        let mut objects = self.objects.lock();
        let which = usize::try_from(draw.below(objects.len() as u64)).unwrap();
        assert!(plane.delete(objects[which].0));
        plane.tick();
        objects[which] = self.make(plane);
    }

    pub(crate) fn is_whole(&self, plane: &Plane) -> bool {
        let whole =
            |(objref, number): &(ObjRef, u64)| object_number(&plane.object(*objref).unwrap().bytes) == Some(*number);
        self.objects.lock().iter().all(whole)
    }

    pub(crate) fn clear(&self, plane: &Plane) {
        assert!(self.objects.lock().drain(..).all(|(objref, _)| plane.delete(objref)));
    }

    fn make(&self, plane: &Plane) -> (ObjRef, u64) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let count = 50 + number % 400;
        let data = number.to_le_bytes().repeat(usize::try_from(count).unwrap());
        let shape = [i64::try_from(count).unwrap()];
        let part = Part { name: "", datatype: Datatype::Uint64, shape: &shape, data: &data, plain: false };
        let plan = Plan::of(Kind::Array, &[part], true).unwrap();
        let mut room = plane.create(usize::try_from(plan.len).unwrap()).unwrap();
        room.write(&plan.header);
        room.write(&[0; 64][..usize::try_from(plan.offsets[0]).unwrap() - plan.header.len()]);
        room.write(&data);
        (room.seal(Lease::default()).unwrap(), number)
    }
}
