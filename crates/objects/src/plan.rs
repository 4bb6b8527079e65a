//! Where to look for an object, and what to make of what is found there.

use std::time::Duration;

use anyserve_core::{Code, Error, ObjRef};

/// Which peer, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) usize);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask every peer which store it has.
    Ask,
    /// Pull the object from this peer, after this time.
    Pull(Peer, Duration),
    /// Look among the durable objects; if it is not there, [`Plan::missing`] says why nobody has it.
    Durable,
}

/// How a pull ended that brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setback {
    /// The peer has the store, and the object no more.
    Gone,
    /// The peer has another store by now.
    Moved,
    /// The peer has enough to do, and may have said until when.
    Busy(Option<Duration>),
    /// The peer did not answer, or not as it should. The error names it.
    Broken(Error),
}

/// The search for one object.
///
/// ```text
/// begin ─known─► Pull ─────────────────────────────────────► (it is here)
///   │             ├─ Busy ─► Pull, later; five times
///   │             ├─ Moved, Broken ─► Ask again; twice in all
///   │             └─ Gone ───────────────► Durable ────────► (it is here)
///   └─unknown─► Ask ─found─► Pull             └─ missing ──► NOT_FOUND, or the last that broke
///                └─ nobody ──────────────► Durable
/// ```
///
/// Every way is finite: a pull follows an ask or a wait, and both are counted.
#[derive(Debug)]
pub(crate) struct Plan {
    objref: ObjRef,
    asks: u8,
    waits: u8,
    /// Why the object may be somewhere although it was not found.
    excuse: Option<Error>,
}

/// Times that peers are asked for one object: once to find its store, once more if it moved or broke.
const MAX_ASKS: u8 = 2;
/// Times that a busy peer is waited for.
const MAX_WAITS: u8 = 5;
/// How long, if it does not say, and at most.
const WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(1);

// === impl Plan ===

impl Plan {
    /// Begins with the peer that is known to have the object's store, if there is one.
    pub(crate) fn begin(objref: ObjRef, known: Option<Peer>) -> (Self, Step) {
        let mut plan = Self { objref, asks: MAX_ASKS, waits: MAX_WAITS, excuse: None };
        let step = known.map_or_else(|| plan.ask(), |peer| Step::Pull(peer, Duration::ZERO));
        (plan, step)
    }

    /// Every peer was asked: one may have the store, and an error names those who did not answer.
    pub(crate) fn asked(&mut self, found: Option<Peer>, silent: Option<Error>) -> Step {
        let Some(peer) = found else {
            self.excuse = self.excuse.take().or(silent);
            return Step::Durable;
        };
        Step::Pull(peer, Duration::ZERO)
    }

    /// The pull from `peer` brought nothing.
    pub(crate) fn set_back(&mut self, peer: Peer, by: Setback) -> Step {
        match by {
            Setback::Gone => {
                self.excuse = None;
                Step::Durable
            }
            Setback::Moved => {
                self.excuse = None;
                self.ask()
            }
            Setback::Busy(after) => self.wait(peer, after),
            Setback::Broken(error) => {
                self.excuse = Some(error);
                self.ask()
            }
        }
    }

    /// It is not among the durable objects either.
    pub(crate) fn missing(self) -> Error {
        let Self { objref, excuse, .. } = self;
        excuse.unwrap_or_else(|| {
            Error::new(Code::NotFound, format!("{objref} is gone: no replica has it, and it is no durable object"))
        })
    }

    fn ask(&mut self) -> Step {
        let Some(left) = self.asks.checked_sub(1) else { return Step::Durable };
        self.asks = left;
        Step::Ask
    }

