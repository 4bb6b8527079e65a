//! The pool as ingress sees it: a service from request to reply, and a directory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use anyserve_core::{
    Catalog, Code, Directory, Error, Expects, Handler, Reply, Request, Snapshot, Statistics, WorkerCount, check_request,
};
use anyserve_sched::{Job, Ticket};
use tokio::sync::{mpsc, oneshot};

use crate::dispatch::Inner;
use crate::pending::{Caller, Echo, Parcel, Pending};
use crate::pool::{Pool, group_name};
use crate::routes::Route;
use crate::stream::ResponseStream;

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
        let route = self.inner.admit(&request)?;
        route.counters.arrived();
        if let Err(error) = check(&request, &route.handler) {
            route.counters.failed(error.code, arrived);
            return Err(error);
        }
        if route.handler.stream {
            self.stream(request, &route, arrived)
        } else {
            self.unary(request, &route, arrived).await
        }
    }

    async fn unary(&self, request: Request, route: &Route, arrived: Instant) -> Result<Reply, Error> {
        let (caller, answer) = oneshot::channel();
        let ticket = self.inner.enter(request, route, Caller::One(caller), arrived)?;
        let mut waiting = Waiting { pool: &self.inner, ticket, answered: false };
        let answer = answer.await;
        waiting.answered = true;
        let lost = |_| Err(Error::internal("the request was dropped without an answer"));
        answer.unwrap_or_else(lost).map(Reply::One)
    }

    fn stream(&self, request: Request, route: &Route, arrived: Instant) -> Result<Reply, Error> {
        let (responses, read) = mpsc::unbounded_channel();
        let ticket = self.inner.enter(request, route, Caller::Many { responses, unread: 0 }, arrived)?;
        Ok(Reply::Many(Box::pin(ResponseStream::new(Arc::clone(&self.inner), ticket, read))))
    }
}

fn check(request: &Request, handler: &Handler) -> Result<(), Error> {
    if handler.stream && request.expects == Expects::One {
        let message = format!("model '{}' answers with a stream: call it with ModelStreamInfer", handler.model_name());
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
    fn admit(&self, request: &Request) -> Result<Arc<Route>, Error> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Error::new(Code::Draining, "this replica is leaving and takes no more requests"));
        }
        let routes = self.routes.load();
        if routes.is_empty() {
            return Err(Error::new(Code::Starting, "no worker is ready yet"));
        }
        routes.find(&request.query, &request.version)
    }

    fn enter(&self, mut request: Request, route: &Route, caller: Caller, arrived: Instant) -> Result<Ticket, Error> {
        let own = route.handler.timeout.map(|timeout| arrived + timeout);
        let deadline = request.deadline.into_iter().chain(own).min();
        let job = Job { group: route.group, handler: route.index, deadline, bytes: request.body_len() };
        let place = u32::try_from(route.index).expect("a handler table is far shorter");
        let parcel = Parcel::try_new(&mut request, place, self.config.limits.max_meta)?;
        let echo = Echo::of(&mut request, &route.version);
        let counters = Arc::clone(&route.counters);
        self.submit(job, Pending { parcel, caller, echo, counters, arrived, sent: None })
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
        let load = self.inner.load();
        let count = |count: usize| vec![(group_name(), count as u64)];
        let mut workers: Vec<WorkerCount> = Vec::new();
        for state in self.inner.states.lock().iter().copied() {
            match workers.iter_mut().find(|known| known.state == state) {
                Some(known) => known.count += 1,
                None => workers.push(WorkerCount { group: group_name(), state, count: 1 }),
            }
        }
        let restarts = vec![(group_name(), self.inner.restarts.load(Ordering::Relaxed))];
        Snapshot { queued: count(load.queued), in_flight: count(load.in_flight), workers, restarts }
    }
}
