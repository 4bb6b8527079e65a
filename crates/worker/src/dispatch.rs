//! The machine of `anyserve_sched`, and the links that carry out what it decides.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use anyserve_core::{Code, Error};
use anyserve_sched::{Action, Calls, Cause, Dispatcher, Over, Pools, SchedConfig, Sending, Slots, Ticket, WorkerId};
use anyserve_shm::{Owner, SLOTS};
use anyserve_wire::{Frame, Kind, message};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::SharedMemory;
use crate::config::PoolConfig;
use crate::fleet::Fleet;
use crate::group::WorkerGroup;
use crate::link::{Link, Posted};
use crate::pending::{Caller, Pending};
use crate::routes::Routes;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: PoolConfig,
    /// `parking_lot` and never held across an await: every hold is one event of the machine, below a microsecond.
    pub(crate) dispatch: Mutex<Dispatch>,
    pub(crate) routes: ArcSwap<Routes>,
    pub(crate) catalog: ArcSwap<anyserve_core::Catalog>,
    /// Grows with every change of the catalog.
    pub(crate) version: watch::Sender<u64>,
    /// Something is held against some fingerprint, so that requests have to carry theirs.
    pub(crate) suspicious: AtomicBool,
    pub(crate) earlier_deadline: Notify,
    pub(crate) draining: AtomicBool,
    pub(crate) next_worker: AtomicU32,
    /// How often the app was loaded, or was to be.
    pub(crate) loads: AtomicU32,
    /// The worker groups: those that requests go to, and what is left of earlier loads of the app.
    pub(crate) groups: ArcSwap<Vec<Arc<WorkerGroup>>>,
    /// Taken before `dispatch`, never after it.
    pub(crate) fleet: Mutex<Fleet>,
    /// The planner has something to look at.
    pub(crate) replan: Notify,
    /// The planner looks again soon, whatever happens.
    pub(crate) watches: AtomicBool,
    /// Looks that the planner has taken.
    pub(crate) plans: watch::Sender<u64>,
    /// Held while the app is loaded again.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    pub(crate) started: Instant,
    /// Hashes what requests of one batch share; its key is this process's own.
    pub(crate) batch_hash: RandomState,
    /// What the workers' processes are called in logs and explanations.
    pub(crate) names: Mutex<HashMap<WorkerId, String>>,
}

#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) machine: Dispatcher<Pending>,
    /// The calls that handlers have open.
    pub(crate) calls: Calls,
    links: Links,
    memory: SharedMemory,
    /// The instant that the deadline task sleeps until.
    armed: Option<Instant>,
    /// Reused by every event, so that a request costs no allocation here.
    pub(crate) actions: Vec<Action<Pending>>,
}

/// The workers that can be given requests.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<WorkerId, Arc<Link>>);

/// What has to be done once the machine's lock is free.
#[derive(Default)]
pub(crate) struct After {
    over: Vec<Over<Pending>>,
    pub(crate) flush: Option<Arc<Link>>,
    more: Vec<Arc<Link>>,
}

// === impl Inner ===

impl Inner {
    pub(crate) fn new(config: PoolConfig) -> Self {
        let machine = Dispatcher::new(sched_config(&config));
        let dispatch = Dispatch {
            machine,
            calls: Calls::default(),
            links: Links::default(),
            memory: config.memory.clone(),
            armed: None,
            actions: Vec::new(),
        };
        let pools = Pools::new(config.resources.clone(), config.policy);
        Self {
            config,
            dispatch: Mutex::new(dispatch),
            routes: ArcSwap::default(),
            catalog: ArcSwap::default(),
            version: watch::Sender::new(0),
            suspicious: AtomicBool::new(false),
            earlier_deadline: Notify::new(),
            draining: AtomicBool::new(false),
            next_worker: AtomicU32::new(1),
            loads: AtomicU32::new(1),
            groups: ArcSwap::default(),
            fleet: Mutex::new(Fleet::new(pools)),
            replan: Notify::new(),
            watches: AtomicBool::new(false),
            plans: watch::Sender::new(0),
            reloading: tokio::sync::Mutex::default(),
            started: Instant::now(),
            batch_hash: RandomState::new(),
            names: Mutex::default(),
        }
    }

