//! One message in, one message out: `ModelInfer`, and the questions about one model.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Code, Error};
use anyserve_server::parts::CallHead;
use http::{Request, Response};
use hyper::body::Incoming;

use super::asked::{Ask, Asked};
use super::carry::{Begun, carry};
use super::failure::Refused;
use super::front::Proxy;
use super::headers;
use super::message::Messages;
use super::relay::Relay;
use crate::body::{Body, boxed};

/// Has a call answered by a replica.
///
/// # Errors
/// [`Refused`] if nobody serves it, or whoever had it failed before an answer began.
pub(crate) async fn infer(proxy: &Arc<Proxy>, ask: Ask, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
    let (head, body) = request.into_parts();
    let call = CallHead::read(&head.headers, Instant::now())?;
    // Kept until the answer has ended: to drop it would tell the client that its request is not wanted.
    let mut messages = Messages::new(body, proxy.limits.max_message, proxy.budget.clone());
    let message = within(call.deadline(), messages.next()).await?.map_err(super::ReadError::of_client)?;
    let message = message.ok_or_else(|| Error::invalid("the call has no message"))?;
    let headers = Arc::new(headers::of_call(&head.headers));
    drop(head);
    let asked = Asked::read(proxy, ask, &call, headers, message)?;
    let begun: Begun = carry(proxy, &asked).await?;
    let (headers, relay) = Relay::of(begun, proxy.limits.max_message, messages);
    let mut response = Response::new(boxed(relay));
    *response.headers_mut() = headers;
    Ok(response)
}

/// Waits for the request's message, but no longer than a little after its deadline.
///
/// # Errors
/// `DEADLINE` then.
pub(crate) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Error> {
    let Some(deadline) = deadline else { return Ok(work.await) };
    let ended = tokio::time::timeout_at(CallHead::give_up_at(deadline), work).await;
    ended.map_err(|_| Error::new(Code::Deadline, "the deadline passed before the request's message had arrived"))
}
