//! A request of this replica as a call to another server.

use std::time::Instant;

use anyserve_client::Call;
use anyserve_core::header::{DELEGATIONS, HAND_BACK, QUERY, REFUSED_BY, to_header};
use anyserve_core::{Code, Error, Query, Request};

/// Longest selector that goes along in a header, in bytes, escapes and all.
const MAX_SELECTOR: usize = 8 << 10;
/// Headers that say what is asked for, which the query says.
const CAPABILITY: &str = "x-capability-";

/// The call that asks for the same as a request, but for this query, and says `more` about its way.
///
/// # Errors
/// `DEADLINE` if it is too late, `INVALID_INPUT` for a query that is too long, `UNSUPPORTED` for a request whose outputs
/// are wanted in memory of this machine.
pub(crate) fn call(request: Request, query: &Query, more: Vec<(String, String)>) -> Result<Call, Error> {
    if let Some(destination) = request.destinations.first() {
        let message = format!(
            "output '{}' is wanted in shared memory of this machine, and nothing here serves {query}",
            destination.output
        );
        return Err(Error::new(Code::Unsupported, message));
    }
    let left = request.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Error::new(Code::Deadline, "the deadline passed before the request was handed on"));
    }
    let written = written(query)?;
    let rewritten = written.is_some();
    let kept = request.headers.into_iter().filter(|(name, value)| travels(name, value, rewritten));
    Ok(Call {
        model: request.model,
        version: request.version,
        id: request.id,
        capability: None,
        inputs: request.inputs,
        outputs: request.outputs,
        parameters: request.parameters,
        headers: kept.chain(written.map(|selector| (QUERY.to_owned(), selector))).chain(more).collect(),
        timeout: left,
    })
}

/// The header that says a query; `None` for a model name, which the message says.
fn written(query: &Query) -> Result<Option<String>, Error> {
    let Some(selector) = query.to_selector().map(|selector| to_header(&selector)) else { return Ok(None) };
    let len = selector.len();
    if len <= MAX_SELECTOR {
        return Ok(Some(selector));
    }
    let message = format!("a query with {len} bytes cannot be handed on, at most {MAX_SELECTOR} can: ask for less");
    Err(Error::invalid(message))
}

/// Whether a header of the request goes along: those that say how it came here do not, nor do those that belong to a
/// connection.
fn travels(name: &str, value: &str, rewritten: bool) -> bool {
    let of_the_way = [DELEGATIONS, REFUSED_BY, QUERY, HAND_BACK].contains(&name);
    let of_the_query = rewritten && name.starts_with(CAPABILITY);
    let of_the_connection = name.starts_with("grpc-")
        || name.ends_with("-bin")
        || ["te", "content-type", "user-agent", "host", "connection", "content-length"].contains(&name);
    let visible = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && value.trim() == value;
    !of_the_way && !of_the_query && !of_the_connection && visible
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Destination, Expects, Parameter};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::time::Duration;

    fn request(headers: &[(&str, &str)]) -> Request {
        Request {
            id: "7".into(),
            model: "chat".into(),
            version: "2".into(),
            query: Query::model("chat"),
            inputs: vec![],
            outputs: vec!["y".into()],
            destinations: vec![],
            parameters: vec![("p".into(), Parameter::Int(1))],
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            deadline: Some(Instant::now() + Duration::from_mins(1)),
            expects: Expects::One,
        }
    }

    fn names(call: &Call) -> Vec<&str> {
        call.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn everything_that_the_caller_gave_goes_along() {
        let call =
            call(request(&[("traceparent", "00-1"), ("x-tenant", "gold")]), &Query::model("chat"), vec![]).unwrap();
        assert_eq!((call.id.as_str(), call.model.as_str(), call.version.as_str()), ("7", "chat", "2"));
        assert_eq!((call.outputs.len(), call.parameters.len(), names(&call)), (1, 1, vec!["traceparent", "x-tenant"]));
        let left = call.timeout.unwrap();
        assert!(left <= Duration::from_mins(1) && left > Duration::from_secs(30));
    }

    #[test]
    fn what_a_query_has_become_takes_the_place_of_what_said_it() {
        let heavy = Query::parse("type=chat.heavy").unwrap();
        let came = [("x-capability-type", "chat"), (QUERY, "type=chat"), (REFUSED_BY, "b"), ("x-user", "me")];
        let sent = call(request(&came), &heavy, vec![(DELEGATIONS.into(), "1".into())]).unwrap();
        assert_eq!(names(&sent), ["x-user", QUERY, DELEGATIONS]);
        assert_eq!(sent.headers[1].1, "type=chat.heavy");
        let kept = call(request(&came[..1]), &Query::model("chat"), vec![]).unwrap();
        assert_eq!(names(&kept), ["x-capability-type"]);
    }

    #[test]
    fn what_cannot_be_handed_on_is_told_with_why() {
        let late = Request { deadline: Some(Instant::now()), ..request(&[]) };
        assert_eq!(call(late, &Query::model("m"), vec![]).unwrap_err().code, Code::Deadline);
        let destinations = vec![Destination { output: "y".into(), room: Bytes::new() }];
        let shared = Request { destinations, ..request(&[]) };
        assert_eq!(call(shared, &Query::model("m"), vec![]).unwrap_err().code, Code::Unsupported);
        for (len, fits) in [(MAX_SELECTOR - 1, true), (MAX_SELECTOR, true), (MAX_SELECTOR + 1, false)] {
            let query = Query::equal_to([("k", "v".repeat(len - 2))]);
            assert_eq!(call(request(&[]), &query, vec![]).is_ok(), fits, "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_a_call_that_cannot_be_sent(name in "[a-z-]{1,8}", value in ".{0,8}") {
            if travels(&name, &value, true) {
                let fits = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
                prop_assert!(fits && !name.starts_with("grpc-"));
            }
        }
    }
}
