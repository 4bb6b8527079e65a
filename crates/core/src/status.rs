//! What a replica shows of its inside: groups, workers, resources. The command, the page and the admin paths show the same.

use std::time::Duration;

use crate::{Needs, StoreLoad};

/// A replica at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Time since it started.
    pub uptime: Duration,
    /// It takes no more requests.
    pub draining: bool,
    /// Requests that wait or are with a worker.
    pub in_flight: u64,
    /// It drains and nothing is in flight: stopping it loses nothing.
    pub safe_to_stop: bool,
    /// How often its app was loaded; from 1.
    pub generation: u32,
    /// Its worker groups, in the order of declaration.
    pub groups: Vec<GroupStatus>,
    /// What its workers share.
    pub resources: Vec<ResourceStatus>,
    /// The object store, if there is one.
    pub objects: Option<StoreLoad>,
}

/// A worker group at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `ready`, `starting`, `waiting` (for resources), `asleep`, `stopped` (and started on demand), `down`, `unloaded` or
    /// `leaving` (of an earlier load of the app).
    pub state: &'static str,
    /// Model names that it serves, each once.
    pub models: Vec<String>,
    /// Its workers, the oldest first.
    pub workers: Vec<WorkerStatus>,
    /// Workers that are always there.
    pub min_workers: u32,
    /// Workers that there may be.
    pub max_workers: u32,
    /// What each of its workers needs.
    pub needs: Needs,
    /// Requests that wait.
    pub queued: u64,
    /// Requests that are with a worker.
    pub in_flight: u64,
    /// Age of the oldest request that waits.
    pub oldest_wait: Option<Duration>,
    /// Requests that ended with an answer, since the replica started.
    pub succeeded: u64,
    /// Requests that ended with an error, since the replica started.
    pub failed: u64,
    /// Workers that were started, since the replica started.
    pub starts: u64,
    /// Workers that died and were started again, since the replica started.
    pub restarts: u64,
    /// Time that a start takes, as measured.
    pub start_time: Option<Duration>,
    /// Time that waking takes, as measured.
    pub wake_time: Option<Duration>,
}

/// A worker at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerStatus {
    /// Its name: `worker-0`, `Chat-1`.
    pub name: String,
    /// `starting`, `ready`, `draining`, `falling-asleep`, `asleep`, `waking`, `replacing`, `backing-off` or `stopping`.
    pub state: &'static str,
    /// Time in this state.
    pub since: Duration,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Requests that it holds.
    pub in_flight: u64,
    /// GPUs that it has.
    pub gpus: Vec<String>,
    /// Bytes of memory that are its own (resident and not shared), as far as that is known.
    pub memory: Option<u64>,
    /// Why it is in this state, in a few words; may be empty.
    pub detail: String,
}

/// A resource at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its name; `gpu` for GPUs.
    pub name: String,
    /// How much there is.
    pub total: u64,
    /// How much workers have.
    pub used: u64,
}
