//! What a replica tells whoever started it.

use std::net::SocketAddr;
use std::time::Duration;

use anyserve_core::{Capability, TensorSpec};
use anyserve_worker::WorkerEvent;

/// A step in a replica's life.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker's state has changed.
    Worker(WorkerEvent),
    /// Every worker is ready; requests are served.
    Serving {
        /// Where.
        endpoint: SocketAddr,
        /// What.
        capabilities: Vec<Capability>,
        /// The names by which KServe clients call it.
        models: Vec<String>,
        /// What each of them declares as inputs, in the same order; `None` where nothing is declared.
        inputs: Vec<Option<Vec<TensorSpec>>>,
        /// How many workers there are.
        workers: u32,
    },
    /// A signal came: no new connections, what is in flight may finish.
    Draining {
        /// Requests under way.
        in_flight: usize,
        /// How long they have.
        grace: Duration,
    },
    /// The replica is gone.
    Stopped {
        /// Requests that were aborted; 0 if all were answered.
        aborted: u64,
    },
}
