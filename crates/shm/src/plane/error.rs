//! Why there is no object plane, no room, or no object; and which code that is.

use std::io;

use anyserve_core::{Code, Error, StoreId};

use crate::table::TableError;

/// Why there is no object plane, or no object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// What the table says.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The reference is of another replica's store.
    #[error("object of store {theirs}, and this is store {ours}")]
    Elsewhere {
        /// The reference's store.
        theirs: StoreId,
        /// This one.
        ours: StoreId,
    },
    /// The pages of a block cannot be had: somebody else filled the file system.
    #[error(
        "/dev/shm is full: no {len} more bytes for the object store; free some, or give it less with --object-store"
    )]
    FileSystem {
        /// Bytes that were wanted.
        len: u64,
    },
    /// Less is free than the arena is to have.
    #[error(
        "/dev/shm has {left} bytes left, and the object store is to have {wanted}: free some, enlarge it \
         (mount -o remount,size=…; docker run --shm-size=…), or give it less with --object-store"
    )]
    Left {
        /// Bytes that are free.
        left: u64,
        /// Bytes that are wanted.
        wanted: u64,
    },
    /// The segment cannot be made.
    #[error("shared memory for the object store cannot be made")]
    Io(#[from] io::Error),
}

// === impl PlaneError ===

impl From<PlaneError> for Error {
    fn from(error: PlaneError) -> Self {
        let code = match &error {
            PlaneError::Table(TableError::Gone) | PlaneError::Elsewhere { .. } => Code::NotFound,
            PlaneError::Table(TableError::NotYours { .. }) => Code::InvalidInput,
            PlaneError::Table(_) | PlaneError::FileSystem { .. } | PlaneError::Left { .. } => Code::ObjectStoreFull,
            PlaneError::Io(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
