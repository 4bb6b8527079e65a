//! Whether a request that failed is sent to another replica. Pure.

use anyserve_core::{Code, Error};

use crate::Failed;
use crate::discovery::known::{MAX_AVOID, Start};

/// The attempts of one request.
///
/// ```text
///            unsent: as often as there are others
///         ┌──────────────────────────────────────┐
///         ▼                                      │
///  replica ──► answer, error, broken: the end    │
///         ├──────────────────────────────────────┘
///         └─── refused without having been begun: once
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts {
    /// Starts of replicas that have had it.
    tried: Vec<Start>,
    /// What the first that refused it said.
    refused: Option<Error>,
    /// Why the last one was not reached.
    unreached: Option<Error>,
}

// === impl Attempts ===

impl Attempts {
    /// The starts of replicas that have had it, which are not to be tried again.
    pub(super) fn tried(&self) -> &[Start] {
        &self.tried
    }

    /// It failed at a replica. `None` if it is to be sent to another one, or else its end.
    pub(super) fn failed(&mut self, at: Start, failed: Failed) -> Option<Failed> {
        self.tried.push(at);
        let last = self.tried.len() >= MAX_AVOID || !failed.unsent && self.refused.is_some();
        if last || !failed.unsent && !is_refusal(&failed.error) {
            return Some(failed);
        }
        let why = if failed.unsent { &mut self.unreached } else { &mut self.refused };
        *why = Some(failed.error);
        None
    }

    /// There is nobody else, for this reason. What a replica said is worth more than that.
    pub(super) fn give_up(self, nobody: Error) -> Failed {
        match self.refused {
            Some(refused) => Failed::after(refused),
            None => Failed::before(self.unreached.unwrap_or(nobody)),
        }
    }
}

/// Whether a replica says that it did not begin the request and that another one may.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.hand_back.is_some() || matches!(error.code, Code::Draining | Code::Starting | Code::NoCapability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::Query;

    fn at(id: &str) -> Start {
        (id.to_owned(), 1)
    }

    fn failed(code: Code, unsent: bool) -> Failed {
        Failed { error: Error::new(code, code.name()), unsent, silent: false }
    }

    #[test]
    fn only_what_no_replica_has_begun_is_sent_to_another_one() {
        for code in Code::all() {
            let refusal = [Code::Draining, Code::Starting, Code::NoCapability].contains(&code);
            assert_eq!(Attempts::default().failed(at("a"), failed(code, false)).is_none(), refusal, "{code}");
            assert_eq!(Attempts::default().failed(at("a"), failed(code, true)), None, "{code}");
        }
        let error = Error::new(Code::Unavailable, "no").with_hand_back(Query::model("m"));
        assert_eq!(Attempts::default().failed(at("a"), Failed::after(error)), None);
    }

    #[test]
    fn a_refusal_is_followed_by_one_more_attempt() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(at("a"), failed(Code::Draining, false)), None);
        assert_eq!(attempts.failed(at("b"), failed(Code::Unavailable, true)), None, "it was none");
        assert_eq!(attempts.tried(), [at("a"), at("b")]);
        let second = attempts.clone().failed(at("c"), failed(Code::Starting, false));
        assert_eq!(second, Some(failed(Code::Starting, false)));
        let nobody = Error::new(Code::NoCapability, "nobody");
        assert_eq!(attempts.give_up(nobody), failed(Code::Draining, false), "what a replica said tells more");
    }

    #[test]
    fn replicas_that_cannot_be_reached_are_tried_up_to_a_limit() {
        let mut attempts = Attempts::default();
        for number in 1..MAX_AVOID {
            assert_eq!(attempts.failed(at(&number.to_string()), failed(Code::Unavailable, true)), None);
        }
        assert!(attempts.failed(at("last"), failed(Code::Unavailable, true)).is_some());
    }
}
