//! What the headers of a call say: deadline, compression, query, and what is left for the handler.

use std::time::Instant;

use anyserve_core::header::{self, from_header};
use anyserve_core::{Code, Condition, Error, Query};
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
    /// The query that the request has on its way through a fleet, whatever it asked for at first.
    rewritten: Option<Query>,
    /// Conditions of the query, if it comes by headers.
    conditions: Vec<Condition>,
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
                header::QUERY => read.rewritten = Some(rewritten(value)?),
                explain::HEADER => read.explains = matches!(value.as_bytes(), b"1" | b"true"),
                _ => read.keep(name, value)?,
            }
        }
        if accepted.is_some_and(|accepted| read.encoding.is_among(accepted)) {
            read.answer = read.encoding;
        }
        Ok(read)
    }

    /// The query, if it comes by headers: what it has become on its way wins over conditions.
    pub(crate) fn query(&self) -> Option<Query> {
        let conditions = || (!self.conditions.is_empty()).then(|| Query::all(self.conditions.clone()));
        self.rewritten.clone().or_else(conditions)
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

fn rewritten(value: &HeaderValue) -> Result<Query, Error> {
    let selector = value.to_str().ok().and_then(from_header);
    let selector = selector.ok_or_else(|| {
        Error::invalid(format!("header '{}' is no text that is escaped as in grpc-message", header::QUERY))
    })?;
    Query::parse(&selector).map_err(|error| Error::invalid(format!("header '{}': {error}", header::QUERY)))
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
        assert_eq!(read.query(), Some(Query::equal_to([("type", "chat"), ("size", "7")])));
    }

    #[test]
    fn what_a_query_has_become_on_its_way_wins_and_is_not_the_handlers_business() {
        let pairs = [("x-capability-type", "chat"), (header::QUERY, "type=chat.heavy,size%20in%20(1,2)")];
        let metadata = read(&pairs).unwrap();
        assert_eq!(metadata.query(), Some(Query::parse("type=chat.heavy,size in (1,2)").unwrap()));
        assert_eq!(metadata.headers, [("x-capability-type".to_owned(), "chat".to_owned())]);
        for value in ["", "%", "a b", "type=", "type%3d"] {
            let error = read(&[(header::QUERY, value)]).unwrap_err();
            assert_eq!(error.code, Code::InvalidInput, "{value}");
            assert!(error.message.contains(header::QUERY), "{error}");
        }
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
