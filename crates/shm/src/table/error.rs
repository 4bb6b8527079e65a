//! Why the table refuses something.

/// Why there is no block, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The arena has no room, also after everything that may be evicted is gone.
    #[error(
        "the object store has no room for {len} bytes: {free} of {capacity} are free, {longest} in one piece; give it more \
         with --object-store, or delete objects"
    )]
    Full {
        /// Bytes that were asked for.
        len: u64,
        /// Bytes that are free.
        free: u64,
        /// The longest free run.
        longest: u64,
        /// All bytes.
        capacity: u64,
    },
    /// As many blocks as the table has places for.
    #[error("the object store holds {max} objects and tensors, as many as it can; give it more with --object-store")]
    Crowded {
        /// How many.
        max: u32,
    },
    /// Nothing is there: it never was, or is gone.
    #[error("no such object: it was deleted, evicted, or its lease is over")]
    Gone,
    /// More than the block has was said to be in use, or the caller is not who writes to it.
    #[error("block {index} cannot be sealed with {len} bytes by this writer")]
    NotYours {
        /// The block's place.
        index: u32,
        /// Bytes that were said to be in use.
        len: u64,
    },
}
