//! One request on its way: its route, which is told of its end whatever happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use anyserve_cluster::{Event, Route, Step, Target};
use anyserve_core::{Code, Error};
use anyserve_server::parts::CallHead;
use http::HeaderMap;
use tokio::time::Sleep;

use super::asked::Asked;
use super::failure::{self, Refused};
use super::front::Proxy;
use super::headers;
use crate::Fleet;
use crate::in_flight::Counted;

/// A request that has set out. Dropped before its end, its caller has left.
pub(crate) struct Flight {
    fleet: Arc<Fleet>,
    route: Route,
    over: bool,
    deadline: Option<Instant>,
    late: Option<Pin<Box<Sleep>>>,
    /// Where it was sent last.
    target: Option<Target>,
    /// What the last replica that failed said.
    refusal: Option<Refused>,
    _counted: Counted,
}

// === impl Flight ===

impl Flight {
    /// A request sets out.
    pub(crate) fn begin(proxy: &Proxy, asked: &Asked) -> (Self, Step) {
        let fleet = Arc::clone(&proxy.fleet);
        let (route, step) = fleet.begin(asked.call());
        let over = matches!(step, Step::Over(_));
        let (deadline, counted) = (asked.deadline(), proxy.in_flight.begin());
        let flight = Self { fleet, route, over, deadline, late: None, target: None, refusal: None, _counted: counted };
        (flight, step)
    }

    /// The step after an event.
    pub(crate) fn on(&mut self, event: Event) -> Step {
        let step = self.fleet.on(&mut self.route, event);
        self.over = matches!(step, Step::Over(_));
        step
    }

    /// It is sent to a replica.
    pub(crate) fn sent(&mut self, target: Target) {
        self.target = Some(target);
    }

    /// The name of the replica that it was sent to last.
    pub(crate) fn replica(&self) -> &str {
        self.target.as_ref().map_or("", |target| &*target.id)
    }

    /// What the replica's trailers say, before anything of an answer has come.
    pub(crate) fn failed(&mut self, error: Error, mut trailers: HeaderMap) -> Event {
        let Some(target) = &self.target else { return Event::Failed { error, emitted: false } };
        let event = failure::event(error.clone(), &trailers, target);
        headers::of_answer(&mut trailers);
        self.refusal = Some(Refused { error, trailers: Box::new(trailers) });
        event
    }

    /// The answer ended with these trailers, which are told on. With an error it has failed.
    pub(crate) fn end(mut self, mut trailers: HeaderMap) -> Result<HeaderMap, Refused> {
        let error = self.target.as_ref().and_then(|target| failure::failure(&trailers, target));
        headers::of_answer(&mut trailers);
        let Some(error) = error else {
            self.on(Event::Answered);
            self.trail(&mut trailers);
            return Ok(trailers);
        };
        self.refusal = Some(Refused { error: error.clone(), trailers: Box::new(trailers) });
        Err(self.fail(Event::Failed { error, emitted: true }))
    }

    /// The request ends by this event, after a part of the answer has come.
    pub(crate) fn fail(mut self, event: Event) -> Refused {
        match self.on(event) {
            Step::Over(Err(error)) => self.refused(error),
            step => self.refused(Error::internal(format!("an answer that has begun cannot begin again: {step:?}"))),
        }
    }

    /// What the client is told of an error: the replica's own words, if it is its error.
    pub(crate) fn refused(&mut self, error: Error) -> Refused {
        let own = self.refusal.take().filter(|refusal| refusal.error == error);
        let mut refused = own.unwrap_or_else(|| error.into());
        self.trail(&mut refused.trailers);
        refused
    }

    /// Waits for what becomes of it, but no longer than a little after its deadline: `None` then.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let Some(deadline) = self.deadline else { return Some(work.await) };
        tokio::time::timeout_at(CallHead::give_up_at(deadline), work).await.ok()
    }

    /// Whether its deadline has passed, and a little more.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(CallHead::give_up_at(deadline))));
        late.as_mut().poll(cx)
    }

    /// Adds whose answer it is to its trailers, and the attempts.
    fn trail(&self, trailers: &mut HeaderMap) {
        headers::trail(trailers, self.target.as_ref().map(|target| &*target.id), self.route.attempts());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.over {
            let step = self.on(Event::Left);
            debug_assert!(matches!(&step, Step::Over(Err(error)) if error.code == Code::Cancelled), "{step:?}");
        }
    }
}
