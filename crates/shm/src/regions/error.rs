//! Why a region cannot be registered, and why a part of one cannot be had. Where Triton has words for it, they are Triton's.

use std::io;

use super::{MAX_REGION_NAME, MAX_REGIONS};
use crate::region_key::KeyError;
use crate::region_map::MapError;

/// A region that cannot be registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A region of that name is there.
    #[error("shared memory region '{name}' already in manager")]
    Already {
        /// The region.
        name: String,
    },
    /// The name is empty or too long.
    #[error("the name of a shared memory region has {len} bytes, it takes 1 to {MAX_REGION_NAME}")]
    Name {
        /// Bytes of the name.
        len: usize,
    },
    /// As many are registered as there may be.
    #[error("failed to register shared memory region '{name}': {MAX_REGIONS} are registered, which is the limit")]
    Full {
        /// The region.
        name: String,
    },
    /// The key names no object that may be shared.
    #[error("failed to register shared memory region '{name}': {source}")]
    Key {
        /// The region.
        name: String,
        /// What is wrong with the key.
        source: KeyError,
    },
    /// The region has no bytes.
    #[error("failed to register shared memory region '{name}': its byte_size is 0")]
    Empty {
        /// The region.
        name: String,
    },
    /// The region's end cannot be counted.
    #[error(
        "failed to register shared memory region '{name}': offset {offset} and byte_size {byte_size} are beyond what can be mapped"
    )]
    Overflow {
        /// The region.
        name: String,
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        byte_size: u64,
    },
    /// There is no such object, or it is not for us.
    #[error("Unable to open shared memory region: '{key}': {source}")]
    Open {
        /// The object.
        key: String,
        /// What the system says.
        source: io::Error,
    },
    /// The object belongs to another user.
    #[error(
        "failed to register shared memory region '{name}': '{key}' belongs to user {owner}, this server runs as {own}"
    )]
    Owner {
        /// The region.
        name: String,
        /// The object.
        key: String,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// The object is no memory, too short, or cannot be mapped.
    #[error("failed to register shared memory region '{name}': '{key}': {source}")]
    Map {
        /// The region.
        name: String,
        /// The object.
        key: String,
        /// What is wrong with it.
        source: MapError,
    },
}

/// A part of a region that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// No region has that name.
    #[error("Unable to find shared memory region: '{name}'")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The part is not inside of the region.
    #[error("Invalid offset + byte size for shared memory region: '{name}': {offset} + {byte_size} of {len} bytes")]
    Beyond {
        /// The region.
        name: String,
        /// Where the part begins.
        offset: u64,
        /// Its bytes.
        byte_size: u64,
        /// Bytes of the region.
        len: u64,
    },
    /// The client has made its object shorter.
    #[error("shared memory region '{name}' was truncated after it was registered: unregister it")]
    Truncated {
        /// The region.
        name: String,
    },
}
