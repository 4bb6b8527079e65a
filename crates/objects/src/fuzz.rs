//! Fuzz targets: what comes from other replicas, and from the spill.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::time::Duration;

use anyserve_core::{Code, Error, HeldObject, Lease, LocalObjects, ObjRef, ObjectRoom, StoreId};
use anyserve_proto::v1::PullChunk;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::assembly::{Assembly, Progress};
pub use crate::spill::fuzz::spill;

/// Bytes of the longest object here.
const CAPACITY: usize = 4096;

/// Bytes as the chunks of an object, each behind its length in two bytes. Checksums that are 0 are put right, so that
/// chance comes further than to the first one. What becomes an object has every byte of every chunk.
pub fn pulled(data: &[u8]) {
    let mut sent = Vec::new();
    let mut assembly: Option<Assembly> = None;
    for chunk in chunks(data) {
        let Ok(mut chunk) = PullChunk::decode(chunk) else { return };
        sent.extend_from_slice(&chunk.data);
        if chunk.checksum == 0 {
            chunk.checksum = xxh3_64(&chunk.data);
        }
        chunk.whole = chunk.whole.map(|sum| if sum == 0 { xxh3_64(&sent) } else { sum });
        let next = match assembly.take() {
            None => Assembly::begin(&chunk, &Store),
            Some(begun) => begun.add(&chunk),
        };
        match next {
            Ok(Progress::More(more)) => {
                assert!(more.have() == sent.len() && more.have() < more.len() && more.len() <= CAPACITY);
                assembly = Some(more);
            }
            Ok(Progress::Whole(whole)) => {
                let sealed = whole.seal(Duration::from_millis(7)).expect("there is room");
                assert!(sealed.is_none_or(|objref| objref.generation == xxh3_64(&sent)));
                return;
            }
            Err(_) => return,
        }
    }
}

fn chunks(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = data.split_first_chunk()?;
        let (chunk, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        data = rest;
        Some(chunk)
    })
}

/// A store that gives objects the names of their bytes.
#[derive(Debug)]
struct Store;

#[derive(Debug)]
struct Room {
    bytes: Vec<u8>,
    len: usize,
}

impl LocalObjects for Store {
    fn store(&self) -> StoreId {
        StoreId(1)
    }

    fn capacity(&self) -> usize {
        CAPACITY
    }

    fn object(&self, _: ObjRef) -> Result<HeldObject, Error> {
        Err(Error::new(Code::NotFound, "nothing is kept"))
    }

    fn create(&self, len: usize) -> Result<Box<dyn ObjectRoom>, Error> {
        Ok(Box::new(Room { bytes: Vec::with_capacity(len), len }))
    }
}

impl ObjectRoom for Room {
    fn missing(&self) -> usize {
        self.len - self.bytes.len()
    }

    fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.missing());
        self.bytes.extend_from_slice(bytes);
    }

    fn seal(self: Box<Self>, lease: Lease) -> Result<ObjRef, Error> {
        assert!(self.missing() == 0 && !lease.ttl.is_zero());
        Ok(ObjRef { store: StoreId(1), index: 0, generation: xxh3_64(&self.bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn an_object_that_is_pulled_has_every_byte_or_is_none() {
        attack("pulled", pulled);
    }
}
