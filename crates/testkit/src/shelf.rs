//! An object store in ordinary memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use anyserve_core::{Code, Error, HeldObject, Lease, LocalObjects, ObjRef, ObjectRoom, StoreId};

/// A store of objects, for tests of those who copy them. Clones are the same store. Leases are written down and do not end.
#[derive(Clone)]
pub struct Shelf {
    store: StoreId,
    capacity: usize,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<ObjRef, HeldObject>,
    /// Bytes of objects and of rooms.
    used: usize,
    /// Rooms that were ever made.
    rooms: usize,
    made: u64,
}

#[derive(Debug)]
struct Room {
    shelf: Shelf,
    bytes: Vec<u8>,
    len: usize,
}

// === impl Shelf ===

impl Shelf {
    /// An empty store with room for so many bytes.
    pub fn new(store: u64, capacity: usize) -> Self {
        Self { store: StoreId(store), capacity, inner: Arc::default() }
    }

    /// Puts an object there.
    pub fn put(&self, bytes: &[u8], lease: Lease) -> Result<ObjRef, Error> {
        let mut room = self.create(bytes.len())?;
        room.write(bytes);
        room.seal(lease)
    }

    /// Takes an object away. Whoever holds it has it still.
    pub fn evict(&self, objref: ObjRef) -> bool {
        let mut inner = self.inner();
        let gone = inner.objects.remove(&objref);
        inner.used -= gone.as_ref().map_or(0, |object| object.bytes.len());
        gone.is_some()
    }

    /// Bytes of the objects there and of the rooms that were made for more.
    pub fn used(&self) -> usize {
        self.inner().used
    }

    /// How often room was made.
    pub fn rooms(&self) -> usize {
        self.inner().rooms
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it has the lock")
    }
}

impl LocalObjects for Shelf {
    fn store(&self) -> StoreId {
        self.store
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn object(&self, objref: ObjRef) -> Result<HeldObject, Error> {
        let found = self.inner().objects.get(&objref).cloned();
        found.ok_or_else(|| Error::new(Code::NotFound, format!("{objref} is gone")))
    }

    fn create(&self, len: usize) -> Result<Box<dyn ObjectRoom>, Error> {
        let mut inner = self.inner();
        let free = self.capacity - inner.used;
        if len > free {
            return Err(Error::new(Code::ObjectStoreFull, format!("no room for {len} bytes, {free} are free")));
        }
        inner.used += len;
        inner.rooms += 1;
        Ok(Box::new(Room { shelf: self.clone(), bytes: Vec::new(), len }))
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shelf({})", self.store)
    }
}

// === impl Room ===

impl ObjectRoom for Room {
    fn missing(&self) -> usize {
        self.len - self.bytes.len()
    }

    fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.missing(), "{} bytes into room for {}", bytes.len(), self.missing());
        self.bytes.extend_from_slice(bytes);
    }

    fn seal(mut self: Box<Self>, lease: Lease) -> Result<ObjRef, Error> {
        assert_eq!(self.missing(), 0, "an object is sealed when it is whole");
        let bytes = std::mem::take(&mut self.bytes).into();
        // The room's bytes are the object's from now on.
        self.len = 0;
        let mut inner = self.shelf.inner();
        inner.made += 1;
        let objref = ObjRef { store: self.shelf.store, index: 0, generation: inner.made };
        inner.objects.insert(objref, HeldObject { bytes, lease });
        drop(inner);
        Ok(objref)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shelf.inner().used -= self.len;
    }
}
