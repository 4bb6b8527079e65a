//! What a pool is started with, and what it tells while it runs.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Limits, Resources, Uplink};
use anyserve_sched::PoolPolicy;

use crate::SharedMemory;

/// How to start and keep workers.
#[derive(Clone)]
pub struct PoolConfig {
    /// Program of a worker, a Python interpreter as a rule.
    pub program: PathBuf,
    /// What a worker serves: `--target module:app`, and `--factory`.
    pub target: Vec<OsString>,
    /// Workers may be forked off a process that has loaded the app.
    pub fork: bool,
    /// Variables set in addition to the runtime's own.
    pub environment: Vec<(OsString, OsString)>,
    /// Workers of a group that does not say how many, at least 1.
    pub workers: u32,
    /// What the workers share.
    pub resources: Resources,
    /// Times that keep switching in bounds.
    pub policy: PoolPolicy,
    /// Time that what is in flight has when a worker is stopped.
    pub grace: Duration,
    /// Bounds of frames, queues and streams.
    pub limits: Limits,
    /// Time from a worker's start until it must be ready.
    pub start_timeout: Duration,
    /// Time without an answer to a ping after which a worker is replaced.
    pub ping_timeout: Duration,
    /// Time that a handler gets beyond its request's deadline before its worker is replaced.
    pub overrun_grace: Duration,
    /// Time that a fingerprint is refused after its requests killed workers.
    pub quarantine_ttl: Duration,
    /// Time without a request after which a sequence is over.
    pub sequence_idle: Duration,
    /// Shares of tenants; whoever is not named has 1.
    pub tenant_weights: Vec<(String, u32)>,
    /// Memory that is shared with the workers.
    pub memory: SharedMemory,
    /// The way to other replicas, for requests that nothing here matches; `None` for a replica that is alone.
    pub uplink: Option<Arc<dyn Uplink>>,
    /// Whether a handler's traceback is kept with its error.
    pub debug: bool,
    /// Told of every change of a worker's state.
    pub on_event: Arc<dyn Fn(WorkerEvent) + Send + Sync>,
}

/// A worker's state has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerEvent {
    /// The worker: `worker-0`, `Chat-1`.
    pub worker: String,
    /// Its new state, as in [`WorkerStatus`](anyserve_core::WorkerStatus), or `stopped`.
    pub state: &'static str,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Why, in a few words; may be empty.
    pub detail: String,
}

// === impl PoolConfig ===

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig")
            .field("program", &self.program)
            .field("target", &self.target)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
