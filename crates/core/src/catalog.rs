//! What ingress reads of a replica: which capabilities there are, whether each is ready, and what has been counted.

use std::sync::Arc;
use std::time::Duration;

use crate::{Code, Handler};

/// One capability of the catalog.
#[derive(Clone, Debug)]
pub struct CatalogEntry {
    /// The handler with its options and specs.
    pub handler: Arc<Handler>,
    /// Whether a worker can take a request for it now.
    pub ready: bool,
}

/// Every capability that this replica serves, in the order of the handler table.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The capabilities.
    pub entries: Vec<CatalogEntry>,
    /// Set once the replica has begun to leave.
    pub draining: bool,
}

/// A number of events and the time they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// How long, summed up.
    pub total: Duration,
}

/// What has been counted of one capability since the replica started.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Requests that ended with an answer, from arrival to answer.
    pub success: Durations,
    /// Requests that ended with an error, except cancelled ones.
    pub fail: Durations,
    /// Requests whose caller left.
    pub cancel: Durations,
    /// Time between arrival and being sent to a worker.
    pub queue: Durations,
    /// Time in the handler.
    pub compute: Durations,
    /// Milliseconds since the Unix epoch of the newest request; 0 if there was none.
    pub last_request_ms: u64,
    /// Ended requests by code.
    pub failures: Vec<(Code, u64)>,
}

/// Workers in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCount {
    /// Name of the worker group.
    pub group: String,
    /// Name of the state.
    pub state: &'static str,
    /// How many workers are in it.
    pub count: u64,
}

/// What metrics show of the replica's inside at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Requests that wait, by worker group.
    pub queued: Vec<(String, u64)>,
    /// Requests that are with a worker, by worker group.
    pub in_flight: Vec<(String, u64)>,
    /// Workers by group and state.
    pub workers: Vec<WorkerCount>,
    /// Workers that were started again, by group.
    pub restarts: Vec<(String, u64)>,
}

/// What ingress may ask about the replica behind it. Every call answers at once.
pub trait Directory {
    /// The capabilities and their readiness.
    fn catalog(&self) -> Arc<Catalog>;

    /// What has been counted of the capability at this place of the catalog, if there is one.
    fn statistics(&self, index: usize) -> Option<Statistics>;

    /// The inside of the replica.
    fn snapshot(&self) -> Snapshot;
}

// === impl Catalog ===

impl Catalog {
    /// Whether every capability is ready and the replica isn't leaving. A replica without capabilities is not.
    pub fn ready(&self) -> bool {
        !self.draining && !self.entries.is_empty() && self.entries.iter().all(|entry| entry.ready)
    }

    /// The entries that a KServe client means by this model name, as requests are matched.
    pub fn named(&self, model: &str) -> Vec<(usize, &CatalogEntry)> {
        let capabilities = self.entries.iter().map(|entry| &entry.handler.capability);
        let matches = crate::matches_of(&crate::Query::model(model), capabilities);
        matches.into_iter().map(|found| (found.index, &self.entries[found.index])).collect()
    }
}
