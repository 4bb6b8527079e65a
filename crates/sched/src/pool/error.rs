//! Why a pool cannot be as it is asked to be.

use crate::GroupId;

/// What is asked for cannot be. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A single worker needs more than there is at all.
    #[error(
        "a worker needs {needed} {name} and there are {total}: ask for less, or give the replica more with --resources"
    )]
    TooMuch {
        /// The resource.
        name: String,
        /// What one worker needs.
        needed: u32,
        /// What there is at all.
        total: u32,
    },
    /// Workers that are always there leave no room for the others.
    #[error(
        "the fewest workers of all groups, or of all others and one of a group without any, need {needed} {name} and \
         there are {total}: set min_workers=0 where a worker may start on demand, or give the replica more with --resources"
    )]
    Crowded {
        /// The resource.
        name: String,
        /// What all of them need.
        needed: u64,
        /// What there is at all.
        total: u32,
    },
    /// No number of workers is within the bounds.
    #[error(
        "a group has at least one worker at its most, and no fewer than its least: min_workers={min}, max_workers={max}"
    )]
    Bounds {
        /// The fewest.
        min: u32,
        /// The most.
        max: u32,
    },
    /// There is no such group.
    #[error("there is no group {}", group.0)]
    Unknown {
        /// Its number.
        group: GroupId,
    },
    /// There is such a group already.
    #[error("there is a group {} already", group.0)]
    Taken {
        /// Its number.
        group: GroupId,
    },
}
