//! The pool as ingress sees it: a service from request to reply, and a directory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyserve_core::{
    Catalog, Changed, Code, Directory, Error, Expects, Explanation, Fingerprint, Handler, Quarantined, Reply, Request,
    Snapshot, Statistics, batch_key, check_request,
};
use anyserve_sched::{GroupLoad, Job, Ticket};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::calls::Origin;
use crate::dispatch::Inner;
use crate::fingerprint;
use crate::group::WorkerGroup;
use crate::pending::{Caller, Echo, Parcel, Pending};
use crate::pool::Pool;
use crate::references;
use crate::routes::{Route, Routes};
use crate::stream::ResponseStream;
use crate::wishes::Wishes;

/// Bytes beside its tensors up to which a request may share a batch: a batch of the largest size has to fit one frame.
const MAX_BATCHED_META: usize = 48 << 10;

/// Whether a handler is chosen for a request, or only for the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Equals take turns.
    Take,
    /// Nothing changes.
    Look,
}

// === impl Pool ===

impl Pool {
    /// Serves one request.
    ///
    /// # Errors
    /// Every code of the closed set that a replica without delegation can give.
    ///
    /// # Cancel safety
    /// Dropping the future, or the stream of the reply, cancels the request.
    pub async fn infer(&self, request: Request) -> Result<Reply, Error> {
        let arrived = Instant::now();
        let admitted = self.inner.admit(&request, &self.inner.routes.load(), Choice::Take);
        match (admitted, &self.inner.config.uplink) {
            // An operator has unloaded it: others may have it.
            (Ok(route), Some(uplink)) if !route.group.is_loaded() => {
                uplink.delegate(request, &self.inner.upgrades()).await
            }
            (Ok(route), _) => self.inner.serve(request, route, arrived, Origin::Client).await,
            (Err(error), Some(uplink)) if error.code == Code::NoCapability => {
                uplink.delegate(request, &self.inner.upgrades()).await
            }
            (Err(error), _) => Err(error),
        }
    }
}

impl Inner {
    /// Serves a request here, by this route.
    ///
    /// # Cancel safety
    /// As of [`Pool::infer`].
    pub(crate) async fn serve(
        self: &Arc<Self>,
        mut request: Request,
        mut route: Arc<Route>,
        arrived: Instant,
        mut origin: Origin<'_>,
    ) -> Result<Reply, Error> {
        route.counters.arrived();
        let held = match self.prepare(&mut request, &route.handler).await {
            Ok(held) => held,
            Err(error) => {
                route.counters.failed(error.code, arrived);
                return Err(error);
            }
        };
        if route.group.is_retired() {
            // The app was loaded again while its objects were brought.
            route = self.route(&request, &self.routes.load(), Choice::Take)?;
            check(&request, &route.handler)?;
        }
        if route.handler.stream {
            let (responses, read) = mpsc::unbounded_channel();
            let ticket =
                self.enter(request, held, &route, Caller::Many { responses, unread: 0 }, arrived, &mut origin)?;
            return Ok(Reply::Many(Box::pin(ResponseStream::new(Arc::clone(self), ticket, read))));
        }
        let (caller, answer) = oneshot::channel();
        let ticket = self.enter(request, held, &route, Caller::One(caller), arrived, &mut origin)?;
        let mut waiting = Waiting { pool: self, ticket, answered: false };
        let answer = answer.await;
        waiting.answered = true;
        let lost = |_| Err(Error::internal("the request was dropped without an answer"));
        answer.unwrap_or_else(lost).map(Reply::One)
    }
}

/// Whether a request fits its handler.
pub(crate) fn check(request: &Request, handler: &Handler) -> Result<(), Error> {
    if handler.stream && request.expects == Expects::One {
        let how = "call it with ModelStreamInfer (Client.stream, anyserve call --stream)";
        let message = format!("model '{}' answers with a stream: {how}", handler.model_name());
        return Err(Error::new(Code::Unsupported, message));
    }
    check_request(request, handler)
}

impl tower::Service<Request> for Pool {
    type Response = Reply;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let pool = self.clone();
        Box::pin(async move { pool.infer(request).await })
    }
}

/// Cancels the request if its caller stops waiting.
struct Waiting<'a> {
    pool: &'a Inner,
    ticket: Ticket,
    answered: bool,
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.cancel(self.ticket);
        }
    }
}

// === impl Inner ===

impl Inner {
    /// The handler that a request goes to: of those that match best, the one with the shortest wait.
    pub(crate) fn admit(&self, request: &Request, routes: &Routes, choice: Choice) -> Result<Arc<Route>, Error> {
        if self.is_draining() {
            return Err(Error::new(Code::Draining, "this replica is leaving and takes no more requests"));
        }
        self.route(request, routes, choice)
    }

