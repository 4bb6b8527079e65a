//! Fuzz targets: calls of clients, from the frames of HTTP/2 to the runtime's request.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{BytesReader, Error, Expects, Limits, Query, Request, Tensor, elements};
use anyserve_proto::inference::ModelInferRequest;
use bytes::{Buf, Bytes};
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;

use super::compression::Encoding;
use super::decode::decode;
use super::framing::{FrameLimits, Messages};
use super::metadata::Metadata;
use super::scatter;
use super::shared::Sharing;
use super::timeout;
use crate::budget::Budget;
use crate::rooms::Rooms;
use crate::rooms::shelf::Shelf;

/// Size in bytes from which on a tensor is received into memory of its own.
const LARGE: usize = 24;
/// Longest message, in bytes.
const MAX_MESSAGE: usize = 20 << 10;

/// Bytes as the DATA frames of a call, compressed as the first byte says, in frames as long as the second one says.
///
/// In any frames, and with memory for large tensors or without, the messages are the same and the call ends alike.
pub fn framing(data: &[u8]) {
    let [encoding, size, body @ ..] = data else { return };
    let encoding = [Encoding::Identity, Encoding::Gzip, Encoding::Deflate][usize::from(*encoding) % 3];
    let body = Bytes::copy_from_slice(body);
    let expected = messages(&body, body.len(), encoding, &plain());
    let shelf = Shelf::new(LARGE, 64 << 10);
    for (size, budget) in [(usize::from(*size), plain()), (body.len(), on(&shelf)), (usize::from(*size), on(&shelf))] {
        assert_eq!(messages(&body, size, encoding, &budget), expected);
    }
    assert_eq!(shelf.held(), 0);
}

/// Bytes as a `ModelInferRequest`: with memory for large tensors and without it is the same, and the request that it
/// becomes has tensors that are what they say.
pub fn request(data: &[u8]) {
    let shelf = Shelf::new(LARGE, 64 << 10);
    let message = ModelInferRequest::decode(data);
    let scattered = scatter::whole(Bytes::copy_from_slice(data), on(&shelf).rooms()).decode::<ModelInferRequest>();
    // Bytes are compared: a number may be none, which is not equal to itself.
    let written = |message: &ModelInferRequest| message.encode_to_vec();
    assert_eq!(scattered.as_ref().map(written), message.as_ref().map(written));
    let (Ok(message), Ok(scattered)) = (message, scattered) else { return };
    let (read, other) = (decoded(message, &plain()), decoded(scattered, &on(&shelf)));
    assert_eq!(format!("{read:?}"), format!("{other:?}"));
    if let Ok(request) = read {
        assert!(request.inputs.len() <= 8 && request.outputs.len() <= 8);
        request.inputs.iter().for_each(fits);
    }
}

/// Lines as the headers of a call.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let now = Instant::now();
    let Ok(metadata) = Metadata::read(&headers, now) else { return };
    assert!(metadata.headers.iter().all(|(name, value)| headers.get_all(name).iter().any(|own| own == value)));
    if let Some(query) = metadata.query() {
        let written = query.to_selector().expect("headers make no model name");
        assert_eq!(Query::parse(&written), Ok(query));
    }
    if let Some(deadline) = metadata.deadline {
        let left = deadline - now;
        let written = timeout::parse(&timeout::write(left)).expect("what was written is read");
        let lost = left.checked_sub(written).expect("it is written as no more than it is");
        assert!(lost * 100 <= left.max(Duration::from_nanos(1)));
    }
}

fn plain() -> Budget {
    Budget::new(1 << 20, Rooms::new(None))
}

fn on(shelf: &Arc<Shelf>) -> Budget {
    Budget::new(1 << 20, Rooms::new(Some(shelf.memory())))
}

/// Every message of a body, and how it ends; all is there, so nothing is ever pending.
fn messages(body: &Bytes, size: usize, encoding: Encoding, budget: &Budget) -> (Vec<Bytes>, Result<(), Error>) {
    let frames = body.chunks(size.max(1)).map(|piece| Ok::<_, Infallible>(Frame::data(body.slice_ref(piece))));
    let limits = FrameLimits { max_message: MAX_MESSAGE, encoding, budget: budget.clone() };
    let mut messages = Messages::new(StreamBody::new(stream::iter(frames)), limits);
    let mut all = Vec::new();
    loop {
        match messages.next().now_or_never().expect("all is there") {
            Ok(Some(mut message)) => all.push(message.data.copy_to_bytes(message.data.remaining())),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn decoded(message: ModelInferRequest, budget: &Budget) -> Result<Request, Error> {
    let limits = Limits { max_rank: 8, max_tensors: 8, ..Limits::default() };
    let sharing = Sharing { regions: None, budget, max_copy: 0, charge: None };
    decode(message, &Metadata::default(), Expects::One, &limits, sharing).map(|read| read.request)
}

fn fits(tensor: &Tensor) {
    match Tensor::expected_len(tensor.datatype, &tensor.shape).expect("its shape is one") {
        Some(len) => assert_eq!(tensor.data.len(), len),
        None => assert_eq!(Ok(BytesReader::new(&tensor.data).flatten().count()), elements(&tensor.shape)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn messages_are_the_same_however_they_come_and_wherever_they_go() {
        attack("grpc_framing", framing);
    }

    #[test]
    fn a_request_has_tensors_that_are_what_they_say_or_is_refused() {
        attack("infer_request", request);
    }

    #[test]
    fn headers_say_what_can_be_said_again_or_are_refused() {
        attack("call_headers", headers);
    }
}
