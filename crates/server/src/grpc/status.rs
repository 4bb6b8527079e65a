//! From the closed set of codes to a gRPC status, with everything a client needs to act on it.

use anyserve_core::header::{HAND_BACK, to_header};
use anyserve_core::{Error, Query};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::body::Body;

/// The trailer, and inside a stream the parameter, that names the code of the closed set; several codes share one gRPC
/// status.
pub(super) const CODE: &str = "x-anyserve-code";

/// The parameter of an error inside a stream that says when to come back, in milliseconds. Elsewhere it is in the
/// status's details.
pub(super) const RETRY_AFTER: &str = "x-anyserve-retry-after-ms";

/// Longest message and longest traceback in a status, in bytes. They travel in trailers, for which clients commonly
/// take no more than 8 KiB.
const MAX_TEXT: usize = 2 << 10;

/// Longest selector in a header, in bytes, escapes and all.
const MAX_SELECTOR: usize = 16 << 10;

/// `google.rpc.Status`: what `grpc-status-details-bin` holds.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    causes: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `google.rpc.ErrorInfo`: the code of the closed set.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// `google.rpc.RetryInfo`: when to come back.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `google.rpc.DebugInfo`: the handler's traceback.
#[derive(Clone, PartialEq, Message)]
struct DebugInfo {
    #[prost(string, repeated, tag = "1")]
    stack_entries: Vec<String>,
    #[prost(string, tag = "2")]
    detail: String,
}

/// The status of an error.
pub fn status(error: &Error) -> Status {
    status_as(tonic::Code::from_i32(error.code.grpc()), error)
}

/// The status of something that is there already: `INVALID_INPUT` under the gRPC code that clients of KServe expect.
pub(super) fn already_exists(message: String) -> Status {
    status_as(tonic::Code::AlreadyExists, &Error::invalid(message))
}

/// The status under a gRPC code of its own, which clients know from elsewhere.
pub(super) fn status_as(code: tonic::Code, error: &Error) -> Status {
    let message = head(&error.message);
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE, MetadataValue::from_static(error.code.name()));
    if let Some(selector) = hand_back(error).and_then(|text| text.parse().ok()) {
        metadata.insert(HAND_BACK, selector);
    }
    let details = Details { code: code.into(), message: message.to_owned(), causes: details(error) };
    Status::with_details_and_metadata(code, message, details.encode_to_vec().into(), metadata)
}

/// What [`HAND_BACK`] says of an error: the selector that the request is to be served elsewhere with, or nothing if the
/// query stays what it is. `None` if it is no hand-back.
///
/// A selector that is too long for a header is as good as none: the query stays what it was.
pub(crate) fn hand_back(error: &Error) -> Option<String> {
    let query: &Query = error.hand_back.as_ref()?;
    let selector = query.to_selector().map(|selector| to_header(&selector));
    Some(selector.filter(|selector| selector.len() <= MAX_SELECTOR).unwrap_or_default())
}

/// A response that is nothing but an error.
pub(crate) fn refusal(error: &Error) -> Response<Body> {
    response(status(error))
}

/// Trailers of a response that fails after its headers.
pub(crate) fn failed(error: &Error) -> HeaderMap {
    status(error).into_http::<()>().into_parts().0.headers
}

/// Trailers of a response that ended well.
pub(crate) fn succeeded() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn response(status: Status) -> Response<Body> {
    status.into_http::<()>().map(|()| Body::empty())
}

fn details(error: &Error) -> Vec<Any> {
    let info = ErrorInfo { reason: error.code.name().to_owned(), domain: "anyserve".to_owned() };
    let mut all = vec![any("ErrorInfo", &info)];
    if let Some(after) = error.retry_after {
        let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        let nanos = i32::try_from(after.subsec_nanos()).unwrap_or(0);
        all.push(any("RetryInfo", &RetryInfo { retry_delay: Some(Delay { seconds, nanos }) }));
    }
    if let Some(traceback) = &error.traceback {
        all.push(any("DebugInfo", &DebugInfo { stack_entries: Vec::new(), detail: tail(traceback).to_owned() }));
    }
    all
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/google.rpc.{name}"), value: message.encode_to_vec().into() }
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The end of a traceback is where it says what happened.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_TEXT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::Code;
    use std::time::Duration;

    fn details_of(error: &Error) -> Details {
        Details::decode(status(error).details()).unwrap()
    }

    #[test]
    fn every_code_becomes_its_grpc_status_and_keeps_its_name() {
        for code in Code::all() {
            let trailers = failed(&Error::new(code, "why"));
            assert_eq!(trailers["grpc-status"], code.grpc().to_string(), "{code}");
            assert_eq!(trailers["grpc-message"], "why");
            assert_eq!(trailers[CODE], code.name());
            let details = details_of(&Error::new(code, "why"));
            let info = ErrorInfo::decode(details.causes[0].value.clone()).unwrap();
            assert_eq!((details.code, info.reason.as_str()), (code.grpc(), code.name()));
        }
    }

    #[test]
    fn retry_after_and_traceback_travel_as_details() {
        let error = Error::new(Code::Overloaded, "full").with_retry_after(Duration::from_millis(1500));
        let details = details_of(&error.with_traceback("Traceback: x"));
        assert_eq!(details.causes[1].type_url, "type.googleapis.com/google.rpc.RetryInfo");
        let retry = RetryInfo::decode(details.causes[1].value.clone()).unwrap();
        assert_eq!(retry.retry_delay, Some(Delay { seconds: 1, nanos: 500_000_000 }));
        let debug = DebugInfo::decode(details.causes[2].value.clone()).unwrap();
        assert_eq!(debug.detail, "Traceback: x");
    }

    #[test]
    fn a_hand_back_says_as_what_it_is_to_be_served_elsewhere() {
        let no_capability = || Error::new(Code::NoCapability, "not here");
        let told = |query| failed(&no_capability().with_hand_back(query))[HAND_BACK].to_str().unwrap().to_owned();
        assert_eq!(told(Query::parse("type=b,size in (1,2)").unwrap()), "size%20in%20(1,2),type=b");
        assert_eq!(told(Query::model("chat")), "");
        assert!(!failed(&no_capability()).contains_key(HAND_BACK));
        let len = |len: usize| told(Query::equal_to([("k", "v".repeat(len))])).len();
        assert_eq!(
            (len(MAX_SELECTOR - 3), len(MAX_SELECTOR - 2), len(MAX_SELECTOR - 1)),
            (MAX_SELECTOR - 1, MAX_SELECTOR, 0)
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(MAX_TEXT);
        assert_eq!(status(&Error::internal(text.clone())).message().len(), MAX_TEXT);
        assert_eq!(tail(&text).len(), MAX_TEXT);
        assert_eq!((head("short"), tail("short")), ("short", "short"));
    }
}
