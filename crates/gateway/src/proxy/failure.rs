//! What a replica's status, or the end of its answer without one, means.

use anyserve_client::{Endpoint, from_status};
use anyserve_cluster::{Event, Target};
use anyserve_core::header::{HAND_BACK, from_header};
use anyserve_core::{Code, Error, Query};
use anyserve_server::parts::failed;
use http::HeaderMap;
use tonic::Status;

/// The end of a request that has no answer, and the trailers that tell the client.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) error: Error,
    /// `grpc-status` and what goes with it: the replica's own words, if it is its error.
    pub(crate) trailers: Box<HeaderMap>,
}

// === impl Refused ===

impl From<Error> for Refused {
    /// An error of the API server's own.
    fn from(error: Error) -> Self {
        Self { trailers: Box::new(failed(&error)), error }
    }
}

/// The error that the trailers of a replica tell; `None` if the request ended well.
pub(crate) fn failure(trailers: &HeaderMap, target: &Target) -> Option<Error> {
    if trailers.get("grpc-status").is_some_and(|status| status == "0") {
        return None;
    }
    let Some(status) = Status::from_header_map(trailers) else {
        return Some(Error::internal(format!("replica '{}' answered without a status", target.id)));
    };
    let unread = |_| Error::new(Code::Unavailable, status.message());
    let told = target.endpoint.parse::<Endpoint>().map(|endpoint| from_status(&status, &endpoint, None));
    Some(Error { hand_back: None, ..told.unwrap_or_else(unread) })
}

/// What a failure means before anything of an answer has come. A hand-back with a query that cannot be read is none.
pub(crate) fn event(error: Error, trailers: &HeaderMap, target: &Target) -> Event {
    let handed_back = trailers.get(HAND_BACK).and_then(|value| value.to_str().ok()).and_then(from_header);
    let query = handed_back.and_then(|selector| match selector.as_str() {
        "" => Some(target.query.clone()),
        selector => Query::parse(selector).ok(),
    });
    query.map_or(Event::Failed { error, emitted: false }, Event::HandedBack)
}
