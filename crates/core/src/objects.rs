//! Objects that are in this replica's memory, as those see them who must not know where it is.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::{Error, ObjRef, StoreId};

/// What an object was made with, and how long it lives from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Time until it ends.
    pub ttl: Duration,
    /// The key that the object can be looked up by.
    pub key: Option<String>,
    /// Whether the object may be evicted where room is needed: it can be had again.
    pub cacheable: bool,
    /// Whether it is to outlive the replica.
    pub durable: bool,
}

/// The lease of objects whose maker says nothing else.
const DEFAULT_TTL: Duration = Duration::from_mins(10);

// === impl Lease ===

impl Default for Lease {
    /// Ten minutes, without a key, neither evicted nor kept.
    fn default() -> Self {
        Self { ttl: DEFAULT_TTL, key: None, cacheable: false, durable: false }
    }
}

/// An object that is held: it stays while these bytes or a slice of them do.
#[derive(Clone, Debug)]
pub struct HeldObject {
    /// All of it. They say nothing about where they lie: a copy of them is a copy of the object.
    pub bytes: Bytes,
    /// Its lease.
    pub lease: Lease,
}

/// The object store of this replica.
pub trait LocalObjects: fmt::Debug + Send + Sync {
    /// Which one it is.
    fn store(&self) -> StoreId;

    /// Bytes of the longest object that it could ever have.
    fn capacity(&self) -> usize;

    /// Holds an object.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none, which is so for every object of another store.
    fn object(&self, objref: ObjRef) -> Result<HeldObject, Error>;

    /// Room for an object of exactly `len` bytes.
    ///
    /// # Errors
    /// `OBJECT_STORE_FULL` if there is none, evictions included.
    fn create(&self, len: usize) -> Result<Box<dyn ObjectRoom>, Error>;
}

/// Room for one object. Dropping it gives it back.
pub trait ObjectRoom: fmt::Debug + Send {
    /// Bytes that are still to come.
    fn missing(&self) -> usize;

    /// Appends bytes, at most as many as are missing.
    fn write(&mut self, bytes: &[u8]);

    /// Makes it an object; nothing may be missing.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the bytes are no object, `OBJECT_STORE_FULL` if there is no place for its name.
    fn seal(self: Box<Self>, lease: Lease) -> Result<ObjRef, Error>;
}
