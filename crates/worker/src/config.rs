//! What a pool is started with, and what it tells while it runs.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyserve_core::Limits;

use crate::SharedMemory;

/// How to start and keep workers.
#[derive(Clone)]
pub struct PoolConfig {
    /// Program of a worker, a Python interpreter as a rule.
    pub program: PathBuf,
    /// Its arguments; the pool adds `--socket PATH --worker-id N`.
    pub arguments: Vec<OsString>,
    /// Variables set in addition to the runtime's own.
    pub environment: Vec<(OsString, OsString)>,
    /// Number of workers, at least 1.
    pub workers: u32,
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
    /// Whether a handler's traceback is kept with its error.
    pub debug: bool,
    /// Told of every change of a worker's state.
    pub on_event: Arc<dyn Fn(WorkerEvent) + Send + Sync>,
}

/// A worker's state has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerEvent {
    /// The worker: `worker-0`.
    pub worker: String,
    /// Its new state: `starting`, `ready`, `draining`, `stopping`, `backing-off`, `stopped`.
    pub state: &'static str,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Why, in a few words; may be empty.
    pub detail: String,
}

/// Name of the one worker group there is today.
pub(crate) const DEFAULT_GROUP: &str = "default";

// === impl PoolConfig ===

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
