//! What becomes of a request, and why: every handler that was looked at, and what is decided.

use std::time::Duration;

use crate::Error;

/// The scheduler's answer to "what would you do with this request now?".
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The query, as it reads.
    pub query: String,
    /// Every handler of the replica, in the order of the catalog.
    pub candidates: Vec<Candidate>,
    /// What is done with the request.
    pub decision: Decision,
}

/// One handler that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name of its worker group.
    pub group: String,
    /// What it serves, as it reads.
    pub capability: String,
    /// The function's name.
    pub function: String,
    /// Whether it matches.
    pub verdict: Verdict,
    /// `ready`, `saturated`, `starting`, `draining` or `down`.
    pub health: &'static str,
    /// Requests that wait for it.
    pub queued: usize,
    /// Requests that may wait for it.
    pub max_queue: usize,
    /// Requests of its group that are with a worker.
    pub in_flight: usize,
    /// Workers of its group that take requests.
    pub workers: usize,
    /// How long the request would wait for it, as far as that is known.
    pub expected_wait: Duration,
    /// Whether it is the one that the request goes to.
    pub chosen: bool,
}

/// Whether a handler matches a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does; so many of its keys are not mentioned by the query, fewer is more specific.
    Matches {
        /// Keys of the capability that the query does not mention.
        unmentioned: usize,
    },
    /// It does not, and this is the first condition that fails, with what the capability has instead.
    Differs {
        /// Such as `model=x is asked for, it has model=y`.
        why: String,
    },
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It goes to a worker at once.
    Run {
        /// The worker: `worker-0`.
        worker: String,
    },
    /// It waits.
    Wait {
        /// Requests that go before it.
        ahead: usize,
        /// How long, as far as that is known.
        expected: Duration,
    },
    /// It is refused.
    Refuse(Error),
}