    /// The caller of a request has left.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let (pending, after) = self.event(|dispatch, now| dispatch.machine.cancel(ticket, now, &mut dispatch.actions));
        after.finish();
        if let Some(pending) = pending {
            pending.counters.failed(Code::Cancelled, pending.arrived);
        }
    }

    /// The replica's time is over: whatever is not answered ends.
    pub(crate) fn end_all(&self) {
        let waiting = Error::new(Code::Draining, "the replica stopped before a worker took the request");
        let sent = Error::new(Code::WorkerLost, "the replica stopped before the handler was done: its grace was over");
        let ((), after) =
            self.event(|dispatch, now| dispatch.machine.end_all(&waiting, &sent, now, &mut dispatch.actions));
        after.finish();
    }

    /// Does what is due. Returns the next instant to look again.
    pub(crate) fn expire(&self) -> Option<Instant> {
        let (next, after) = self.event(|dispatch, now| {
            dispatch.machine.expire(&dispatch.links, now, &mut dispatch.actions);
            dispatch.armed = dispatch.machine.next_deadline();
            dispatch.armed
        });
        after.finish();
        next
    }

    /// The reader of a stream has taken so many bytes: its worker may send as many more.
    pub(crate) fn credit(&self, ticket: Ticket, bytes: usize) {
        let mut dispatch = self.dispatch.lock();
        let Some(worker) = dispatch.machine.worker_of(ticket) else { return };
        if let Some(Caller::Many { unread, .. }) = dispatch.machine.payload(ticket).map(|pending| &mut pending.caller) {
            *unread = unread.saturating_sub(bytes);
        }
        let Some(link) = dispatch.links.0.get(&worker) else { return };
        link.push(&Frame::with_meta(Kind::Credit, ticket.number(), &message::Credit { bytes: bytes as u64 }));
        link.flush_soon();
    }

    /// A worker takes requests from now on.
    pub(crate) fn publish(&self, link: &Arc<Link>, group: &WorkerGroup, credits: u32) {
        let most = slots() - anyserve_sched::MAX_PREFETCH;
        let ((), after) = self.event(|dispatch, now| {
            dispatch.links.0.insert(link.worker, Arc::clone(link));
            dispatch.machine.worker_ready(group.id, link.worker, credits.min(most), now, &mut dispatch.actions);
            group.count_ready(&dispatch.machine.load(group.id));
        });
        after.finish();
        self.publish_catalog();
    }

    /// A worker takes no more requests.
    pub(crate) fn withdraw(&self, worker: WorkerId, group: &WorkerGroup) {
        let mut dispatch = self.dispatch.lock();
        dispatch.machine.worker_draining(group.id, worker);
        group.count_ready(&dispatch.machine.load(group.id));
        drop(dispatch);
        self.publish_catalog();
    }

    /// A worker that has nothing to do goes to sleep. Sequences that it keeps are over.
    pub(crate) fn rest(&self, worker: WorkerId, group: &WorkerGroup) {
        let ((), after) = self.event(|dispatch, now| {
            if dispatch.machine.worker_rests(group.id, worker).is_err() {
                let (never, cause) = (|_, _| false, Cause::Replaced);
                dispatch.machine.worker_gone(group.id, worker, cause, never, now, &mut dispatch.actions);
            }
            dispatch.links.0.remove(&worker);
        });
        after.finish();
    }

    /// A worker's process is dead.
    pub(crate) fn bury(&self, worker: WorkerId, group: &WorkerGroup, cause: Cause) {
        self.disown(worker);
        let ((), after) = self.event(|dispatch, now| {
            self.names.lock().remove(&worker);
            let Some(link) = dispatch.links.0.remove(&worker) else { return };
            link.calls.end_all();
            let started = |ticket, slot| link.had_started(ticket, slot);
            dispatch.machine.worker_gone(group.id, worker, cause, started, now, &mut dispatch.actions);
            group.count_ready(&dispatch.machine.load(group.id));
        });
        after.finish();
        self.publish_catalog();
    }

    /// What a dead worker was writing and reading in the arena is not its own any more.
    pub(crate) fn disown(&self, worker: WorkerId) {
        if let Some(plane) = &self.config.memory.plane {
            plane.worker_gone(Owner(worker.0));
        }
    }

    /// Workers of a group keep dying: nothing waits for them any more.
    pub(crate) fn down_if_empty(&self, group: &WorkerGroup, why: &str) {
        let error = Error::new(Code::Unavailable, format!("no worker is running: {why}"));
        let ((), after) = self.event(|dispatch, now| {
            if dispatch.machine.load(group.id).workers == 0 {
                dispatch.machine.group_down(group.id, &error, now, &mut dispatch.actions);
            }
        });
        after.finish();
        self.publish_catalog();
    }

    /// Feeds the machine with one event and carries out what it says, as far as that goes under its lock.
    pub(crate) fn event<R>(&self, event: impl FnOnce(&mut Dispatch, Instant) -> R) -> (R, After) {
        let now = Instant::now();
        let mut dispatch = self.dispatch.lock();
        let result = event(&mut dispatch, now);
        let after = dispatch.perform(now);
        self.suspicious.store(dispatch.machine.wants_fingerprints(), Ordering::Relaxed);
        let next = dispatch.machine.next_deadline();
        if next.is_some_and(|next| dispatch.armed.is_none_or(|armed| next < armed)) {
            dispatch.armed = next;
            self.earlier_deadline.notify_one();
        }
        (result, after)
    }

    /// Asks the machine without changing it.
    pub(crate) fn ask<R>(&self, question: impl FnOnce(&Dispatch) -> R) -> R {
        question(&self.dispatch.lock())
    }

    pub(crate) fn publish_catalog(&self) {
        let dispatch = self.dispatch.lock();
        let ready = |group: &WorkerGroup| {
            let load = dispatch.machine.load(group.id);
            group.is_loaded() && (load.workers > 0 || group.is_on_demand() && !load.down)
        };
        let draining = self.draining.load(Ordering::Acquire);
        let version = *self.version.borrow() + 1;
        self.catalog.store(Arc::new(self.routes.load().catalog(ready, draining, version)));
        self.version.send_replace(version);
    }

    pub(crate) fn live_requests(&self) -> usize {
        self.dispatch.lock().machine.live_requests()
    }
}

