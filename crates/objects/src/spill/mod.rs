//! Durable objects: copies that outlive the replica, in a folder or a bucket.
//!
//! ```text
//! objects/<store>-<index>-<generation>     header (its length, checksum, end of lease), then the object's bytes
//! keys/<XXH3 of the key, 128 bits>         the newest object under a key
//! ```
//!
//! Several replicas may share one. An object is written once under a name that no other has, so that nobody ever reads
//! half of one or two at once. Everything that is read back is compared with what its header says, and the header with
//! its own checksum, since whoever may write there may write anything.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod header;
mod janitor;
mod key;
mod open;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyserve_core::{Code, Error, HeldObject, LocalObjects, ObjRef};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

pub(crate) use janitor::janitor;
pub use open::SpillError;

use header::Header;

/// A store for durable objects. Clones are the same store.
#[derive(Clone)]
pub struct Spill {
    store: Arc<dyn ObjectStore>,
}

const OBJECTS: &str = "objects";
const KEYS: &str = "keys";
/// Bytes of an error of the store that a message repeats.
const MAX_CAUSE: usize = 300;

// === impl Spill ===

impl Spill {
    /// Opens a store: a path, `file:///path`, `s3://bucket/prefix`, or `memory:///`, which ends with the process. A folder
    /// is made if it is not there; a bucket is not asked for before it is used.
    pub fn open(place: &str) -> Result<Self, SpillError> {
        open::open(place).map(|store| Self { store })
    }

    /// Keeps an object until its lease ends, and makes it the newest under `key`.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a key that is too long, `UNAVAILABLE` if the store fails.
    ///
    /// # Cancel safety
    /// What was not kept is not there; an upload in parts may leave parts behind, which buckets clear by a rule.
    pub async fn keep(&self, objref: ObjRef, object: HeldObject, key: Option<&str>) -> Result<(), Error> {
        let entry = key.map(|key| key::Entry::try_new(key, objref)).transpose()?;
        let header = Header::of(&object.bytes, now_ms(), object.lease.ttl);
        write::object(&*self.store, &object_path(objref), &header, object.bytes).await?;
        if let Some(entry) = entry {
            let written = self.store.put(&key::path(&entry.key), entry.write().into()).await;
            written.map_err(|error| failed("a key", &error))?;
        }
        Ok(())
    }

    /// Copies an object into the store here; `None` if it is not kept, or not any more.
    ///
    /// # Errors
    /// `NOT_FOUND` if its copy is damaged, `UNAVAILABLE` if the store fails, `OBJECT_STORE_FULL`.
    ///
    /// # Cancel safety
    /// Dropping it gives the room back.
    pub async fn fetch(&self, objref: ObjRef, local: &dyn LocalObjects) -> Result<Option<ObjRef>, Error> {
        match read::object(&*self.store, objref, local, now_ms()).await? {
            read::Found::Here(copy) => Ok(Some(copy)),
            read::Found::Expired => {
                self.remove(&object_path(objref)).await?;
                Ok(None)
            }
            read::Found::Nothing => Ok(None),
        }
    }

    /// The newest object under a key, if its lease lasts.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the store fails.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn lookup(&self, key: &str) -> Result<Option<ObjRef>, Error> {
        let Some(entry) = key::read(&*self.store, &key::path(key)).await? else { return Ok(None) };
        // Two keys may have one hash; the newer has the file, and the older is not there any more.
        if entry.key != key {
            return Ok(None);
        }
        Ok(self.is_kept(entry.objref).await?.then_some(entry.objref))
    }

    /// Deletes an object. False if it was not there.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the store fails.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn delete(&self, objref: ObjRef) -> Result<bool, Error> {
        let kept = self.is_kept(objref).await?;
        self.remove(&object_path(objref)).await?;
        Ok(kept)
    }

    /// Whether an object is there whose header is right and whose lease lasts.
    async fn is_kept(&self, objref: ObjRef) -> Result<bool, Error> {
        let header = read::header(&*self.store, &object_path(objref)).await?;
        Ok(header.is_some_and(|header| !header.is_over(now_ms())))
    }

    /// Removes a file; that it is not there is as good.
    async fn remove(&self, path: &Path) -> Result<(), Error> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(path, &error)),
        }
    }
}

impl fmt::Debug for Spill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spill({})", self.store)
    }
}

/// The name of an object's file.
fn object_path(objref: ObjRef) -> Path {
    let ObjRef { store, index, generation } = objref;
    Path::from(format!("{OBJECTS}/{store}-{index:08x}-{generation:016x}"))
}

/// The store failed on this.
fn failed(what: impl fmt::Display, error: &object_store::Error) -> Error {
    let cause: String = error.to_string().chars().take(MAX_CAUSE).collect();
    Error::new(Code::Unavailable, format!("the store for durable objects failed on {what}: {cause}"))
}

/// Milliseconds since 1970. A clock before that reads as 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
