//! What the headers of a call say: deadline, compression, query, and what is left for the handler.

use std::time::Instant;

use anyserve_core::{Code, Condition, Error};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::compression::Encoding;
use super::timeout;
use crate::explain;

/// Headers that start so are conditions on the capability: `x-capability-size: 7`.
const CAPABILITY: &str = "x-capability-";

/// Headers that the runtime itself reads on a request.
///
/// They reach the handler like any other; but one that cannot be read is an error and is not left out.
const SCHEDULE: [&str; 2] = ["x-priority", "x-tenant"];

/// What was read of a call's headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// When the client stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// How compressed messages of the client are compressed.
    pub(super) encoding: Encoding,
    /// How responses are compressed: as the client did it, if it takes that.
    pub(super) answer: Encoding,
    /// Conditions of the query, if it comes by headers.
    pub(crate) conditions: Vec<Condition>,
    /// Headers for the handler.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether the first error ends a stream with its status.
    pub(super) fatal_errors: bool,
    /// Whether the answer is to say what became of the request, and why.
    pub(super) explains: bool,
}

// === impl Metadata ===

impl Metadata {
    /// Reads the headers of a call that arrived at `now`.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a deadline or a condition that cannot be read, `UNSUPPORTED` for an unknown compression.
    pub(crate) fn read(headers: &HeaderMap, now: Instant) -> Result<Self, Error> {
        let mut read = Self::default();
        let mut accepted = None;
        for (name, value) in headers {
            match name.as_str() {
                "grpc-timeout" => read.deadline = deadline(value, now)?,
                "grpc-encoding" => read.encoding = Encoding::read(value)?,
                "grpc-accept-encoding" => accepted = Some(value),
                "triton_grpc_error" => read.fatal_errors = value.as_bytes().eq_ignore_ascii_case(b"true"),
                explain::HEADER => read.explains = matches!(value.as_bytes(), b"1" | b"true"),
                _ => read.keep(name, value)?,
            }
        }
        if accepted.is_some_and(|accepted| read.encoding.is_among(accepted)) {
            read.answer = read.encoding;
        }
        Ok(read)
    }

    fn keep(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Error> {
        if is_of_transport(name.as_str()) {
            return Ok(());
        }
        let key = name.as_str().strip_prefix(CAPABILITY).filter(|key| !key.is_empty());
        let Ok(text) = value.to_str() else {
            let is_read = key.is_some() || SCHEDULE.contains(&name.as_str());
            return if is_read { Err(not_ascii(name)) } else { Ok(()) };
        };
        if let Some(key) = key {
            self.conditions.push(Condition::equals(key, text));
        }
        self.headers.push((name.as_str().to_owned(), text.to_owned()));
        Ok(())
    }
}

/// Headers that are about the connection or the encoding of the call, and binary ones.
fn is_of_transport(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "te",
        "content-type",
        "user-agent",
        "content-length",
        "accept-encoding",
        "host",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name) || name.starts_with("grpc-") || name.ends_with("-bin")
}

fn deadline(value: &HeaderValue, now: Instant) -> Result<Option<Instant>, Error> {
    let timeout = value.to_str().ok().and_then(timeout::parse);
    let timeout = timeout.ok_or_else(|| Error::invalid(format!("grpc-timeout {value:?} is no timeout")))?;
    // A deadline beyond what the clock can tell is none.
    Ok(now.checked_add(timeout))
}

fn not_ascii(name: &HeaderName) -> Error {
    Error::new(Code::InvalidInput, format!("the value of {name} is not ASCII text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Metadata, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Metadata::read(&headers, Instant::now())
    }

    #[test]
    fn headers_of_the_caller_reach_the_handler_and_those_of_the_transport_do_not() {
        let pairs = [("te", "trailers"), ("user-agent", "x"), ("grpc-x", "1"), ("a-bin", "AA"), ("x-user", "me")];
        assert_eq!(read(&pairs).unwrap().headers, [("x-user".to_owned(), "me".to_owned())]);
    }

    #[test]
    fn capability_headers_become_conditions() {
        let read = read(&[("x-capability-type", "chat"), ("x-capability-size", "7")]).unwrap();
        assert_eq!(read.conditions, [Condition::equals("type", "chat"), Condition::equals("size", "7")]);
    }

    #[test]
    fn what_the_scheduler_reads_reaches_it_or_is_an_error() {
        let pairs = [("x-priority", "1"), ("x-tenant", "a")];
        assert_eq!(read(&pairs).unwrap().headers, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for name in ["x-priority", "x-tenant", "x-capability-type", "x-other"] {
            let mut headers = HeaderMap::new();
            headers.append(name, HeaderValue::from_bytes(&[b'a', 0xe9]).unwrap());
            let read = Metadata::read(&headers, Instant::now());
            assert_eq!(read.is_ok(), name == "x-other", "{name}");
        }
    }

    #[test]
    fn an_explanation_is_asked_for_by_a_header_of_its_own() {
        let asked = |value| read(&[("x-anyserve-explain", value)]).unwrap();
        assert!(asked("1").explains && asked("true").explains && !asked("0").explains);
        assert!(asked("1").headers.is_empty());
    }

    #[test]
    fn the_timeout_becomes_a_deadline_and_a_malformed_one_an_error() {
        let deadline = read(&[("grpc-timeout", "1H")]).unwrap().deadline.unwrap();
        assert!(deadline > Instant::now() + Duration::from_secs(3500));
        assert_eq!(read(&[("grpc-timeout", "soon")]).unwrap_err().code, Code::InvalidInput);
    }

    #[test]
    fn answers_are_compressed_when_the_client_does_it_and_takes_it() {
        let answer = |pairs| read(pairs).unwrap().answer;
        assert_eq!(answer(&[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, gzip")]), Encoding::Gzip);
        assert_eq!(answer(&[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "deflate")]), Encoding::Identity);
        assert_eq!(answer(&[("grpc-accept-encoding", "gzip")]), Encoding::Identity);
        assert_eq!(read(&[("grpc-encoding", "br")]).unwrap_err().code, Code::Unsupported);
    }
}
