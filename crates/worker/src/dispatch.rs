//! The machine of `anyserve_sched`, and the links that carry out what it decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, Handler};
use anyserve_sched::{Action, Dispatcher, GroupId, HandlerLimits, Job, Over, Ticket, WorkerId};
use anyserve_shm::SLOTS;
use anyserve_wire::{Frame, Kind, flags, message, response_of};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::config::{PoolConfig, WorkerEvent};
use crate::link::{Link, LinkError};
use crate::pending::{Caller, Pending};
use crate::pool::{FirstStarts, worker_name};
use crate::routes::Routes;
use crate::stream::Part;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: PoolConfig,
    /// `parking_lot` and never held across an await: every hold is one event of the machine, below a microsecond.
    dispatch: Mutex<Dispatch>,
    pub(crate) routes: ArcSwap<Routes>,
    pub(crate) catalog: ArcSwap<anyserve_core::Catalog>,
    pub(crate) earlier_deadline: Notify,
    pub(crate) draining: AtomicBool,
    pub(crate) restarts: AtomicU64,
    next_worker: AtomicU32,
    pub(crate) states: Mutex<Vec<&'static str>>,
    pub(crate) first: watch::Sender<FirstStarts>,
}

#[derive(Debug)]
struct Dispatch {
    machine: Dispatcher<Pending>,
    links: HashMap<WorkerId, Arc<Link>>,
    group: GroupId,
    /// What every worker must announce, from the first one's hello on.
    handlers: Option<Vec<Arc<Handler>>>,
    /// The instant that the deadline task sleeps until.
    armed: Option<Instant>,
    /// Reused by every event, so that a request costs no allocation here.
    actions: Vec<Action<Pending>>,
}

/// What has to be done once the machine's lock is free.
#[derive(Default)]
struct After {
    over: Vec<Over<Pending>>,
    flush: Option<Arc<Link>>,
    more: Vec<Arc<Link>>,
}

// === impl Inner ===

impl Inner {
    pub(crate) fn new(config: PoolConfig, first: watch::Sender<FirstStarts>) -> Self {
        let mut machine = Dispatcher::new(config.limits.max_queue_bytes);
        let group = machine.add_group([]);
        let dispatch =
            Dispatch { machine, links: HashMap::new(), group, handlers: None, armed: None, actions: Vec::new() };
        let workers = usize::try_from(config.workers).unwrap_or(usize::MAX);
        Self {
            config,
            dispatch: Mutex::new(dispatch),
            routes: ArcSwap::default(),
            catalog: ArcSwap::default(),
            earlier_deadline: Notify::new(),
            draining: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            next_worker: AtomicU32::new(1),
            states: Mutex::new(vec!["starting"; workers]),
            first,
        }
    }

    /// A number for a new process.
    pub(crate) fn number_worker(&self) -> WorkerId {
        WorkerId(self.next_worker.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands a request to the machine.
    pub(crate) fn submit(&self, job: Job, pending: Pending) -> Result<Ticket, Error> {
        let (submitted, after) = self.event(|dispatch, now| {
            let submitted = dispatch.machine.submit(job, pending, now, &mut dispatch.actions);
            if job.deadline.is_some_and(|deadline| dispatch.armed.is_none_or(|armed| deadline < armed)) {
                dispatch.armed = job.deadline;
                self.earlier_deadline.notify_one();
            }
            submitted
        });
        after.finish();
        submitted.map_err(|refusal| {
            refusal.payload.counters.failed(refusal.error.code, refusal.payload.arrived);
            refusal.error
        })
    }

    /// The caller of a request has left.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let (pending, after) = self.event(|dispatch, _| dispatch.machine.cancel(ticket, &mut dispatch.actions));
        after.finish();
        if let Some(pending) = pending {
            pending.counters.failed(Code::Cancelled, pending.arrived);
        }
    }

    /// Ends what is due. Returns the next instant to look again.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let (next, after) = self.event(|dispatch, _| {
            dispatch.machine.expire(now, &mut dispatch.actions);
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
        let Some(link) = dispatch.links.get(&worker) else { return };
        link.push(&Frame::with_meta(Kind::Credit, ticket.number(), &message::Credit { bytes: bytes as u64 }));
        link.flush_soon();
    }

    /// A greeted worker's handlers. The first worker's become the replica's.
    ///
    /// # Errors
    /// A sentence about the difference, if they are not what the others announced.
    pub(crate) fn announce(&self, handlers: Vec<Handler>) -> Result<(), String> {
        let mut dispatch = self.dispatch.lock();
        if let Some(known) = &dispatch.handlers {
            return same_handlers(known, &handlers);
        }
        let handlers: Vec<_> = handlers.into_iter().map(Arc::new).collect();
        let limits = handlers.iter().map(|handler| self.limits_of(handler));
        dispatch.group = dispatch.machine.add_group(limits);
        self.routes.store(Arc::new(Routes::new(dispatch.group, &handlers)));
        dispatch.handlers = Some(handlers);
        Ok(())
    }

