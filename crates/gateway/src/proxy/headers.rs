//! Which headers go along with a request and its answer, and which are added.

use std::time::Instant;

use anyserve_core::Query;
use anyserve_core::header::{ATTEMPTS, DELEGATIONS, HAND_BACK, QUERY, REFUSED_BY, REPLICA, to_header};
use anyserve_server::parts::CallHead;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Names that are written on every request or answer, read once.
static OF_DELEGATIONS: HeaderName = HeaderName::from_static(DELEGATIONS);
static OF_QUERY: HeaderName = HeaderName::from_static(QUERY);
static OF_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static OF_REPLICA: HeaderName = HeaderName::from_static(REPLICA);
static OF_ATTEMPTS: HeaderName = HeaderName::from_static(ATTEMPTS);

/// Headers of a plain HTTP request that mean something to a replica: those of the caller's own, who he is, and the trace.
const OF_THE_CALLER: [&str; 4] = ["authorization", "baggage", "traceparent", "tracestate"];

/// Whether it is a header of a connection, or one that this hop sets anew.
fn is_of_this_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "grpc-timeout"
            | "host"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | REFUSED_BY
    )
}

/// The headers of a gRPC call that go along with it.
pub(crate) fn of_call(headers: &HeaderMap) -> HeaderMap {
    kept(headers, |name| !is_of_this_hop(name))
}

/// The headers of an HTTP request that go along with the gRPC call that it becomes.
pub(crate) fn of_http(headers: &HeaderMap) -> HeaderMap {
    // How long the caller waits is told to replicas as what is left of it.
    let own = |name: &str| name.starts_with("x-") && name != "x-timeout-s" || OF_THE_CALLER.contains(&name);
    let mut kept = kept(headers, |name| own(name) && !is_of_this_hop(name));
    kept.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    kept
}

/// Adds what this hop says: the query, if it is not the request's own, the counter, and the time that is left.
pub(crate) fn put(headers: &mut HeaderMap, query: Option<&Query>, delegations: u32, deadline: Option<Instant>) {
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    headers.insert(&OF_DELEGATIONS, delegations.into());
    let selector = query.and_then(Query::to_selector).map(|selector| to_header(&selector));
    if let Some(selector) = selector.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(&OF_QUERY, selector);
    }
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if let Some(timeout) = left.and_then(|left| HeaderValue::try_from(CallHead::timeout(left)).ok()) {
        headers.insert(&OF_TIMEOUT, timeout);
    }
}

/// The headers or trailers of an answer that go along with it.
pub(crate) fn of_answer(headers: &mut HeaderMap) {
    let of_this_hop = |name: &&HeaderName| is_of_this_hop(name.as_str()) || name.as_str() == HAND_BACK;
    for name in headers.keys().filter(of_this_hop).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// Adds whose answer it is, and how many attempts it took.
pub(crate) fn trail(trailers: &mut HeaderMap, replica: Option<&str>, attempts: u32) {
    if let Some(replica) = replica.and_then(|id| HeaderValue::from_str(id).ok()) {
        trailers.insert(&OF_REPLICA, replica);
    }
    trailers.insert(&OF_ATTEMPTS, attempts.into());
}

/// Copies whose answer it is, and the attempts, from trailers to the headers of an HTTP answer.
pub(crate) fn copy_trail(trailers: &HeaderMap, headers: &mut HeaderMap) {
    for name in [&OF_REPLICA, &OF_ATTEMPTS] {
        if let Some(value) = trailers.get(name) {
            headers.insert(name, value.clone());
        }
    }
}

fn kept(headers: &HeaderMap, keep: impl Fn(&str) -> bool) -> HeaderMap {
    let pairs = headers.iter().filter(|(name, _)| keep(name.as_str()));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn everything_of_a_call_goes_along_but_what_is_of_the_connection() {
        let pairs = [("te", "trailers"), ("x-a", "1"), ("x-a", "2"), ("b-bin", "AA"), ("grpc-encoding", "gzip")];
        let kept =
            of_call(&headers(&[&pairs[..], &[("host", "h"), ("grpc-timeout", "1S"), (REFUSED_BY, "a")]].concat()));
        assert_eq!(kept, headers(&pairs[1..]));
    }

    #[test]
    fn of_an_http_request_only_the_callers_own_headers_go_along() {
        let pairs = [("x-capability-type", "chat"), ("authorization", "Bearer x"), ("traceparent", "00-1-2-3")];
        let of_http = of_http(&headers(&[&pairs[..], &[("cookie", "a"), ("accept", "*/*"), ("host", "h")]].concat()));
        assert_eq!(of_http, headers(&[&pairs[..], &[("content-type", "application/grpc")]].concat()));
    }

    #[test]
    fn this_hop_says_the_counter_the_query_and_what_is_left_of_the_time() {
        let mut sent = headers(&[(DELEGATIONS, "0"), (QUERY, "type=chat")]);
        let query = Query::parse("type=chat.heavy,size in (1,2)").unwrap();
        put(&mut sent, Some(&query), 1, Some(Instant::now()));
        let expected = [("te", "trailers"), (DELEGATIONS, "1"), (QUERY, "size%20in%20(1,2),type=chat.heavy")];
        assert_eq!(sent, headers(&[&expected[..], &[("grpc-timeout", "0n")]].concat()));
        let mut same = headers(&[(QUERY, "type=chat")]);
        put(&mut same, None, 0, None);
        assert_eq!(same, headers(&[(QUERY, "type=chat"), ("te", "trailers"), (DELEGATIONS, "0")]));
    }
}