// === impl Dispatch ===

impl Dispatch {
    /// The workers that can be given requests.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.0.values()
    }

    fn perform(&mut self, now: Instant) -> After {
        let mut after = After::default();
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(worker, sending) => self.send(worker, sending, now, &mut after),
                Action::SendBatch(worker, members) => self.send_batch(worker, &members, now, &mut after),
                Action::Withdraw { ticket, worker, slot } => {
                    let Some(link) = self.links.0.get(&worker) else { continue };
                    if link.end_calls_of(ticket) | link.withdraw(ticket, slot) {
                        after.flush(link);
                    }
                }
                Action::Over(over) => after.over.push(over),
                Action::Replace(worker) => self.links.0.get(&worker).into_iter().for_each(|link| link.give_up()),
            }
        }
        self.actions = actions;
        after
    }

    fn send(&mut self, worker: WorkerId, sending: Sending, now: Instant, after: &mut After) {
        let deadline = self.machine.deadline(sending.ticket);
        let Some(link) = self.links.0.get(&worker) else { return };
        let Some(pending) = self.machine.payload(sending.ticket) else { return };
        pending.sent(sending.attempt, now);
        self.memory.lend(&pending.parcel, link.owner());
        link.push_request(&Posted { sending, deadline, parcel: &pending.parcel });
        after.flush(link);
    }

    fn send_batch(&mut self, worker: WorkerId, members: &[Sending], now: Instant, after: &mut After) {
        let Some(link) = self.links.0.get(&worker) else { return };
        let mut batch = link.batch();
        for sending in members {
            let deadline = self.machine.deadline(sending.ticket);
            let Some(pending) = self.machine.payload(sending.ticket) else { continue };
            pending.sent(sending.attempt, now);
            self.memory.lend(&pending.parcel, link.owner());
            batch.push(&Posted { sending: *sending, deadline, parcel: &pending.parcel });
        }
        batch.end();
        after.flush(link);
    }
}

// === impl Links ===

impl Slots for Links {
    fn has_started(&self, worker: WorkerId, ticket: Ticket, slot: u32) -> bool {
        self.0.get(&worker).is_some_and(|link| link.had_started(ticket, slot))
    }

    fn recall(&self, worker: WorkerId, ticket: Ticket, slot: u32) -> bool {
        self.0.get(&worker).is_some_and(|link| link.recall(ticket, slot))
    }
}

/// Requests that one worker can hold.
fn slots() -> u32 {
    u32::try_from(SLOTS).unwrap_or(u32::MAX)
}

fn sched_config(config: &PoolConfig) -> SchedConfig {
    SchedConfig {
        max_queued_bytes: config.limits.max_queue_bytes,
        max_batch_bytes: config.limits.max_message,
        slots: slots(),
        overrun_grace: config.overrun_grace,
        quarantine_ttl: config.quarantine_ttl,
        sequence_idle: config.sequence_idle,
        tenant_weights: config.tenant_weights.iter().cloned().collect(),
    }
}

// === impl After ===

impl After {
    pub(crate) fn flush(&mut self, link: &Arc<Link>) {
        match &self.flush {
            None => self.flush = Some(Arc::clone(link)),
            Some(own) if Arc::ptr_eq(own, link) => {}
            Some(_) => self.more.push(Arc::clone(link)),
        }
    }

    /// Writes what was queued and answers whom the machine gave up.
    pub(crate) fn finish(self) {
        self.flush.iter().for_each(|link| link.flush_if_idle());
        self.more.iter().for_each(|link| link.flush());
        for Over { payload, mut error, attempts, .. } in self.over {
            if attempts > 1 {
                error.message = format!("{}; it was sent {attempts} times", error.message);
            }
            payload.fail(error);
        }
    }
}
