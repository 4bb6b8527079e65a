//! `ModelStreamInfer`: the response body of the call, which drives the whole session.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use anyserve_core::{Code, Error};
use anyserve_server::BodyError;
use anyserve_server::parts::{CallHead, panicked, succeeded};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::failure::Refused;
use super::front::Proxy;
use super::headers;
use super::session::{Progress, Session};
use crate::body::{Body, grpc};

/// The body: a session, and what may end it from outside.
struct Stream {
    /// `None` once the trailers are written.
    session: Option<Session>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// `None` once it has come.
    leaving: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Answers a `ModelStreamInfer` call. The headers go out at once, everything else as it comes.
///
/// # Errors
/// [`Refused`] if its headers cannot be read.
pub(crate) fn stream_infer(proxy: &Arc<Proxy>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    let (head, body) = request.into_parts();
    let call = CallHead::read(&head.headers, Instant::now())?;
    let encoding = call.answer_encoding();
    let stream = Stream {
        deadline: call.deadline().map(|at| Box::pin(tokio::time::sleep_until(CallHead::give_up_at(at)))),
        leaving: Some(Box::pin(proxy.leaving.clone().cancelled_owned())),
        session: Some(Session::new(proxy, call, headers::of_call(&head.headers), body)),
    };
    let mut response = grpc(stream);
    if let Some(encoding) = encoding {
        response.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
    }
    Ok(response)
}

// === impl Stream ===

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // After a panic the session is dropped with all its requests, whatever state it is in.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| this.poll(cx)));
        let frame = polled.unwrap_or_else(|panic| Poll::Ready(this.end(Err(panicked(&*panic).into()))));
        frame.map(|frame| frame.map(Ok))
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(session) = &mut self.session else { return Poll::Ready(None) };
        match session.poll(cx) {
            Progress::Data(data) => return Poll::Ready(Some(Frame::data(data))),
            Progress::Ended(end) => return Poll::Ready(self.end(end)),
            Progress::Waiting => {}
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            let passed = Error::new(Code::Deadline, "the deadline passed before all requests of the stream had ended");
            return Poll::Ready(self.end(Err(passed.into())));
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
            session.refuse_further(super::leaving());
        }
        self.poll(cx)
    }

    /// The trailers. Requests that are still in flight are cancelled.
    fn end(&mut self, end: Result<(), Refused>) -> Option<Frame<Bytes>> {
        self.session.take()?;
        Some(Frame::trailers(end.map_or_else(|refused| *refused.trailers, |()| succeeded())))
    }
}