    fn limits_of(&self, handler: &Handler) -> HandlerLimits {
        let own = handler.max_queue.and_then(|len| usize::try_from(len).ok());
        HandlerLimits { concurrency: handler.concurrency, max_queue: own.unwrap_or(self.config.limits.max_queue) }
    }

    /// A worker takes requests from now on.
    pub(crate) fn publish(&self, link: &Arc<Link>, credits: u32) {
        let most = u32::try_from(SLOTS).unwrap_or(u32::MAX) - anyserve_sched::MAX_PREFETCH;
        let ((), after) = self.event(|dispatch, _| {
            dispatch.links.insert(link.worker, Arc::clone(link));
            let (group, credits) = (dispatch.group, credits.min(most));
            dispatch.machine.worker_ready(group, link.worker, credits, &mut dispatch.actions);
        });
        after.finish();
        self.publish_catalog();
    }

    /// A worker takes no more requests.
    pub(crate) fn withdraw(&self, worker: WorkerId) {
        let mut dispatch = self.dispatch.lock();
        let group = dispatch.group;
        dispatch.machine.worker_draining(group, worker);
        drop(dispatch);
        self.publish_catalog();
    }

    /// A worker's process is dead.
    pub(crate) fn bury(&self, worker: WorkerId) {
        let ((), after) = self.event(|dispatch, _| {
            let Some(link) = dispatch.links.remove(&worker) else { return };
            let (group, started) = (dispatch.group, |ticket, slot| link.had_started(ticket, slot));
            dispatch.machine.worker_gone(group, worker, started, &mut dispatch.actions);
        });
        after.finish();
        self.publish_catalog();
    }

    /// Workers keep dying: nothing waits for them any more.
    pub(crate) fn down_if_empty(&self, why: &str) {
        let error = Error::new(Code::Unavailable, format!("no worker is running: {why}"));
        let ((), after) = self.event(|dispatch, _| {
            let group = dispatch.group;
            if dispatch.machine.load(group).workers == 0 {
                dispatch.machine.group_down(group, &error, &mut dispatch.actions);
            }
        });
        after.finish();
    }

    /// Takes a batch of frames from a worker.
    pub(crate) fn receive(&self, link: &Arc<Link>, frames: &mut Vec<Frame>) -> Result<(), LinkError> {
        let mut flush = false;
        for frame in frames.drain(..) {
            match frame.kind {
                Kind::Chunk => self.chunk(frame)?,
                Kind::Pong => link.pong(),
                Kind::Done | Kind::Failed => flush |= self.finished(link, frame)?,
                kind => return Err(LinkError::Protocol(format!("a {kind:?} frame after its start"))),
            }
        }
        if flush {
            link.flush();
        }
        Ok(())
    }

    fn chunk(&self, frame: Frame) -> Result<(), LinkError> {
        let ticket = Ticket::from_number(frame.id);
        let cost = crate::stream::cost(&frame);
        let response = response_of(frame.message()?, frame.body).map_err(protocol)?;
        let mut dispatch = self.dispatch.lock();
        // A chunk of a request whose caller has left was on its way when it was withdrawn.
        let Some(pending) = dispatch.machine.payload(ticket) else { return Ok(()) };
        let Caller::Many { responses, unread } = &mut pending.caller else {
            return Err(LinkError::Protocol("a Chunk frame for a request that has one response".into()));
        };
        if *unread >= self.config.limits.stream_window {
            return Err(LinkError::Protocol(format!("{unread} bytes of a stream were sent without credit")));
        }
        *unread += cost;
        let response = Ok(pending.echo.clone().fill(response));
        drop(responses.send(Part { cost, response }));
        Ok(())
    }

    /// Ends a request. True if something has to be flushed to this worker.
    fn finished(&self, link: &Arc<Link>, frame: Frame) -> Result<bool, LinkError> {
        let ticket = Ticket::from_number(frame.id);
        let (outcome, compute, ran) = outcome_of(frame)?;
        let (finished, mut after) = self.event(|dispatch, _| {
            let finished =
                dispatch.machine.finished(link.worker, ticket, ran.then_some(compute), &mut dispatch.actions);
            finished.inspect(|finished| link.release(finished.slot))
        });
        // The reader flushes its own link once for all frames that it has read.
        let flush = after.flush.take_if(|other| Arc::ptr_eq(other, link)).is_some();
        after.finish();
        let finished = finished.map_err(|unknown| protocol(format!("an answer for {:?}", unknown.ticket)))?;
        if let Some(pending) = finished.payload {
            pending.end(outcome, compute, self.config.debug);
        }
        Ok(flush)
    }

