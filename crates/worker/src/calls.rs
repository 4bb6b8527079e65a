//! Calls that handlers make of other capabilities: here, by the same dispatcher, or elsewhere, by the uplink.
//!
//! ```text
//!  Call frame ─► Called (a request) ─► serve_calls, one task of each link ─► Routes ─► Dispatcher
//!                                          │                                   └─ nothing matches ─► Uplink
//!  CallResult frames ◄── within a window ──┘ ends with: its answer, a Cancel of the worker's, its caller's end
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, Reply, Request, Response};
use anyserve_sched::{GroupId, Job, Refusal, Ticket};
use anyserve_wire::{Frame, call_of, message, result_to_frame};
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::called::{Called, Caller};
use crate::dispatch::{Dispatch, Inner};
use crate::far::report;
use crate::group::WorkerGroup;
use crate::link::{Link, LinkError};
use crate::memory::ResponsePlaces;
use crate::open_calls::{Course, MAX_CALLS, NotOpened, Order, ResultFrame};
use crate::pending::Pending;
use crate::receive::protocol;
use crate::service::Choice;
use crate::stream::LEAST_COST;

/// Where a request comes from.
pub(crate) enum Origin<'a> {
    /// From outside.
    Client,
    /// From a handler.
    Handler(&'a mut Guard),
}

/// A call that is noted in the graph of those who wait; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Guard {
    pool: Arc<Inner>,
    /// The request whose handler calls.
    caller: Ticket,
    /// The request that the call is, once it is one here.
    call: Option<Ticket>,
}

/// A call that has no end yet; dropping it tells the worker of one.
struct Unended<'a> {
    link: &'a Link,
    id: u64,
    course: &'a Arc<Course>,
}

/// What is served elsewhere may not keep to the deadline; what is served here ends by it, with a better reason.
const PATIENCE: Duration = Duration::from_millis(50);

// === impl Inner ===

impl Inner {
    /// Takes a call. True if something has to be flushed to this worker.
    pub(crate) fn called(self: &Arc<Self>, link: &Arc<Link>, frame: Frame) -> Result<bool, LinkError> {
        let mut meta: message::Call = frame.message()?;
        let mut request = meta.request.take().ok_or_else(|| protocol("a Call frame without a request"))?;
        let tensors = (&request.places[..], &request.inputs[..]);
        let mut memory = ResponsePlaces::new(&self.config.memory, link.owner(), tensors, &[]);
        let (inputs, parameters) = call_of(&mut request, frame.body, &mut memory).map_err(protocol)?;
        let made = Called { selector: meta.selector, stream: meta.stream, request, inputs, parameters };
        let error = match self.open_call(link, frame.id, Ticket::from_number(meta.parent)) {
            Ok((caller, course, guard)) => match order_call(link, frame.id, (&caller, made), course, guard) {
                Ok(()) => return Ok(false),
                Err(error) => error,
            },
            Err(over @ NotOpened::Over) => Error::new(Code::Cancelled, over.to_string()),
            Err(many @ NotOpened::TooMany { .. }) => {
                Error::new(Code::Overloaded, many.to_string()).with_retry_after(Duration::from_millis(100))
            }
            Err(broken) => return Err(protocol(broken)),
        };
        link.push_result(&ResultFrame::failed(frame.id, &error));
        Ok(true)
    }

    /// Notes a call, under the one lock: its caller cannot end in between.
    fn open_call(
        self: &Arc<Self>,
        link: &Link,
        id: u64,
        ticket: Ticket,
    ) -> Result<(Caller, Arc<Course>, Guard), NotOpened> {
        let unread = link.unread_results();
        let mut dispatch = self.dispatch.lock();
        let caller = dispatch.caller(link, ticket)?;
        let course = link.calls.open(id, ticket, unread)?;
        dispatch.calls.begin(ticket);
        drop(dispatch);
        Ok((caller, course, Guard { pool: Arc::clone(self), caller: ticket, call: None }))
    }

