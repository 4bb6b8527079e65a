//! What an operator may order.

use std::future::Future;
use std::pin::Pin;

use crate::{Error, Status};

/// An order about models, workers or the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Serve this model again, with so many workers if that is said. Done when a worker of its group is ready.
    Load {
        /// The model's name.
        model: String,
        /// The fewest workers from now on.
        workers: Option<u32>,
    },
    /// Serve this model, and whatever else its group serves, no more. Done when it is not ready; what is in flight is
    /// finished.
    Unload {
        /// The model's name.
        model: String,
    },
    /// One worker more. Done when it is ready.
    Start {
        /// The group's name.
        group: String,
    },
    /// Keep at least, and start with, this number of workers; the bounds of the app are moved if need be. Done when they are
    /// ready, or what is too many is gone.
    Scale {
        /// The group's name.
        group: String,
        /// How many.
        workers: u32,
    },
    /// Finish what a worker, or each worker of a group, has in flight, and end it. Done when it is gone.
    Drain {
        /// A worker's name or a group's name.
        name: String,
    },
    /// The same, but what is not finished at the end of the replica's grace is ended.
    Stop {
        /// A worker's name or a group's name.
        name: String,
    },
    /// Load the app again: new workers beside the old ones, then the old ones leave. Done when requests go to the new ones.
    Reload,
    /// Take no more requests. Done when nothing is in flight.
    DrainReplica,
}

/// How an order ends. Dropping the future gives up waiting only: the order stands from the call on.
pub type Obeyed = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Who takes orders.
pub trait Control {
    /// The inside of the replica now.
    fn status(&self) -> Status;

    /// Begins to carry out an order.
    ///
    /// # Errors
    /// The future gives `NOT_FOUND` for a model, group or worker that there is not, with those that there are;
    /// `INVALID_INPUT` for a number out of its bounds; `OVERLOADED` where resources are lacking; `UNAVAILABLE` where a
    /// worker does not start, with its reason; `DRAINING` for a replica that leaves.
    fn order(&self, order: Order) -> Obeyed;

    /// The process leaves and waits no longer: every request that is not answered ends now, with `DRAINING` if it was with no
    /// worker and with `WORKER_LOST` if it was.
    fn give_up(&self);
}
