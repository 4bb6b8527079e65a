//! `ModelStreamInfer`: the response body of the call, which drives the whole session.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use anyserve_core::{Code, Error};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::framing::{FrameLimits, Messages};
use super::metadata::Metadata;
use super::session::{Progress, Session};
use super::{status, timeout, unary};
use crate::Upstream;
use crate::body::{Body, BodyError};
use crate::route::{App, panicked};

/// The body: a session, and what may end it from outside.
struct Stream<S: Upstream> {
    /// `None` once the trailers are written.
    session: Option<Session<S>>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// `None` once it has come.
    leaving: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Answers a `ModelStreamInfer` call. The headers go out at once, everything else as it comes.
pub(crate) fn stream_infer<S: Upstream>(app: &Arc<App<S>>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let metadata = match Metadata::read(&head.headers, Instant::now()) {
        Ok(metadata) => metadata,
        Err(error) => return status::refusal(&error),
    };
    let limits =
        FrameLimits { max_message: app.limits.max_message, encoding: metadata.encoding, budget: app.budget.clone() };
    let encoding = metadata.answer;
    let stream = Stream {
        deadline: metadata.deadline.map(|at| Box::pin(tokio::time::sleep_until(timeout::give_up_at(at)))),
        leaving: Some(Box::pin(app.leaving.clone().cancelled_owned())),
        session: Some(Session::new(Arc::clone(app), Messages::new(body, limits), metadata)),
    };
    let mut response = Response::new(Body::boxed(stream));
    unary::put_headers(&mut response, encoding);
    response
}

// === impl Stream ===

impl<S: Upstream> http_body::Body for Stream<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // After a panic the session is dropped with all its requests, whatever state it is in.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| this.poll(cx)));
        let frame = polled.unwrap_or_else(|panic| Poll::Ready(this.end(Err(panicked(&*panic)))));
        frame.map(|frame| frame.map(Ok))
    }
}

impl<S: Upstream> Stream<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(session) = &mut self.session else { return Poll::Ready(None) };
        match session.poll(cx) {
            Progress::Data(data) => return Poll::Ready(Some(Frame::data(data))),
            Progress::Ended(end) => return Poll::Ready(self.end(end)),
            Progress::Waiting => {}
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(self.end(Err(timeout::passed())));
        }
        if self.leaving.as_mut().is_some_and(|leaving| leaving.as_mut().poll(cx).is_ready()) {
            self.leaving = None;
            return self.leave(cx);
        }
        Poll::Pending
    }

    /// Reads no further requests; those that are in flight are answered.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(session) = &mut self.session {
            session
                .refuse_further(Error::new(Code::Draining, "the server is leaving: send further requests elsewhere"));
        }
        self.poll(cx)
    }

    /// The trailers. Requests that are still in flight are cancelled.
    fn end(&mut self, end: Result<(), Error>) -> Option<Frame<Bytes>> {
        self.session.take()?;
        let trailers = end.map_or_else(|error| status::failed(&error), |()| status::succeeded());
        Some(Frame::trailers(trailers))
    }
}
