//! Fuzz targets: calls of clients and answers of replicas, as the proxy reads them.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::convert::Infallible;

use anyserve_proto::inference::ModelInferRequest;
use anyserve_server::parts::Budget;
use bytes::{Buf, Bytes};
use futures_util::{FutureExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;

use super::message::{Message, Messages};
use super::scan::{Found, Wants, scan};

/// Bytes as the DATA frames of a call, as long as the first byte says: in any frames the messages are the same, are sent
/// on as they came, and the call ends alike.
pub fn messages(data: &[u8]) {
    let Some((size, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    let whole = read(&body, body.len());
    assert_eq!(read(&body, usize::from(*size)), whole);
    assert!(body.starts_with(&whole.0.concat()));
}

/// Bytes as a `ModelInferRequest` of which only what routing needs is looked at, which is what prost makes of it.
///
/// prost reads entries of maps whatever their wire type says; what is so broken may be refused here. A message that prost
/// has written is never refused.
pub fn scanned(data: &[u8]) {
    let _ = scan(data, Wants::Name);
    let found = [Wants::Query, Wants::Prompt].map(|wants| scan(data, wants));
    let Ok(message) = ModelInferRequest::decode(data) else { return };
    found.into_iter().flatten().for_each(|found| same(&found, &message));
    let written = message.encode_to_vec();
    for wants in [Wants::Query, Wants::Prompt] {
        same(&scan(&*written, wants).expect("it was written by prost"), &message);
    }
}

fn same(found: &Found, message: &ModelInferRequest) {
    let Found { model, version, id, capability, .. } = found;
    assert_eq!((model, version, id), (&message.model_name, &message.model_version, &message.id));
    // A number may be none, which is not equal to itself.
    assert_eq!(format!("{:?}", capability.as_ref()), format!("{:?}", message.parameters.get("capability")));
}

/// The messages of a body with their prefixes, and how it ends; all is there, so nothing is ever pending.
fn read(body: &Bytes, size: usize) -> (Vec<Vec<u8>>, Result<(), String>) {
    let frames = body.chunks(size.max(1)).map(|piece| Ok::<_, Infallible>(Frame::data(body.slice_ref(piece))));
    let mut messages = Messages::new(StreamBody::new(stream::iter(frames)), 20 << 10, Budget::of(1 << 20));
    let mut all = Vec::new();
    loop {
        match messages.next().now_or_never().expect("all is there") {
            Ok(Some(message)) => all.push(checked(&message)),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error.of_client().message)),
        }
    }
}

fn checked(message: &Message) -> Vec<u8> {
    let framed = message.pieces().concat();
    let mut reader = message.reader();
    assert_eq!(reader.copy_to_bytes(reader.remaining()), framed[5..]);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn messages_are_sent_on_as_they_came() {
        attack("proxy_messages", messages);
    }

    #[test]
    fn what_routing_reads_is_what_the_replica_will_read() {
        attack("proxy_scanned", scanned);
    }
}
