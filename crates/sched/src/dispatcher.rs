//! The dispatcher: which request goes to which worker, and which is refused, expired, cancelled or lost.

mod clock;
mod death;
mod decide;
mod end;
mod openings;
mod send;
mod submit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Error, Fingerprint};
use slab::Slab;

pub use clock::Slots;
pub use death::Cause;
pub use decide::{Outlook, Verdict};
pub use openings::CannotRest;

use crate::group::Group;
use crate::queue::{Due, Lane, Place, Rank, Waiting};
use crate::sequence::Sequences;
use crate::timers::Timers;
use crate::{GroupId, GroupLoad, HandlerLimits, Payload, Quarantine, Record, Ticket, WorkerId};

/// Bounds and times of a dispatcher.
#[derive(Clone, Debug)]
pub struct SchedConfig {
    /// Bytes of waiting requests that a group may hold.
    pub max_queued_bytes: usize,
    /// Bytes of requests that may be in one batch.
    pub max_batch_bytes: usize,
    /// Requests that one worker can hold.
    pub slots: u32,
    /// Time that a handler gets beyond its request's deadline before its worker is replaced.
    pub overrun_grace: Duration,
    /// Time that a fingerprint is refused after its requests killed workers.
    pub quarantine_ttl: Duration,
    /// Time without a request after which a sequence is over.
    pub sequence_idle: Duration,
    /// Shares of tenants; whoever is not named has 1.
    pub tenant_weights: HashMap<String, u32>,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action<T> {
    /// Send the request to the worker; its payload is in the dispatcher.
    Send(WorkerId, Sending),
    /// Send the requests to the worker in one batch; at least two.
    SendBatch(WorkerId, Vec<Sending>),
    /// Take the request back from the worker, or stop its handler. The caller is answered already.
    Withdraw {
        /// The request.
        ticket: Ticket,
        /// Where it is.
        worker: WorkerId,
        /// Its place in the worker's slot table.
        slot: u32,
    },
    /// The request is over without an answer: tell its caller.
    Over(Over<T>),
    /// A handler of this worker does not end: end its process.
    Replace(WorkerId),
}

/// A request on its way to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The request.
    pub ticket: Ticket,
    /// Its place in the worker's slot table.
    pub slot: u32,
    /// 1 for the first time.
    pub attempt: u32,
}

/// A request that ended without an answer.
#[derive(Debug)]
pub struct Over<T> {
    /// The request.
    pub ticket: Ticket,
    /// What was submitted with it.
    pub payload: T,
    /// Why.
    pub error: Error,
    /// How often it was sent to a worker.
    pub attempts: u32,
}

/// A request that was not accepted, with what was to be submitted.
#[derive(Debug)]
pub struct Refusal<T> {
    /// What was to be submitted.
    pub payload: T,
    /// Why it was not.
    pub error: Error,
}

/// A request that its worker has answered for.
#[derive(Debug)]
pub struct Finished<T> {
    /// What was submitted with it, unless its caller had left or was answered before.
    pub payload: Option<T>,
    /// The slot that is free again.
    pub slot: u32,
    /// How often it was sent to a worker.
    pub attempts: u32,
}

/// What [`Dispatcher::submit`] says.
pub type Submitted<T> = Result<Ticket, Box<Refusal<T>>>;

/// The state machine. `T` is whatever the shell keeps with a request until it is over.
#[derive(Debug)]
pub struct Dispatcher<T> {
    config: SchedConfig,
    weights: Arc<HashMap<String, u32>>,
    groups: Vec<Group>,
    requests: Slab<Request<T>>,
    sequences: Sequences,
    quarantine: Quarantine,
    timers: Timers,
    /// Requests that ended with the sequence they were waiting in, and are to be told.
    fallen: Vec<(Ticket, Error)>,
    serial: u64,
    turn: usize,
}

#[derive(Debug)]
struct Request<T> {
    ticket: Ticket,
    group: GroupId,
    handler: usize,
    deadline: Option<Instant>,
    arrived: Instant,
    bytes: usize,
    level: usize,
    /// `None` for the tenant without a name.
    tenant: Option<Box<str>>,
    batch: Option<u64>,
    lane: Lane,
    /// Its place in the table of sequences.
    sequence: Option<usize>,
    fingerprint: Option<Fingerprint>,
    attempts: u32,
    deaths: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    /// Behind another request of its sequence.
    Behind(T),
    Queued(T, Place),
    Sent(T, WorkerId),
    /// Its caller is answered or has left; its worker is still at it.
    Abandoned(WorkerId),
    /// On its way from one state to another; never seen from outside.
    Between,
}

/// A worker answered for a request that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRequest {
    /// What it answered for.
    pub ticket: Ticket,
    /// Who it was.
    pub worker: WorkerId,
}

/// Retries of all groups since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retries {
    /// Requests that were sent again after their worker's death.
    pub sent: u64,
    /// Requests that were not, because the budget was used up.
    pub refused: u64,
}

// === impl SchedConfig ===

