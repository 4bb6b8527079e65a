//! How a gRPC failure becomes one of the closed set of codes.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use anyserve_core::header::{HAND_BACK, from_header};
use anyserve_core::{Code, Error, Parameter, Parameters, Query};
use prost::Message;
use tonic::Status;

use crate::{Endpoint, TlsFault};

/// The trailer, and inside a stream the parameter, that names the code.
pub(crate) const CODE_KEY: &str = "x-anyserve-code";
const RETRY_INFO: &str = "google.rpc.RetryInfo";
const DEBUG_INFO: &str = "google.rpc.DebugInfo";

/// A call that has no answer, and whether the server may have begun it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// It was not sent, or the server said that it did not look at it: sending it elsewhere does no harm.
    pub unsent: bool,
    /// The server answered nothing any more, not even pings: it is as good as gone.
    pub silent: bool,
}

/// The error that a status stands for, of a call with this timeout.
///
/// A server of AnyServe names the code in its trailers; of any other server the gRPC code is translated. A failure
/// of the connection itself names the endpoint and what to look at.
pub fn from_status(status: &Status, endpoint: &Endpoint, timeout: Option<Duration>) -> Error {
    let causes: Vec<Cause<'_>> = status.source().map(|first| causes(first).collect()).unwrap_or_default();
    if causes.iter().any(|cause| cause.is::<tonic::TimeoutExpired>()) {
        return out_of_time(endpoint, timeout.unwrap_or_default());
    }
    if let Some(root) = causes.last().filter(|root| !root.is::<Status>()) {
        return from_transport(&causes, &shown(*root), endpoint);
    }
    let named = status.metadata().get(CODE_KEY).and_then(|name| name.to_str().ok()).and_then(Code::from_name);
    let code = named.unwrap_or_else(|| nearest(status.code()));
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    let mut error = Error::new(code, message);
    add_details(&mut error, status.details());
    let selector = status.metadata().get(HAND_BACK).and_then(|value| value.to_str().ok());
    error.hand_back = selector.and_then(hand_back).map(Box::new);
    error
}

/// Whether the call that ended with this status was never begun: no connection could be made, it was over before the call
/// was written, or the server ended it without having looked at the call, because of this side's certificate say.
///
/// Source: RFC 9113, sections 6.8 (GOAWAY) and 8.7 (`REFUSED_STREAM`).
pub fn unsent(status: &Status) -> bool {
    let not_begun = |cause: Cause<'_>| {
        cause.is::<tonic::ConnectError>()
            || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
            || cause.downcast_ref::<h2::Error>().is_some_and(is_refused)
    };
    let unknown = || matches!(TlsFault::of(status), Some(TlsFault::Wanted | TlsFault::Refused));
    status.source().is_some_and(|first| causes(first).any(not_begun)) || unknown()
}

/// Whether the connection of the call was given up because the server answered no ping.
fn silent(status: &Status) -> bool {
    let timed_out = |cause: Cause<'_>| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout);
    status.source().is_some_and(|first| causes(first).any(timed_out))
}

/// A stream that the other side closed before it looked at it. A connection that just ends says so otherwise.
fn is_refused(error: &h2::Error) -> bool {
    let reason = error.reason();
    let reset = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
    let left = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (reset || left)
}

/// Reads with which query a request goes back: [`Query::model`] of no name where it stays what it is. `None` for what no
/// server writes.
fn hand_back(header: &str) -> Option<Query> {
    let selector = from_header(header)?;
    if selector.is_empty() { Some(Query::model("")) } else { Query::parse(&selector).ok() }
}

/// The query that a request goes back with, which was `asked`; `None` if the error is no hand-back.
pub fn handed_back(error: &Error, asked: &Query) -> Option<Query> {
    let query: &Query = error.hand_back.as_ref()?;
    Some(if *query == Query::model("") { asked.clone() } else { query.clone() })
}

/// The error that an `error_message` inside a stream stands for.
pub(crate) fn from_stream_message(message: String, parameters: &Parameters) -> Error {
    let text = |key: &str| {
        let named = parameters.iter().find(|(name, _)| name == key);
        named.and_then(|(_, value)| if let Parameter::Text(text) = value { Some(text.as_str()) } else { None })
    };
    let code = text(CODE_KEY).and_then(Code::from_name).unwrap_or(Code::Internal);
    let hand_back = text(HAND_BACK).and_then(hand_back).map(Box::new);
    Error { hand_back, ..Error::new(code, message) }
}

