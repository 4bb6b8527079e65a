//! Handing a request on: the rules by which a capability is upgraded, and the headers that keep it from going in
//! circles.
//!
//! ```text
//!  client ──► API server ──► A: cannot serve it ─hand-back, upgraded─► API server ──► replica B: serves it or not
//!  client ──► A: cannot serve it ─forwards, counter 1, refused by A─► API server ──► replica B: serves it or not
//! ```
//!
//! The counter only grows, nobody hands on what has counter 1, and the API server leaves out who refused.

use anyserve_core::header::{DELEGATIONS, REFUSED_BY};
use anyserve_core::{Code, Error, Query, Upgrades};

use crate::RegistryLimits;
use crate::message::check_id;

/// What the headers say of a request's way so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trip {
    /// Delegations so far: 0 or 1.
    pub delegations: u32,
    /// The replica that refused.
    pub refused_by: Option<String>,
}

/// How a request came to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Through the API server, which takes it back.
    ByServer,
    /// From a client, while an API server is known.
    Direct,
    /// From a client, and no API server is known.
    Alone,
}

/// What a replica does with a request that it cannot serve.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Hand it back, with this query.
    HandBack(Query),
    /// Forward it to the API server, with this query, counter 1 and its own id.
    Forward(Query),
    /// Answer with this error.
    Fail(Error),
}

/// What a replica does with a request that it cannot serve: at most one delegation, or else a typed error.
pub fn refuse(query: &Query, trip: &Trip, arrival: Arrival, upgrades: &Upgrades) -> Refusal {
    let next = || upgrades.apply(query).unwrap_or_else(|| query.clone());
    match arrival {
        Arrival::ByServer if trip.delegations == 0 => Refusal::HandBack(next()),
        Arrival::Direct if trip.delegations == 0 => Refusal::Forward(next()),
        Arrival::Alone => Refusal::Fail(no_capability(query, "and no API server is known")),
        Arrival::ByServer | Arrival::Direct => Refusal::Fail(no_capability(query, "and it was handed on once already")),
    }
}

fn no_capability(query: &Query, and: &str) -> Error {
    Error::new(Code::NoCapability, format!("this replica has no capability for {query}, {and}"))
}

// === impl Trip ===

impl Trip {
    /// Reads the two headers; of several with one name the first counts.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a counter other than 0 and 1, and for an id that no replica can have.
    pub fn of(headers: &[(String, String)]) -> Result<Self, Error> {
        let header = |name: &str| headers.iter().find(|(own, _)| own == name).map(|(_, text)| text.as_str());
        let delegations = match header(DELEGATIONS) {
            None | Some("0") => 0,
            Some("1") => 1,
            Some(other) => return Err(not_a_counter(other)),
        };
        let refused_by = header(REFUSED_BY).map(str::to_owned);
        if let Some(id) = &refused_by {
            let wrong = |error| Error::invalid(format!("header '{REFUSED_BY}': {error}"));
            check_id(id, &RegistryLimits::default()).map_err(wrong)?;
        }
        Ok(Self { delegations, refused_by })
    }
}

fn not_a_counter(text: &str) -> Error {
    let shown: String = text.chars().take(20).collect();
    Error::invalid(format!("header '{DELEGATIONS}' is '{shown}', expected 0 or 1: a request is handed on once at most"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counter_is_0_or_1() {
        let trip = |text: &str| Trip::of(&[(DELEGATIONS.to_owned(), text.to_owned())]).map(|trip| trip.delegations);
        assert_eq!((trip("0"), trip("1")), (Ok(0), Ok(1)));
        for text in ["", "2", "-1", "01", "1 ", "99999999999999999999"] {
            assert_eq!(trip(text).unwrap_err().code, Code::InvalidInput, "{text}");
        }
        assert_eq!(Trip::of(&[]), Ok(Trip::default()));
    }

    #[test]
    fn who_refused_is_an_id() {
        let trip = |id: &str| Trip::of(&[(REFUSED_BY.to_owned(), id.to_owned())]);
        assert_eq!(trip("replica-1").unwrap().refused_by.as_deref(), Some("replica-1"));
        for (len, fits) in [(0, false), (1, true), (255, true), (256, true), (257, false)] {
            assert_eq!(trip(&"x".repeat(len)).is_ok(), fits, "{len}");
        }
        assert!(trip("a b").is_err());
    }

    #[test]
    fn what_was_handed_on_once_is_not_handed_on_again() {
        let (query, rules) = (Query::parse("a=1").unwrap(), Upgrades::parse(["a=1 -> a=2"]).unwrap());
        let first = Trip::default();
        let second = Trip { delegations: 1, refused_by: None };
        let heavy = Query::parse("a=2").unwrap();
        assert_eq!(refuse(&query, &first, Arrival::ByServer, &rules), Refusal::HandBack(heavy.clone()));
        assert_eq!(refuse(&query, &first, Arrival::Direct, &rules), Refusal::Forward(heavy));
        for (trip, arrival) in [(&first, Arrival::Alone), (&second, Arrival::ByServer), (&second, Arrival::Direct)] {
            let refusal = refuse(&query, trip, arrival, &rules);
            assert!(matches!(refusal, Refusal::Fail(error) if error.code == Code::NoCapability));
        }
    }

    proptest! {
        #[test]
        fn any_headers_are_a_trip_or_refused(values in prop::collection::vec((0..2_usize, ".{0,8}"), 0..4)) {
            let name = |at: usize| [DELEGATIONS, REFUSED_BY][at].to_owned();
            let headers: Vec<_> = values.into_iter().map(|(at, text)| (name(at), text)).collect();
            if let Ok(trip) = Trip::of(&headers) {
                prop_assert!(trip.delegations <= 1);
            }
        }
    }
}
