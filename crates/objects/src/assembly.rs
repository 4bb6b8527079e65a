//! An object out of the chunks that a peer sends.

use std::time::Duration;

use anyserve_core::{Error, Lease, LocalObjects, ObjRef, ObjectRoom};
use anyserve_proto::v1::{PullChunk, PullHead};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// An object of which bytes are still to come. Dropping it gives the room back.
///
/// Nothing that the peer says is believed: its length is compared with what the store could ever hold before room is
/// reserved, every chunk with its checksum before it is written, and all of them with that of the whole.
pub(crate) struct Assembly {
    room: Box<dyn ObjectRoom>,
    len: usize,
    remaining: Duration,
    whole: Box<Xxh3>,
}

/// An object of which every byte is there and right.
pub(crate) struct Whole {
    room: Box<dyn ObjectRoom>,
    remaining: Duration,
}

/// How far an object is.
pub(crate) enum Progress {
    More(Assembly),
    Whole(Whole),
}

/// A peer that does not keep to the protocol, or a store that has no room.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AssemblyError {
    #[error("the first chunk does not say how long the object is")]
    NoHead,
    #[error("a chunk that is not the first begins an object of {len} bytes")]
    SecondHead { len: u64 },
    #[error("chunk at byte {at} has the checksum {have:016x}, its bytes have {expected:016x}")]
    Checksum { at: usize, have: u64, expected: u64 },
    #[error("chunk at byte {at} has {more} bytes, the object has {len}")]
    TooLong { at: usize, more: usize, len: usize },
    #[error("chunk at byte {at} of {len} is empty")]
    Empty { at: usize, len: usize },
    #[error("the last chunk ends at byte {have} of {len}")]
    TooShort { have: usize, len: usize },
    #[error("the chunk that ends the object of {len} bytes has no checksum of the whole")]
    NoWhole { len: usize },
    #[error("the object has the checksum {have:016x}, its bytes have {expected:016x}")]
    Whole { have: u64, expected: u64 },
    #[error("an object of {len} bytes is more than the store here can ever hold, {capacity}")]
    TooLarge { len: u64, capacity: usize },
    #[error(transparent)]
    Room(Error),
}

// === impl Assembly ===

impl Assembly {
    /// Begins with the first chunk.
    pub(crate) fn begin(chunk: &PullChunk, objects: &dyn LocalObjects) -> Result<Progress, AssemblyError> {
        let PullHead { len: promised, remaining_ms } = chunk.head.ok_or(AssemblyError::NoHead)?;
        let capacity = objects.capacity();
        let len = usize::try_from(promised).ok().filter(|len| *len <= capacity);
        let len = len.ok_or(AssemblyError::TooLarge { len: promised, capacity })?;
        check(chunk, 0, len)?;
        let room = objects.create(len).map_err(AssemblyError::Room)?;
        Self { room, len, remaining: Duration::from_millis(remaining_ms), whole: Box::default() }.write(chunk)
    }

    /// Adds a further chunk.
    pub(crate) fn add(self, chunk: &PullChunk) -> Result<Progress, AssemblyError> {
        if let Some(PullHead { len, .. }) = chunk.head {
            return Err(AssemblyError::SecondHead { len });
        }
        check(chunk, self.have(), self.len)?;
        self.write(chunk)
    }

    /// Bytes that are there.
    pub(crate) fn have(&self) -> usize {
        self.len - self.room.missing()
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn write(mut self, chunk: &PullChunk) -> Result<Progress, AssemblyError> {
        self.whole.update(&chunk.data);
        self.room.write(&chunk.data);
        let Some(have) = chunk.whole else { return Ok(Progress::More(self)) };
        let expected = self.whole.digest();
        if have != expected {
            return Err(AssemblyError::Whole { have, expected });
        }
        Ok(Progress::Whole(Whole { room: self.room, remaining: self.remaining }))
    }
}

/// Compares a chunk with what is missing and with its own checksum.
fn check(chunk: &PullChunk, at: usize, len: usize) -> Result<(), AssemblyError> {
    let more = chunk.data.len();
    let missing = len - at;
    if more > missing {
        return Err(AssemblyError::TooLong { at, more, len });
    }
    if more == 0 && len > 0 {
        return Err(AssemblyError::Empty { at, len });
    }
    match (chunk.whole, more == missing) {
        (Some(_), false) => return Err(AssemblyError::TooShort { have: at + more, len }),
        (None, true) => return Err(AssemblyError::NoWhole { len }),
        _ => {}
    }
    let expected = xxh3_64(&chunk.data);
    if chunk.checksum == expected {
        Ok(())
    } else {
        Err(AssemblyError::Checksum { at, have: chunk.checksum, expected })
    }
}

// === impl Whole ===

impl Whole {
    /// Makes it an object that may be evicted: where it came from has it still. `None` if its lease ended on the way,
    /// which took `elapsed` since the first chunk.
    ///
    /// # Errors
    /// As [`ObjectRoom::seal`].
    pub(crate) fn seal(self, elapsed: Duration) -> Result<Option<ObjRef>, Error> {
        let ttl = self.remaining.saturating_sub(elapsed);
        if ttl.is_zero() {
            return Ok(None);
        }
        self.room.seal(Lease { ttl, cacheable: true, ..Lease::default() }).map(Some)
    }
}
