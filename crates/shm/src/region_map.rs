//! A part of a file that a client shares, mapped and guarded.

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use crate::guard::{Guard, GuardError};

/// A part of a file that cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// There are as many mappings as there may be.
    #[error("{0}")]
    Full(String),
    /// The system refuses.
    #[error("it cannot be mapped: {0}")]
    Io(#[from] io::Error),
    /// It is a directory, a device or the like.
    #[error("it is no regular file")]
    NotAFile,
    /// The file ends before the part does.
    #[error("it has {len} bytes, {needed} are needed")]
    Short {
        /// Bytes of the file.
        len: u64,
        /// Where the part ends.
        needed: u64,
    },
}

/// Mapped memory of a client's, readable and writable. Whoever shares it may write to it and take it away at any time.
#[derive(Debug)]
pub(crate) struct RegionMap {
    // Dropped before the memory is unmapped.
    guard: Guard,
    map: MmapRaw,
    file: File,
    end: u64,
}

// === impl RegionMap ===

impl RegionMap {
    /// Maps `len` bytes of the file from `start` on; there has to be at least one.
    #[allow(unsafe_code)]
    pub(crate) fn try_new(file: File, start: u64, len: usize) -> Result<Self, MapError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(MapError::NotAFile);
        }
        let end = u64::try_from(len).ok().and_then(|len| start.checked_add(len)).unwrap_or(u64::MAX);
        if end > metadata.len() {
            return Err(MapError::Short { len: metadata.len(), needed: end });
        }
        let map = MmapOptions::new().offset(start).len(len).map_raw(&file)?;
        // SAFETY: the map is a whole number of pages around these bytes and nobody else's. It outlives the guard, which
        // stands before it. Its bytes are a client's and may be anything at any time, so also zero.
        let guard = unsafe { Guard::try_new(map.as_ptr(), map.len()) }?;
        Ok(Self { guard, map, file, end })
    }

    /// The file, which is there as long as the map.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Address of the first byte.
    pub(crate) fn address(&self) -> usize {
        self.map.as_ptr().addr()
    }

    /// Bytes that are mapped.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether some of it is gone, so that what was read may be zeros and what was written lost.
    pub(crate) fn is_broken(&self) -> bool {
        // A file that was cut within a page is not noticed by a fault.
        self.guard.is_broken() || self.file.metadata().map_or(true, |metadata| metadata.len() < self.end)
    }

    /// Writes bytes `at` an offset. They fit: the caller has checked.
    #[allow(unsafe_code)]
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        let end = at.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.len()), "{} bytes at {at} of {}", bytes.len(), self.len());
        let to = self.map.as_mut_ptr().wrapping_add(at);
        if std::ptr::eq(bytes.as_ptr(), to) {
            // An input that is answered with, into the memory that it came in: the bytes are there.
            return;
        }
        // SAFETY: the bounds are checked just above. It is shared memory: another process may write at the same time,
        // and then the bytes are a mix, which is the client's own doing. The source may lie in the same memory.
        unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) }
    }
}

impl AsRef<[u8]> for RegionMap {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory is mapped as long as `self` lives, and a fault in it is mended by the guard. The client may
        // change it under our eyes, so nobody reads it twice and relies on having seen the same: bytes are only copied
        // or handed to a handler, and what has to be valid is copied before it is checked.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }
}

// === impl MapError ===

impl From<GuardError> for MapError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Full => Self::Full(error.to_string()),
            GuardError::Install(source) => Self::Io(source),
        }
    }
}
