//! What can be wrong with a message whose protobuf is right.

use anyserve_core::Datatype;

/// A message that reads as protobuf and is still none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A number without a meaning.
    #[error("{what} has no meaning for the number {number}")]
    Number {
        /// The field.
        what: &'static str,
        /// Its value.
        number: u32,
    },
    /// A field that must be set is not.
    #[error("{what} is missing")]
    Missing {
        /// The field.
        what: &'static str,
    },
    /// The tensors' lengths do not add up to the body.
    #[error("tensor '{tensor}' has {len} bytes and the body {left} more")]
    Body {
        /// The tensor.
        tensor: String,
        /// Its announced length.
        len: u64,
        /// Bytes that are left in the body.
        left: usize,
    },
    /// A tensor's bytes are not where it says they are.
    #[error("tensor '{tensor}' has no {len} bytes at its place in shared memory")]
    Place {
        /// The tensor.
        tensor: String,
        /// Its announced length.
        len: u64,
    },
    /// A tensor has two places.
    #[error("tensor {tensor} has two places")]
    Placed {
        /// Its number.
        tensor: u32,
    },
    /// Bytes of the body belong to no tensor.
    #[error("{left} bytes of the body belong to no tensor")]
    Surplus {
        /// How many.
        left: usize,
    },
    /// Shape, datatype and length of a tensor disagree.
    #[error("tensor '{tensor}' of {datatype} and shape {shape:?} cannot have {len} bytes")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// Its datatype.
        datatype: Datatype,
        /// Its shape.
        shape: Vec<i64>,
        /// Its length.
        len: usize,
    },
    /// A batch with no member, or with too many.
    #[error("a batch has {members} members, from 1 to {max} are allowed")]
    Members {
        /// How many it has.
        members: usize,
        /// How many it may have.
        max: usize,
    },
    /// The members' lengths do not add up to the body of their batch.
    #[error("request {id} of a batch has {len} bytes and the body {left} more")]
    Member {
        /// The request.
        id: u64,
        /// Its announced length.
        len: u64,
        /// Bytes that are left in the body.
        left: usize,
    },
    /// Bytes of a batch's body belong to no member.
    #[error("{left} bytes of the body belong to no request of the batch")]
    Memberless {
        /// How many.
        left: usize,
    },
    /// The members of a batch are for different handlers.
    #[error("a batch is for handler {first} and for handler {other}")]
    Mixed {
        /// Handler of the first member.
        first: u32,
        /// Handler of another one.
        other: u32,
    },
    /// Two members of a batch have the same id or slot.
    #[error("two requests of a batch have the {what} {number}")]
    Twice {
        /// `"id"` or `"slot"`.
        what: &'static str,
        /// What they have in common.
        number: u64,
    },
    /// An upgrade rule that is none, or too many of them.
    #[error(transparent)]
    Upgrade(#[from] anyserve_core::UpgradeError),
    /// A capability that is none.
    #[error(transparent)]
    Capability(#[from] anyserve_core::CapabilityError),
}
