//! A handler's call as a request: what it has of its own, and what of the request that the handler runs for.

use std::time::{Duration, Instant};

use anyserve_core::{Error, Expects, Parameters, Query, Request, Tensor, header};
use anyserve_wire::message;
use bytes::Bytes;
use prost::Message;

/// Calls that may be below the one of a client.
pub(crate) const MAX_DEPTH: u32 = 16;
/// Headers that go along with a call, unless it has them itself.
const ALONG: [&str; 6] = ["traceparent", "tracestate", "x-request-id", "x-tenant", "x-priority", "x-anyserve-session"];
/// Headers that the parts of a fleet write, and nobody else.
const OURS: [&str; 5] = [header::DEPTH, header::DELEGATIONS, header::REFUSED_BY, header::QUERY, header::HAND_BACK];

/// The request whose handler calls.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its `message::Request`.
    pub(crate) meta: Bytes,
    pub(crate) deadline: Option<Instant>,
}

/// What a worker says of a call, its tensors found and checked.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) selector: String,
    pub(crate) stream: bool,
    pub(crate) request: message::Request,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) parameters: Parameters,
}

// === impl Called ===

impl Called {
    /// The request that the call is.
    ///
    /// # Errors
    /// `INVALID_INPUT` if it is too deep, has a header that is not its own to write, or a selector that is none.
    pub(crate) fn into_request(self, caller: &Caller, now: Instant) -> Result<Request, Error> {
        let Self { selector, stream, request, inputs, parameters } = self;
        let message::Request { model, version, id, outputs, headers, remaining_us, .. } = request;
        let query = match &selector[..] {
            "" => Query::model(&model),
            selector => Query::parse(selector).map_err(|error| Error::invalid(error.to_string()))?,
        };
        let headers = headers.into_iter().map(|header| (header.name.to_ascii_lowercase(), header.value)).collect();
        let expects = if stream { Expects::Many } else { Expects::One };
        let headers = headers_of(headers, &caller.headers())?;
        let deadline = deadline(caller.deadline, remaining_us, now);
        let destinations = Vec::new();
        let request = Request {
            id,
            model,
            version,
            query,
            inputs,
            outputs,
            destinations,
            parameters,
            headers,
            deadline,
            expects,
        };
        Ok(request)
    }
}

/// The sooner one of the caller's deadline and the call's own.
fn deadline(caller: Option<Instant>, remaining_us: u64, now: Instant) -> Option<Instant> {
    let own = remaining_us.checked_sub(1).and_then(|micros| now.checked_add(Duration::from_micros(micros)));
    caller.into_iter().chain(own).min()
}

fn headers_of(own: Vec<(String, String)>, callers: &[message::Header]) -> Result<Vec<(String, String)>, Error> {
    if let Some((name, _)) = own.iter().find(|(name, _)| OURS.contains(&name.as_str())) {
        return Err(Error::invalid(format!("header '{name}' is written by the runtime: leave it out")));
    }
    let depth = depth_of(callers).saturating_add(1);
    if depth > MAX_DEPTH {
        let message = format!("the call would be number {depth} in a chain of calls, at most {MAX_DEPTH} are allowed");
        return Err(Error::invalid(message));
    }
    let along = |header: &&message::Header| {
        ALONG.contains(&header.name.as_str()) && !own.iter().any(|(name, _)| *name == header.name)
    };
    let along: Vec<_> =
        callers.iter().filter(along).map(|header| (header.name.clone(), header.value.clone())).collect();
    let depth = (header::DEPTH.to_owned(), depth.to_string());
    Ok(own.into_iter().chain(along).chain([depth]).collect())
}

/// What a client writes there is believed, since it can only shorten the chain; what is no number is 0.
fn depth_of(headers: &[message::Header]) -> u32 {
    let depth = headers.iter().find(|header| header.name == header::DEPTH);
    depth.and_then(|header| header.value.parse().ok()).unwrap_or(0)
}

// === impl Caller ===

impl Caller {
    fn headers(&self) -> Vec<message::Header> {
        // The runtime wrote it itself.
        message::Request::decode(self.meta.clone()).unwrap_or_default().headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Vec<message::Header> {
        let header = |(name, value): &(&str, &str)| message::Header { name: (*name).into(), value: (*value).into() };
        pairs.iter().map(header).collect()
    }

    fn caller(pairs: &[(&str, &str)], deadline: Option<Instant>) -> Caller {
        let meta = message::Request { headers: headers(pairs), model: "m".into(), ..Default::default() };
        Caller { meta: meta.encode_to_vec().into(), deadline }
    }

    fn called(selector: &str, pairs: &[(&str, &str)], remaining_us: u64) -> Called {
        let request =
            message::Request { model: "embed".into(), headers: headers(pairs), remaining_us, ..Default::default() };
        Called { selector: selector.into(), stream: false, request, inputs: vec![], parameters: vec![] }
    }

    fn made(own: &[(&str, &str)], callers: &[(&str, &str)]) -> Result<Vec<(String, String)>, Error> {
        let request = called("", own, 0).into_request(&caller(callers, None), Instant::now())?;
        Ok(request.headers)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn trace_tenant_priority_and_session_go_along_and_nothing_else_does() {
        let callers: Vec<_> = ALONG.iter().map(|name| (*name, "theirs")).chain([("authorization", "secret")]).collect();
        let made = made(&[("X-Tenant", "own"), ("x-a", "b")], &callers).unwrap();
        let theirs = ALONG.iter().filter(|name| **name != "x-tenant").map(|name| (*name, "theirs"));
        let expected: Vec<_> =
            [("x-tenant", "own"), ("x-a", "b")].into_iter().chain(theirs).chain([(header::DEPTH, "1")]).collect();
        assert_eq!(made, pairs(&expected));
    }

    #[test]
    fn a_chain_of_calls_has_an_end() {
        let depth = |text: &str| made(&[], &[(header::DEPTH, text)]).map(|headers| headers[0].1.clone());
        assert_eq!((depth("14").unwrap(), depth("15").unwrap()), ("15".into(), "16".into()));
        for text in ["16", "17", "4294967295"] {
            let message = depth(text).unwrap_err().message;
            assert!(message.contains("at most 16"), "{message}");
        }
        for text in ["", "-3", "many", "99999999999999"] {
            assert_eq!(depth(text).unwrap(), "1", "{text:?} counts nothing");
        }
    }

    #[test]
    fn headers_of_the_fleet_are_not_the_handlers_to_write() {
        for name in OURS {
            let error = made(&[(&name.to_uppercase(), "1")], &[]).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn the_sooner_deadline_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let made = |caller_s: Option<u32>, own_us| {
            let caller = caller(&[], caller_s.map(|seconds| now + second * seconds));
            called("", &[], own_us).into_request(&caller, now).unwrap().deadline.map(|deadline| deadline - now)
        };
        assert_eq!((made(None, 0), made(Some(2), 0)), (None, Some(2 * second)));
        assert_eq!((made(Some(2), 1_000_001), made(Some(2), 3_000_001)), (Some(second), Some(2 * second)));
        assert_eq!((made(None, 1), made(None, u64::MAX).is_some()), (Some(Duration::ZERO), true));
    }

    #[test]
    fn the_query_is_the_selector_or_the_model() {
        let query = |selector: &str| called(selector, &[], 0).into_request(&caller(&[], None), Instant::now());
        assert_eq!(query("").unwrap().query, Query::model("embed"));
        assert_eq!(query("type=a,size>7").unwrap().query, Query::parse("size>7,type=a").unwrap());
        assert!(query("type=").is_err());
    }
}