// === impl Failed ===

impl Failed {
    /// A failure before anything was sent.
    pub(crate) fn before(error: Error) -> Self {
        Self { error, unsent: true, silent: false }
    }

    /// A failure that the server may have a part in.
    pub(crate) fn after(error: Error) -> Self {
        Self { error, unsent: false, silent: false }
    }

    /// What a status stands for.
    pub(crate) fn of(status: &Status, endpoint: &Endpoint, timeout: Option<Duration>) -> Self {
        Self { error: from_status(status, endpoint, timeout), unsent: unsent(status), silent: silent(status) }
    }
}

/// The error of a deadline that passed on this side.
pub(crate) fn out_of_time(endpoint: &Endpoint, timeout: Duration) -> Error {
    // What is left of a timeout has nanoseconds, which nobody asked for.
    let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let timeout = timeout.min(Duration::from_millis(milliseconds.max(1))).as_secs_f64();
    Error::new(Code::Deadline, format!("{endpoint} did not answer within the timeout of {timeout} s"))
}

/// The code of the closed set for a server that does not name one.
fn nearest(code: tonic::Code) -> Code {
    use tonic::Code as Grpc;
    match code {
        Grpc::Cancelled => Code::Cancelled,
        Grpc::InvalidArgument | Grpc::AlreadyExists | Grpc::FailedPrecondition | Grpc::OutOfRange => Code::InvalidInput,
        Grpc::DeadlineExceeded => Code::Deadline,
        Grpc::NotFound => Code::NotFound,
        Grpc::PermissionDenied => Code::Forbidden,
        Grpc::ResourceExhausted => Code::Overloaded,
        Grpc::Unimplemented => Code::Unsupported,
        Grpc::Aborted | Grpc::Unavailable => Code::Unavailable,
        Grpc::Unauthenticated => Code::Unauthenticated,
        Grpc::Ok | Grpc::Unknown | Grpc::Internal | Grpc::DataLoss => Code::Internal,
    }
}

/// The error of a connection that could not be made, or broke.
fn from_transport(causes: &[Cause<'_>], root: &str, endpoint: &Endpoint) -> Error {
    let refused = |cause: &Cause<'_>| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    let message = if causes.iter().any(refused) {
        format!("nothing listens on {endpoint} (connection refused): check that the server runs there, and its port")
    } else if causes.iter().any(|cause| cause.is::<tonic::ConnectError>()) {
        format!("no connection to {endpoint}: {root}")
    } else {
        format!("the connection to {endpoint} broke before the answer was complete: {root}")
    };
    Error::new(Code::Unavailable, message)
}

/// The first cause, with what it means if it is one of TLS.
fn shown(root: Cause<'_>) -> String {
    TlsFault::of(root).map_or_else(|| root.to_string(), |fault| format!("{root} ({})", fault.says()))
}

