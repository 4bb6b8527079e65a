//! What is counted of the requests that are routed. It follows from their steps, so that nobody else has to count.

use std::sync::atomic::{AtomicU64, Ordering};

use anyserve_cluster::{Event, Route, Step};
use anyserve_core::Code;

/// Counts that only grow, but for the requests in flight.
#[derive(Debug)]
pub struct Counters {
    /// Ended requests; the last place is for those that ended well.
    ended: Vec<AtomicU64>,
    began: AtomicU64,
    attempts: AtomicU64,
    delegations: AtomicU64,
    asked: AtomicU64,
    unreached: AtomicU64,
}

/// What was counted by one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Ended requests by the name of their code, without those that never happened. `OK` ended well.
    pub ended: Vec<(&'static str, u64)>,
    /// Requests that have begun and not ended.
    pub in_flight: u64,
    /// Requests that were sent to a replica, each time anew.
    pub attempts: u64,
    /// Ended requests that were handed on.
    pub delegations: u64,
    /// Questions whether a replica serves a request.
    pub asked: u64,
    /// Connections that could not be made.
    pub unreached: u64,
}

// === impl Counters ===

impl Default for Counters {
    fn default() -> Self {
        let ended = std::iter::repeat_with(AtomicU64::default).take(ok_place() + 1).collect();
        let [began, attempts, delegations, asked, unreached] = std::array::from_fn(|_| AtomicU64::default());
        Self { ended, began, attempts, delegations, asked, unreached }
    }
}

impl Counters {
    /// What was counted by now.
    pub fn read(&self) -> Counted {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let names = Code::all().map(Code::name).chain(std::iter::once("OK"));
        let ended: Vec<_> = names.zip(self.ended.iter().map(of)).filter(|(_, count)| *count > 0).collect();
        let all: u64 = ended.iter().map(|(_, count)| count).sum();
        Counted {
            in_flight: of(&self.began).saturating_sub(all),
            attempts: of(&self.attempts),
            delegations: of(&self.delegations),
            asked: of(&self.asked),
            unreached: of(&self.unreached),
            ended,
        }
    }

    pub(super) fn began(&self) {
        add(&self.began, 1);
    }

    pub(super) fn happened(&self, event: &Event) {
        if *event == Event::Unreached {
            add(&self.unreached, 1);
        }
    }

    pub(super) fn stepped(&self, route: &Route, step: &Step) {
        match step {
            Step::Ask(_) => add(&self.asked, 1),
            Step::Send(_) => add(&self.attempts, 1),
            Step::Over(end) => {
                let code = end.as_ref().err().map(|error| error.code);
                let place = code.and_then(|code| usize::try_from(code.number()).ok()).unwrap_or_else(ok_place);
                add(&self.ended[place], 1);
                add(&self.delegations, u64::from(route.delegations()));
            }
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn ok_place() -> usize {
    Code::all().count()
}
