//! What a replica tells whoever started it.

use std::net::SocketAddr;
use std::path::PathBuf;
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
        /// Those of the names that answer with a stream.
        streams: Vec<String>,
        /// How many workers are ready.
        workers: u32,
    },
    /// A file of the app has changed, and it is loaded again.
    Reloading {
        /// The file.
        path: PathBuf,
    },
    /// That has ended.
    Reloaded {
        /// Why the earlier workers go on serving, with the traceback; `None` if the new ones do.
        error: Option<String>,
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