type Cause<'a> = &'a (dyn StdError + 'static);

fn causes(first: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(first), |error: &Cause<'_>| (*error).source())
}

/// `google.rpc.Status`, of which only the details are of interest.
#[derive(Clone, PartialEq, prost::Message)]
struct RichStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Span>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `google.rpc.DebugInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct DebugInfo {
    #[prost(string, repeated, tag = "1")]
    stack: Vec<String>,
    #[prost(string, tag = "2")]
    detail: String,
}

/// Takes when to come back and the handler's traceback out of the details. Details that do not decode are ignored:
/// the status says enough without them.
fn add_details(error: &mut Error, details: &[u8]) {
    let Ok(rich) = RichStatus::decode(details) else { return };
    for detail in rich.details {
        let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
        match kind {
            RETRY_INFO => {
                let delay = RetryInfo::decode(detail.value).ok().and_then(|info| info.delay);
                error.retry_after = delay.and_then(Span::positive);
            }
            DEBUG_INFO => error.traceback = DebugInfo::decode(detail.value).ok().and_then(DebugInfo::text),
            _ => {}
        }
    }
}

// === impl Span ===

impl Span {
    fn positive(self) -> Option<Duration> {
        let (seconds, nanos) = (u64::try_from(self.seconds).ok()?, u32::try_from(self.nanos).ok()?);
        (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
    }
}

// === impl DebugInfo ===

impl DebugInfo {
    fn text(self) -> Option<String> {
        let text = if self.stack.is_empty() { self.detail } else { self.stack.join("\n") };
        Some(text).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;

    fn endpoint() -> Endpoint {
        "localhost:8000".parse().unwrap()
    }

    #[test]
    fn a_named_code_wins_over_the_grpc_code() {
        for code in Code::all() {
            let mut metadata = MetadataMap::new();
            metadata.insert(CODE_KEY, code.name().parse().unwrap());
            let status = Status::with_metadata(tonic::Code::from_i32(code.grpc()), "why", metadata);
            assert_eq!(from_status(&status, &endpoint(), None), Error::new(code, "why"));
        }
    }

    #[test]
    fn every_grpc_code_has_a_nearest_code_of_the_set() {
        let nearest = |number| from_status(&Status::new(tonic::Code::from_i32(number), "why"), &endpoint(), None).code;
        let expected = [
            (1, Code::Cancelled),
            (2, Code::Internal),
            (3, Code::InvalidInput),
            (4, Code::Deadline),
            (5, Code::NotFound),
            (6, Code::InvalidInput),
            (7, Code::Forbidden),
            (8, Code::Overloaded),
            (9, Code::InvalidInput),
            (10, Code::Unavailable),
            (11, Code::InvalidInput),
            (12, Code::Unsupported),
            (13, Code::Internal),
            (14, Code::Unavailable),
            (15, Code::Internal),
            (16, Code::Unauthenticated),
            (99, Code::Internal),
        ];
        for (number, code) in expected {
            assert_eq!(nearest(number), code, "gRPC {number}");
        }
    }

    #[test]
    fn retry_info_and_debug_info_are_read_and_garbage_is_ignored() {
        let span = Span { seconds: 1, nanos: 500_000_000 };
        let any =
            |kind: &str, value: Vec<u8>| Any { type_url: format!("type.googleapis.com/{kind}"), value: value.into() };
        let retry = any(RETRY_INFO, RetryInfo { delay: Some(span) }.encode_to_vec());
        let debug =
            any(DEBUG_INFO, DebugInfo { stack: vec!["a".into(), "b".into()], detail: String::new() }.encode_to_vec());
        let details = RichStatus { details: vec![retry, debug] }.encode_to_vec();
        let status = Status::with_details(tonic::Code::ResourceExhausted, "full", details.into());
        let expected =
            Error::new(Code::Overloaded, "full").with_retry_after(Duration::from_millis(1500)).with_traceback("a\nb");
        assert_eq!(from_status(&status, &endpoint(), None), expected);
        let garbage = Status::with_details(tonic::Code::ResourceExhausted, "full", vec![0xff; 9].into());
        assert_eq!(from_status(&garbage, &endpoint(), None), Error::new(Code::Overloaded, "full"));
        assert_eq!(Span { seconds: -1, nanos: 0 }.positive(), None);
    }

    #[test]
    fn a_hand_back_is_read_with_its_query_and_garbage_is_none() {
        let told = |header: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(CODE_KEY, "NO_CAPABILITY".parse().unwrap());
            metadata.insert(HAND_BACK, tonic::metadata::MetadataValue::from_static(header));
            from_status(&Status::with_metadata(tonic::Code::NotFound, "no", metadata), &endpoint(), None)
        };
        let (asked, heavy) = (Query::model("chat"), Query::parse("type=chat.heavy,size in (1,2)").unwrap());
        assert_eq!(handed_back(&told("type=chat.heavy,size%20in%20(1,2)"), &asked), Some(heavy));
        assert_eq!(handed_back(&told(""), &asked), Some(asked.clone()));
        for garbage in ["type=", "%", "a b"] {
            assert_eq!(handed_back(&told(garbage), &asked), None, "{garbage}");
        }
        assert_eq!(handed_back(&Error::new(Code::NoCapability, "no"), &asked), None);
        let named = [(CODE_KEY, "NO_CAPABILITY"), (HAND_BACK, "type=b")];
        let named = named.map(|(name, text)| (name.to_owned(), Parameter::Text(text.to_owned())));
        let error = from_stream_message("no".into(), &named.into());
        assert_eq!(handed_back(&error, &asked), Some(Query::parse("type=b").unwrap()));
    }

    #[test]
    fn a_message_inside_a_stream_has_the_code_of_its_parameter() {
        let named = vec![(CODE_KEY.to_owned(), Parameter::Text("OVERLOADED".into()))];
        assert_eq!(from_stream_message("full".into(), &named), Error::new(Code::Overloaded, "full"));
        assert_eq!(from_stream_message("full".into(), &vec![]).code, Code::Internal);
    }
}