impl Default for SchedConfig {
    /// 2 GiB of queue, 1 GiB a batch, 4 096 slots, 5 s of grace, 10 min of quarantine, 1 min of idle sequence.
    fn default() -> Self {
        Self {
            max_queued_bytes: 2 << 30,
            max_batch_bytes: 1 << 30,
            slots: 4096,
            overrun_grace: Duration::from_secs(5),
            quarantine_ttl: Duration::from_mins(10),
            sequence_idle: Duration::from_mins(1),
            tenant_weights: HashMap::new(),
        }
    }
}

// === impl Dispatcher ===

impl<T: Payload> Dispatcher<T> {
    /// A dispatcher without groups.
    pub fn new(config: SchedConfig) -> Self {
        Self {
            weights: Arc::new(config.tenant_weights.clone()),
            groups: Vec::new(),
            requests: Slab::new(),
            sequences: Sequences::new(config.sequence_idle),
            quarantine: Quarantine::new(config.quarantine_ttl),
            timers: Timers::default(),
            fallen: Vec::new(),
            serial: 0,
            turn: 0,
            config,
        }
    }

    /// Adds a group with these handlers.
    pub fn add_group(&mut self, handlers: impl IntoIterator<Item = HandlerLimits>) -> GroupId {
        self.groups.push(Group::new(handlers, Arc::clone(&self.weights)));
        GroupId(self.groups.len() - 1)
    }

    /// The payload of a request whose caller still waits.
    pub fn payload(&mut self, ticket: Ticket) -> Option<&mut T> {
        match &mut self.live(ticket)?.state {
            State::Behind(payload) | State::Queued(payload, _) | State::Sent(payload, _) => Some(payload),
            State::Abandoned(_) | State::Between => None,
        }
    }

    /// The worker that a request is with, while its caller waits.
    pub fn worker_of(&self, ticket: Ticket) -> Option<WorkerId> {
        match self.known(ticket)?.state {
            State::Sent(_, worker) => Some(worker),
            State::Behind(_) | State::Queued(..) | State::Abandoned(_) | State::Between => None,
        }
    }

    /// When the request's caller stops waiting.
    pub fn deadline(&self, ticket: Ticket) -> Option<Instant> {
        self.known(ticket).and_then(|request| request.deadline)
    }

    /// The load of a group. It costs a step for each of the group's workers and handlers, however many requests wait.
    pub fn load(&self, group: GroupId) -> GroupLoad {
        let own = &self.groups[group.0];
        let oldest = own.queue.oldest().and_then(|ticket| self.known(ticket));
        GroupLoad {
            oldest: oldest.map(|request| request.arrived),
            sequences: self.sequences.bound_in(group),
            ..own.load()
        }
    }

    /// Requests that are with a worker; 0 for one that is not there.
    pub fn worker_load(&self, group: GroupId, worker: WorkerId) -> usize {
        let own = self.groups[group.0].workers.iter().find(|own| own.id == worker);
        own.map_or(0, |own| own.requests().len())
    }

    /// Requests that wait for a handler, and those that may.
    pub fn queued(&self, group: GroupId, handler: usize) -> (usize, usize) {
        let group = &self.groups[group.0];
        (group.queue.len(handler), group.rows[handler].limits.max_queue)
    }

    /// How long one request of a handler runs; zero while nothing was measured.
    pub fn service_time(&self, group: GroupId, handler: usize) -> Duration {
        self.groups[group.0].rows[handler].request.average().unwrap_or_default()
    }

    /// Requests that are not over, and those that still hold a worker's credit.
    pub fn live_requests(&self) -> usize {
        self.requests.len()
    }

    /// Sequences that are alive.
    pub fn live_sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Retries since the beginning.
    pub fn retries(&self) -> Retries {
        let add = |sum: Retries, group: &Group| {
            let (sent, refused) = group.budget.totals();
            Retries { sent: sum.sent + sent, refused: sum.refused + refused }
        };
        self.groups.iter().fold(Retries::default(), add)
    }

    /// Whether a job has to carry its fingerprint: only while something is held against one.
    pub fn wants_fingerprints(&self) -> bool {
        !self.quarantine.is_empty()
    }

    /// The fingerprints that are refused, the newest first.
    pub fn quarantined(&self, now: Instant) -> Vec<Record> {
        self.quarantine.refused(now)
    }

    /// Releases one fingerprint, or all. Returns how many of them were refused.
    pub fn release(&mut self, fingerprint: Option<Fingerprint>, now: Instant) -> usize {
        self.quarantine.release(fingerprint, now)
    }

    fn live(&mut self, ticket: Ticket) -> Option<&mut Request<T>> {
        self.requests.get_mut(ticket.index()).filter(|request| request.ticket == ticket)
    }

    fn known(&self, ticket: Ticket) -> Option<&Request<T>> {
        self.requests.get(ticket.index()).filter(|request| request.ticket == ticket)
    }
}

// === impl Request ===

impl<T> Request<T> {
    fn rank(&self) -> Rank {
        Rank { due: self.deadline.map_or(Due::Never, Due::At), ticket: self.ticket }
    }

    fn waiting(&self) -> Waiting {
        Waiting { handler: self.handler, bytes: self.bytes, rank: self.rank() }
    }

    fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or_default()
    }
}