    fn wait(&mut self, peer: Peer, after: Option<Duration>) -> Step {
        if let Some(left) = self.waits.checked_sub(1) {
            self.waits = left;
            return Step::Pull(peer, after.unwrap_or(WAIT).min(MAX_WAIT));
        }
        let message = format!("the replica with {} is busy: it refused {MAX_WAITS} times and once more", self.objref);
        self.excuse = Some(Error::new(Code::Unavailable, message));
        Step::Durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::StoreId;
    use proptest::prelude::*;

    const IT: ObjRef = ObjRef { store: StoreId(1), index: 2, generation: 3 };
    const A: Peer = Peer(0);
    const B: Peer = Peer(1);

    fn pull(peer: Peer) -> Step {
        Step::Pull(peer, Duration::ZERO)
    }

    fn broken(what: &str) -> Error {
        Error::new(Code::Unavailable, what)
    }

    #[test]
    fn a_known_peer_is_pulled_from_and_an_unknown_one_asked_for() {
        assert_eq!(Plan::begin(IT, Some(A)).1, pull(A));
        let (mut plan, step) = Plan::begin(IT, None);
        assert_eq!(step, Step::Ask);
        assert_eq!(plan.asked(Some(B), Some(broken("a"))), pull(B));
    }

    #[test]
    fn what_its_own_store_does_not_have_is_not_found() {
        let (mut plan, _) = Plan::begin(IT, Some(A));
        assert_eq!(plan.set_back(A, Setback::Broken(broken("a"))), Step::Ask);
        assert_eq!(plan.asked(Some(B), None), pull(B));
        assert_eq!(plan.set_back(B, Setback::Gone), Step::Durable);
        let error = plan.missing();
        assert_eq!(error.code, Code::NotFound);
        assert!(error.message.starts_with("objref:0000000000000001-00000002-0000000000000003 is gone"), "{error}");
    }

    #[test]
    fn a_store_that_moved_is_looked_for_once_more() {
        let (mut plan, _) = Plan::begin(IT, None);
        plan.asked(Some(A), None);
        assert_eq!(plan.set_back(A, Setback::Moved), Step::Ask);
        assert_eq!(plan.asked(Some(B), None), pull(B));
        assert_eq!(plan.set_back(B, Setback::Moved), Step::Durable);
        assert_eq!(plan.missing().code, Code::NotFound);
    }

    #[test]
    fn who_broke_or_does_not_answer_is_named_in_the_end() {
        let (mut plan, _) = Plan::begin(IT, None);
        assert_eq!(plan.asked(None, Some(broken("a is silent"))), Step::Durable);
        assert_eq!(plan.missing(), broken("a is silent"));
        let (mut plan, _) = Plan::begin(IT, Some(A));
        plan.set_back(A, Setback::Broken(broken("a broke")));
        assert_eq!(plan.asked(None, Some(broken("a is silent"))), Step::Durable);
        assert_eq!(plan.missing(), broken("a broke"));
    }

    #[test]
    fn a_busy_peer_is_waited_for_as_it_says_within_bounds() {
        let (mut plan, _) = Plan::begin(IT, Some(A));
        for (said, waits) in [(None, 100), (Some(0), 0), (Some(999), 999), (Some(1000), 1000), (Some(1001), 1000)] {
            let step = plan.set_back(A, Setback::Busy(said.map(Duration::from_millis)));
            assert_eq!(step, Step::Pull(A, Duration::from_millis(waits)));
        }
        assert_eq!(plan.set_back(A, Setback::Busy(None)), Step::Durable);
        assert_eq!(plan.missing().code, Code::Unavailable);
    }

    fn setback() -> impl Strategy<Value = Setback> {
        prop_oneof![
            Just(Setback::Gone),
            Just(Setback::Moved),
            Just(Setback::Busy(None)),
            Just(Setback::Broken(broken("x")))
        ]
    }

    proptest! {
        #[test]
        fn every_search_ends(known: bool, events in proptest::collection::vec((any::<bool>(), setback()), 20)) {
            let (mut plan, mut step) = Plan::begin(IT, known.then_some(A));
            let mut steps = 0;
            for (found, by) in events {
                step = match step {
                    Step::Ask => plan.asked(found.then_some(B), None),
                    Step::Pull(peer, _) => plan.set_back(peer, by),
                    Step::Durable => break,
                };
                steps += 1;
            }
            prop_assert_eq!(step, Step::Durable, "after {} steps", steps);
        }
    }
}
