//! Objects by their references, and the plane as those see it who must not know what it is.

use std::time::Instant;

use anyserve_core::{Error, HeldObject, Lease, LocalObjects, ObjRef, ObjectRoom, StoreId, TensorMemory, TensorRoom};

use super::{Plane, PlaneError};
use crate::table::TableError;
use crate::{BlockId, Writer};

// === impl Plane ===

impl Plane {
    /// An object of this store.
    ///
    /// # Errors
    /// It is gone, or of another store.
    pub fn object(&self, objref: ObjRef) -> Result<HeldObject, PlaneError> {
        let block = self.own(objref)?;
        let (extent, lease) = self.inner.event(|state, now| {
            let (_, lease) = state.table.lease(block, now).ok_or(TableError::Gone)?;
            Ok::<_, TableError>((state.table.hold(block, now)?, lease))
        })?;
        Ok(HeldObject { bytes: self.bytes(extent), lease })
    }

    /// What an object was made with, how long it still lives, and its bytes.
    ///
    /// # Errors
    /// It is gone, or of another store.
    pub fn lease(&self, objref: ObjRef) -> Result<(Lease, u64), PlaneError> {
        let block = self.own(objref)?;
        let found = self.inner.state.lock().table.lease(block, Instant::now());
        let (extent, lease) = found.ok_or(TableError::Gone)?;
        Ok((lease, extent.len))
    }

    /// The newest object under a key.
    pub fn lookup(&self, key: &str) -> Option<ObjRef> {
        let found = self.inner.state.lock().table.lookup(key, Instant::now());
        found.map(|block| self.objref(block))
    }

    /// Whoever looks for the object finds it no more. False if it was gone already, or is of another store.
    pub fn delete(&self, objref: ObjRef) -> bool {
        let Ok(block) = self.own(objref) else { return false };
        self.inner.event(|state, _| state.table.delete(block))
    }

    pub(super) fn objref(&self, block: BlockId) -> ObjRef {
        ObjRef { store: self.inner.store, index: block.index, generation: block.generation }
    }

    fn own(&self, objref: ObjRef) -> Result<BlockId, PlaneError> {
        let ObjRef { store, index, generation } = objref;
        if store != self.inner.store {
            return Err(PlaneError::Elsewhere { theirs: store, ours: self.inner.store });
        }
        Ok(BlockId { index, generation })
    }
}

impl TensorMemory for Plane {
    fn threshold(&self) -> usize {
        self.inner.threshold
    }

    fn allocate(&self, len: usize) -> Option<Box<dyn TensorRoom>> {
        Some(Box::new(self.room(len, Writer::Ingress).ok()?))
    }
}

impl LocalObjects for Plane {
    fn store(&self) -> StoreId {
        Self::store(self)
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.inner.layout.capacity).expect("the arena was mapped")
    }

    fn object(&self, objref: ObjRef) -> Result<HeldObject, Error> {
        Ok(Self::object(self, objref)?)
    }

    fn create(&self, len: usize) -> Result<Box<dyn ObjectRoom>, Error> {
        Ok(Box::new(Self::create(self, len)?))
    }
}
