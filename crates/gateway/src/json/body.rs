//! The body of a request, put together.

use anyserve_core::{Code, Error};
use anyserve_server::parts::Charge;
use bytes::BytesMut;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Failure;
use crate::proxy::Proxy;

/// Reads a body of at most `max_json` bytes, which are paid for as they arrive.
///
/// # Errors
/// `INVALID_INPUT` for a longer one, before it is read if it says so; `OVERLOADED` where there is no memory for it.
pub(super) async fn read(
    proxy: &Proxy,
    headers: &HeaderMap,
    mut body: Incoming,
) -> Result<(BytesMut, Charge), Failure> {
    let max = proxy.max_json;
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    check(told.unwrap_or(0), max)?;
    let (mut all, mut charge) = (BytesMut::new(), proxy.budget.charge());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::new(Code::Cancelled, format!("the client is gone: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        check(all.len().saturating_add(data.len()), max)?;
        charge.grow(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all, charge))
}

fn check(len: usize, max: usize) -> Result<(), Failure> {
    if len <= max {
        return Ok(());
    }
    let message = format!("the body has {len} bytes or more, the limit is {max}: send large tensors over gRPC");
    Err(Failure::TooLarge(Error::invalid(message)))
}