    /// Carries out one worker's calls for the life of its link.
    ///
    /// # Cancel safety
    /// Dropping it cancels every call.
    pub(crate) async fn serve_calls(self: Arc<Self>, link: Arc<Link>, mut orders: mpsc::Receiver<Order>) -> LinkError {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = running.join_next() => ended.unwrap_or_else(|error| report(&error)),
                Some(order) = orders.recv(), if running.len() < MAX_CALLS => {
                    running.spawn(Arc::clone(&self).carry_out_call(Arc::clone(&link), order));
                }
            }
        }
    }

    async fn carry_out_call(self: Arc<Self>, link: Arc<Link>, order: Order) {
        let Order { id, request, course, mut guard } = order;
        let _unended = Unended { link: &link, id, course: &course };
        let late = overdue(request.deadline);
        let answered = tokio::select! {
            biased;
            () = course.over.cancelled() => return,
            answered = self.answer_call(&link, id, request, &course, &mut guard) => answered,
            () = late => Err(Error::new(Code::Deadline, "the deadline passed while the call was served elsewhere")),
        };
        let end = match answered {
            Ok(true) => return,
            Ok(false) => ResultFrame::ended(id),
            Err(error) => ResultFrame::failed(id, &self.told(error)),
        };
        link.calls.while_open(id, &course, true, || link.push_result(&end));
        link.flush();
    }

    /// Sends what comes of a call; true if its end is told with that.
    async fn answer_call(
        self: &Arc<Self>,
        link: &Link,
        id: u64,
        request: Request,
        course: &Arc<Course>,
        guard: &mut Guard,
    ) -> Result<bool, Error> {
        let mut responses = match self.call(request, guard).await? {
            Reply::One(response) => {
                self.send_result(link, id, course, &response, true)?;
                return Ok(true);
            }
            Reply::Many(responses) => responses,
        };
        while let Some(response) = std::future::poll_fn(|cx| responses.as_mut().poll_next(cx)).await {
            course.room(self.config.limits.stream_window).await;
            self.send_result(link, id, course, &response?, false)?;
        }
        Ok(false)
    }

    /// Has a call served: here if anything here matches, otherwise by another replica.
    async fn call(self: &Arc<Self>, request: Request, guard: &mut Guard) -> Result<Reply, Error> {
        let arrived = Instant::now();
        let routed = self.route(&request, &self.routes.load(), Choice::Take);
        match (routed, &self.config.uplink) {
            (Ok(route), _) => self.serve(request, route, arrived, Origin::Handler(guard)).await,
            (Err(error), Some(uplink)) if error.code == Code::NoCapability => uplink.call(request).await,
            (Err(mut error), None) if error.code == Code::NoCapability => {
                error.message.push_str("; no API server is known that could have it served elsewhere");
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn send_result(
        &self,
        link: &Link,
        id: u64,
        course: &Arc<Course>,
        response: &Response,
        end: bool,
    ) -> Result<(), Error> {
        let places = self.config.memory.place_outputs(&response.outputs);
        let shared = |number: u32| places.iter().any(|place| place.tensor == number);
        let inline = (0..).zip(&response.outputs).filter(|(number, _)| !shared(*number));
        let body: Vec<_> = inline.map(|(_, output)| output.data.clone()).collect();
        let (inline, all) = (sum(body.iter()), sum(response.outputs.iter().map(|output| &output.data)));
        let mut meta = message::CallResult { end, ..result_to_frame(response) };
        if let Some(response) = &mut meta.response {
            response.places.clone_from(&places);
        }
        let cost = meta.encoded_len().saturating_add(all).max(LEAST_COST);
        meta.cost = cost as u64;
        self.check_size(meta.encoded_len(), inline)?;
        let sent = link.calls.while_open(id, course, end, || {
            self.config.memory.lend_places(&places, link.owner());
            course.send(cost);
            link.push_result(&ResultFrame::new(id, &meta, body));
        });
        if sent {
            link.flush();
        }
        Ok(())
    }

    /// Whether a result fits a frame. One of a worker's does, one of another replica's may not.
    fn check_size(&self, meta: usize, body: usize) -> Result<(), Error> {
        let limits = &self.config.limits;
        let (what, len, max) = match (meta, body) {
            (len, _) if len > limits.max_meta => ("metadata", len, limits.max_meta),
            (_, len) if len > limits.max_message => ("tensors", len, limits.max_message),
            _ => return Ok(()),
        };
        let message = format!("the result of the call has {len} bytes of {what}, at most {max} are allowed here");
        Err(Error::new(Code::Unsupported, message))
    }

    /// The error as a handler gets it: a traceback in debug only, as with clients.
    fn told(&self, error: Error) -> Error {
        if self.config.debug { error } else { Error { traceback: None, ..error } }
    }

    /// Hands a request to the machine.
    pub(crate) fn submit(&self, job: &Job<'_>, pending: Pending, origin: &mut Origin<'_>) -> Result<Ticket, Error> {
        let (submitted, after) = self.event(|dispatch, now| {
            let Origin::Handler(guard) = origin else {
                return dispatch.machine.submit(job, pending, now, &mut dispatch.actions);
            };
            if let Some(error) = self.stuck(dispatch, job, guard.caller) {
                return Err(Box::new(Refusal { payload: pending, error }));
            }
            let call = dispatch.machine.submit(job, pending, now, &mut dispatch.actions)?;
            dispatch.calls.enter(guard.caller, call);
            guard.call = Some(call);
            Ok(call)
        });
        after.finish();
        submitted.map_err(|refusal| {
            refusal.payload.counters.failed(refusal.error.code, refusal.payload.arrived);
            refusal.error
        })
    }

    /// Why a call is refused that would wait for ever.
    fn stuck(&self, dispatch: &mut Dispatch, job: &Job<'_>, caller: Ticket) -> Option<Error> {
        let groups = self.groups.load();
        let grows = |group| grows(&groups, group);
        let slots = dispatch.machine.is_stuck(job, caller, &dispatch.calls, grows)?;
        let callers: Vec<_> = dispatch.calls.chain(caller).collect();
        let mut names: Vec<_> = callers.into_iter().map(|ticket| dispatch.name_of(ticket, &groups)).collect();
        names.reverse();
        let own = handler_name(&groups, job.group, job.handler);
        let group = groups.iter().find(|group| group.id == job.group).map_or("", |group| group.name());
        let message = format!(
            "{} -> {own}: every one of the {slots} slots of group '{group}' waits for this call; raise concurrency \
             or workers, or serve '{own}' from a group of its own",
            names.join(" -> "),
        );
        Some(Error::new(Code::Unsupported, message))
    }

    /// A call is over. Those that its caller has open beside it are looked at.
    fn end_call(&self, caller: Ticket, call: Option<Ticket>) {
        let groups = self.groups.load();
        let (given_up, after) = self.event(|dispatch, now| {
            dispatch.calls.end(caller, call);
            let grows = |group| grows(&groups, group);
            let stuck = dispatch.machine.stuck_since(caller, &dispatch.calls, grows)?;
            let name = dispatch.name_of(stuck, &groups);
            Some((dispatch.machine.cancel(stuck, now, &mut dispatch.actions)?, name))
        });
        after.finish();
        if let Some((pending, name)) = given_up {
            let message = format!(
                "the call of '{name}' and those who could make room for it wait for each other; raise concurrency or \
                 workers, or serve '{name}' from a group of its own"
            );
            pending.fail(Error::new(Code::Unsupported, message));
        }
    }
}

/// Has a call carried out that is open; if that cannot be, it is not open any more.
fn order_call(
    link: &Link,
    id: u64,
    (caller, made): (&Caller, Called),
    course: Arc<Course>,
    guard: Guard,
) -> Result<(), Error> {
    let request = made.into_request(caller, Instant::now());
    let ordered = request.and_then(|request| link.calls.order(Order { id, request, course, guard }));
    ordered.inspect_err(|_| link.calls.cancel(id))
}

async fn overdue(deadline: Option<Instant>) {
    match deadline.and_then(|deadline| deadline.checked_add(PATIENCE)) {
        Some(late) => tokio::time::sleep_until(late.into()).await,
        None => std::future::pending().await,
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a bytes::Bytes>) -> usize {
    parts.map(bytes::Bytes::len).fold(0, usize::saturating_add)
}

/// Whether a group may get a worker beside those that take requests.
fn grows(groups: &[Arc<WorkerGroup>], id: GroupId) -> bool {
    let more = |group: &Arc<WorkerGroup>| group.is_loaded() && group.ready_workers() < group.bounds.lock().1;
    groups.iter().find(|group| group.id == id).is_some_and(more)
}

fn handler_name(groups: &[Arc<WorkerGroup>], id: GroupId, handler: usize) -> String {
    let group = groups.iter().find(|group| group.id == id);
    let handler = group.and_then(|group| group.handlers.get(handler));
    handler.map_or_else(|| "?".to_owned(), |handler| handler.model_name())
}

// === impl Dispatch ===

impl Dispatch {
    /// The request that a call of this worker names.
    fn caller(&mut self, link: &Link, caller: Ticket) -> Result<Caller, NotOpened> {
        if self.machine.worker_of(caller).ok_or(NotOpened::Over)? != link.worker {
            return Err(NotOpened::Foreign { caller });
        }
        let deadline = self.machine.deadline(caller);
        let pending = self.machine.payload(caller).ok_or(NotOpened::Over)?;
        Ok(Caller { meta: pending.parcel.meta.clone(), deadline })
    }

    /// What a request is for, in a word.
    fn name_of(&mut self, ticket: Ticket, groups: &[Arc<WorkerGroup>]) -> String {
        let of = self.machine.payload(ticket).map(|pending| (pending.parcel.group, pending.parcel.handler));
        let name = |(group, handler)| handler_name(groups, group, usize::try_from(handler).unwrap_or(usize::MAX));
        of.map_or_else(|| "?".to_owned(), name)
    }
}

// === impl Unended ===

impl Drop for Unended<'_> {
    /// It is over already, one way or another, unless what carried it out has panicked.
    fn drop(&mut self) {
        let error = || Error::internal("the call was dropped without an end");
        let Self { link, id, course } = *self;
        if link.calls.while_open(id, course, true, || link.push_result(&ResultFrame::failed(id, &error()))) {
            link.flush();
        }
    }
}

// === impl Guard ===

impl Drop for Guard {
    fn drop(&mut self) {
        self.pool.end_call(self.caller, self.call);
    }
}

#[cfg(test)]
mod tests;
