//! What ingress reads of a replica: which capabilities there are, whether each is ready, and what has been counted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::{Code, Explanation, Fingerprint, Handler, Quarantined, Request, Upgrades};

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
    /// What a request may become that none of them serves.
    pub upgrades: Upgrades,
    /// Set once the replica has begun to leave.
    pub draining: bool,
    /// Grows with every change.
    pub version: u64,
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
    /// The load of each capability, in the order of the catalog.
    pub capabilities: Vec<CapabilityLoad>,
    /// Requests that were sent to a worker again, since the replica started.
    pub retries: u64,
    /// Requests that may not be sent again although they could: the retry budget was used up.
    pub retries_refused: u64,
    /// Fingerprints that are refused now.
    pub quarantined: u64,
    /// The object store, if there is one.
    pub objects: Option<StoreLoad>,
}

/// What the object store holds at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreLoad {
    /// Bytes that it has.
    pub capacity: u64,
    /// Bytes that are taken.
    pub used: u64,
    /// Bytes of the longest piece that is free.
    pub longest_free: u64,
    /// Objects.
    pub objects: u64,
    /// Tensors of requests and responses under way.
    pub tensors: u64,
    /// Objects that were evicted since the replica started.
    pub evicted: u64,
    /// Tensors and objects that are over and that a worker still reads, by worker.
    pub kept: Vec<(String, u64)>,
}

/// The load of one capability at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityLoad {
    /// Its model name.
    pub model: String,
    /// Requests that wait for it.
    pub queued: usize,
    /// Requests that may wait for it.
    pub max_queue: usize,
    /// Its queue is full: a further request is refused. It is ready all the same.
    pub saturated: bool,
    /// Whatever comes is refused: it was unloaded, or its workers keep dying and none is left.
    pub closed: bool,
    /// Workers that take requests for it. Where there are none, one may be started or woken for a request.
    pub workers: usize,
    /// Requests that these workers together run at once; without any, those that one worker would.
    pub slots: usize,
    /// Requests that wait for it or are with its workers, which may have others, too.
    pub pending: usize,
    /// How long one more request would wait, as far as that is known.
    pub wait: Duration,
    /// How long a request runs, as far as that is known.
    pub service: Duration,
}

/// Done when the catalog is another one than was known.
pub type Changed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What ingress may ask about the replica behind it. Every call answers at once.
pub trait Directory {
    /// The capabilities and their readiness.
    fn catalog(&self) -> Arc<Catalog>;

    /// What has been counted of the capability at this place of the catalog, if there is one.
    fn statistics(&self, index: usize) -> Option<Statistics>;

    /// The inside of the replica.
    fn snapshot(&self) -> Snapshot;

    /// Waits until the catalog's version is another than `known`. Dropping the future is fine at any time.
    fn changed(&self, known: u64) -> Changed;

    /// What would be done with this request now. Nothing is done with it.
    fn explain(&self, request: &Request) -> Explanation;

    /// The fingerprints that are refused now, the newest first.
    fn quarantined(&self) -> Vec<Quarantined>;

    /// Releases one fingerprint, or all. Returns how many there were.
    fn release(&self, fingerprint: Option<Fingerprint>) -> usize;
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