    /// The same, also while the replica leaves: what is in flight is finished, with all that it calls.
    pub(crate) fn route(&self, request: &Request, routes: &Routes, choice: Choice) -> Result<Arc<Route>, Error> {
        if routes.is_empty() {
            return Err(Error::new(Code::Starting, "no worker is ready yet").with_retry_after(Duration::from_secs(1)));
        }
        let candidates = routes.candidates(&request.query, &request.version)?;
        candidates
            .iter()
            .filter(|route| route.group.ready_workers() == 0)
            .for_each(|route| self.expect_worker(&route.group));
        let mut alike = candidates.iter();
        match (alike.next(), alike.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            _ => Ok(Arc::clone(self.shortest(request, &candidates.iter().collect::<Vec<_>>(), choice))),
        }
    }

    /// Of routes that suit a request alike, the one that it waits least for; those that are equal take turns.
    fn shortest<'a>(&self, request: &Request, routes: &[&'a Arc<Route>], choice: Choice) -> &'a Arc<Route> {
        let (now, first) = (Instant::now(), routes[0]);
        // What is wrong with its wishes is said when it is queued.
        let Ok(wishes) = Wishes::of(request, &first.handler, now) else { return first };
        let (job, of) =
            (wishes.job(first.group.id, first.index), routes.iter().map(|route| (route.group.id, route.index)));
        let of: Vec<_> = of.collect();
        let chosen = match choice {
            Choice::Take => self.dispatch.lock().machine.shortest(&of, &job, now),
            Choice::Look => self.ask(|dispatch| dispatch.machine.would_choose(&of, &job, now)),
        };
        routes[chosen]
    }

    /// Whether requests have to carry their fingerprints.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.suspicious.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Brings the objects that a request refers to, and checks the request. Returns what it holds.
    async fn prepare(&self, request: &mut Request, handler: &Handler) -> Result<Vec<Bytes>, Error> {
        let held = if references::has_any(request) { self.resolve(request).await? } else { Vec::new() };
        check(request, handler)?;
        Ok(held)
    }

    fn enter(
        &self,
        mut request: Request,
        held: Vec<Bytes>,
        route: &Route,
        caller: Caller,
        arrived: Instant,
        origin: &mut Origin<'_>,
    ) -> Result<Ticket, Error> {
        let wishes = Wishes::of(&request, &route.handler, arrived)?;
        let bytes = request.body_len();
        let batch = batch_key(&request, &route.handler, &self.batch_hash);
        let place = u32::try_from(route.index).expect("a handler table is far shorter");
        let (max_meta, memory) = (self.config.limits.max_meta, &self.config.memory);
        let parcel = Parcel::try_new(&mut request, (route.group.id, place), max_meta, memory, held)?;
        let batch = batch.filter(|_| parcel.meta.len() <= MAX_BATCHED_META);
        let fingerprint = self.is_suspicious().then(|| fingerprint::of(&parcel));
        let echo = Echo::of(&mut request, &route.version);
        let job = Job { bytes, batch, fingerprint, ..wishes.job(route.group.id, route.index) };
        let pending = Pending::new(parcel, caller, echo, Arc::clone(&route.counters), arrived);
        let ticket = self.submit(&job, pending, origin)?;
        self.nudge(&route.group);
        Ok(ticket)
    }
}

impl Directory for Pool {
    fn catalog(&self) -> Arc<Catalog> {
        self.inner.catalog.load_full()
    }

    fn statistics(&self, index: usize) -> Option<Statistics> {
        self.inner.routes.load().get(index).map(|route| route.counters.read())
    }

    fn snapshot(&self) -> Snapshot {
        let groups = self.inner.groups.load();
        let (loads, retries, quarantined) = self.inner.ask(|dispatch| {
            let machine = &dispatch.machine;
            let loads: Vec<_> = groups.iter().map(|group| machine.load(group.id)).collect();
            (loads, machine.retries(), machine.quarantined(Instant::now()).len() as u64)
        });
        let named = |of: fn(&GroupLoad) -> usize| {
            groups.iter().zip(&loads).map(|(group, load)| (group.name().to_owned(), of(load) as u64)).collect()
        };
        let restarts = |group: &Arc<WorkerGroup>| (group.name().to_owned(), group.restarts.load(Ordering::Relaxed));
        Snapshot {
            queued: named(|load| load.queued),
            in_flight: named(|load| load.in_flight),
            workers: self.inner.worker_counts(),
            restarts: groups.iter().map(restarts).collect(),
            capabilities: self.inner.capability_loads(),
            retries: retries.sent,
            retries_refused: retries.refused,
            quarantined,
            objects: self.inner.store_load(),
        }
    }

    fn changed(&self, known: u64) -> Changed {
        let mut version = self.inner.version.subscribe();
        Box::pin(async move {
            // The sender lives as long as the pool; without it nothing will change any more.
            if version.wait_for(|version| *version != known).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn explain(&self, request: &Request) -> Explanation {
        self.inner.explain(request)
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.inner.quarantined()
    }

    fn release(&self, fingerprint: Option<Fingerprint>) -> usize {
        let (released, after) = self.inner.event(|dispatch, now| dispatch.machine.release(fingerprint, now));
        after.finish();
        released
    }
}