    /// Feeds the machine with one event and carries out what it says, as far as that goes under its lock.
    fn event<R>(&self, event: impl FnOnce(&mut Dispatch, Instant) -> R) -> (R, After) {
        let now = Instant::now();
        let mut dispatch = self.dispatch.lock();
        let result = event(&mut dispatch, now);
        let after = dispatch.perform(now);
        (result, after)
    }

    pub(crate) fn publish_catalog(&self) {
        let dispatch = self.dispatch.lock();
        let ready = dispatch.machine.load(dispatch.group).workers > 0;
        let draining = self.draining.load(Ordering::Acquire);
        self.catalog.store(Arc::new(self.routes.load().catalog(ready, draining)));
    }

    pub(crate) fn live_requests(&self) -> usize {
        self.dispatch.lock().machine.live_requests()
    }

    pub(crate) fn load(&self) -> anyserve_sched::GroupLoad {
        let dispatch = self.dispatch.lock();
        dispatch.machine.load(dispatch.group)
    }

    /// Notes a worker's state and tells whoever listens.
    pub(crate) fn tell(&self, index: u32, state: &'static str, pid: Option<u32>, detail: String) {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(own) = self.states.lock().get_mut(place) {
            *own = state;
        }
        (self.config.on_event)(WorkerEvent { worker: worker_name(index), state, pid, detail });
    }
}

// === impl Dispatch ===

impl Dispatch {
    fn perform(&mut self, now: Instant) -> After {
        let mut after = After::default();
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send { ticket, worker, slot, attempt } => {
                    self.send(ticket, worker, slot, attempt, now, &mut after);
                }
                Action::Withdraw { ticket, worker, slot } => {
                    if let Some(link) = self.links.get(&worker).filter(|link| link.withdraw(ticket, slot)) {
                        after.flush(link);
                    }
                }
                Action::Over(over) => after.over.push(over),
            }
        }
        self.actions = actions;
        after
    }

    fn send(&mut self, ticket: Ticket, worker: WorkerId, slot: u32, attempt: u32, now: Instant, after: &mut After) {
        let deadline = self.machine.deadline(ticket);
        let (Some(link), Some(pending)) = (self.links.get(&worker), self.machine.payload(ticket)) else { return };
        pending.sent = Some(now);
        link.push_request(ticket, slot, attempt, deadline, &pending.parcel);
        after.flush(link);
    }
}

// === impl After ===

impl After {
    fn flush(&mut self, link: &Arc<Link>) {
        match &self.flush {
            None => self.flush = Some(Arc::clone(link)),
            Some(own) if Arc::ptr_eq(own, link) => {}
            Some(_) => self.more.push(Arc::clone(link)),
        }
    }

    /// Writes what was queued and answers whom the machine gave up.
    fn finish(self) {
        self.flush.iter().for_each(|link| link.flush_if_idle());
        self.more.iter().for_each(|link| link.flush());
        self.over.into_iter().for_each(|over| over.payload.fail(over.error));
    }
}

/// What a worker says of the end of a request, the time in its handler, and whether the handler ran.
fn outcome_of(frame: Frame) -> Result<(Outcome, Duration, bool), LinkError> {
    if frame.kind == Kind::Failed {
        let failed: message::Failed = frame.message()?;
        let compute = Duration::from_nanos(failed.compute_ns);
        return Ok((Outcome::Failed(failed.into()), compute, frame.flags & flags::NOT_STARTED == 0));
    }
    let meta: message::Response = frame.message()?;
    let compute = Duration::from_nanos(meta.compute_ns);
    let carries = frame.flags & flags::RESPONSE != 0;
    let response = carries.then(|| response_of(meta, frame.body)).transpose().map_err(protocol)?;
    Ok((Outcome::Done(response), compute, true))
}

/// How a request ended at its worker.
pub(crate) enum Outcome {
    /// With its response, or as a stream without one more.
    Done(Option<anyserve_core::Response>),
    /// With an error.
    Failed(Error),
}

/// Every worker of a group serves the same; what a request finds must not depend on who gets it.
fn same_handlers(known: &[Arc<Handler>], new: &[Handler]) -> Result<(), String> {
    if known.len() == new.len() && known.iter().zip(new).all(|(own, new)| **own == *new) {
        return Ok(());
    }
    let differs = new.iter().enumerate().find(|(place, new)| known.get(*place).is_none_or(|own| **own != **new));
    let which = differs.map_or("fewer of them".to_owned(), |(_, handler)| format!("first {}", handler.capability));
    Err(format!(
        "it announced other handlers than the workers before it ({which}): an app must define the same capabilities, \
         with the same options, each time it is loaded"
    ))
}

fn protocol(what: impl std::fmt::Display) -> LinkError {
    LinkError::Protocol(format!("{what}"))
}
