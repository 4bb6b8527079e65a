//! Memory that a client shares, under the name that it was registered by.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use crate::region_map::RegionMap;
use crate::regions::{Books, Located, RegionError};

/// What a client is told of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionStatus {
    /// Name that requests use.
    pub name: String,
    /// The shared-memory object, as the client named it.
    pub key: String,
    /// Where the region begins in the object.
    pub offset: u64,
    /// Its bytes.
    pub byte_size: u64,
}

/// A registered region. It lives as long as it is registered and then as long as bytes of it do; its end is told.
#[derive(Debug)]
pub(crate) struct Region {
    id: u64,
    status: RegionStatus,
    map: RegionMap,
    books: Weak<Books>,
}

/// All bytes of a region, as their owner.
pub(crate) struct Whole(pub(crate) Arc<Region>);

// === impl Region ===

impl Region {
    pub(crate) fn new(id: u64, status: RegionStatus, map: RegionMap, books: Weak<Books>) -> Self {
        Self { id, status, map, books }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn status(&self) -> &RegionStatus {
        &self.status
    }

    /// Address of the first byte in this process.
    pub(crate) fn address(&self) -> usize {
        self.map.address()
    }

    /// Refuses a region of which some is gone.
    pub(crate) fn check(&self) -> Result<(), RegionError> {
        if self.map.is_broken() {
            return Err(RegionError::Truncated { name: self.status.name.clone() });
        }
        Ok(())
    }

    /// What another process needs to find `len` bytes at an address of this one; `None` if they are not all inside.
    pub(crate) fn locate(&self, address: usize, len: usize) -> Option<Located> {
        let offset = address.checked_sub(self.address())?;
        if offset.checked_add(len)? > self.map.len() {
            return None;
        }
        Some(Located {
            id: self.id,
            path: format!("/proc/{}/fd/{}", std::process::id(), self.map.file().as_raw_fd()),
            start: self.status.offset,
            len: self.status.byte_size,
            offset: u64::try_from(offset).ok()?,
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Before the memory is unmapped: its address may be another's the moment after.
        if let Some(books) = self.books.upgrade() {
            books.released(self);
        }
    }
}

// === impl Whole ===

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.map.as_ref()
    }
}
