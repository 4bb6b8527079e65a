//! The way of one request through a fleet.
//!
//! ```text
//!                       ┌───────────── cannot: the claim does not count ─────────────┐
//!                       ▼                                                            │
//!  begin ──► choose ──► (second attempt) Ask ──can──► Send ──answer, error──► Over   │
//!              ▲  └────► (first attempt) ──────────────▲ │                           │
//!              ├──── not reached: ejected, no attempt ───┤ ◄───────────── (of an Ask, too)
//!              ├──── handed back: once ──────────────────┤
//!              └──── broken, and may run twice ──────────┘
//! ```
//!
//! An attempt is a request that a replica may have begun; there are two at most. Before the second one the replica is
//! asked whether it can serve the request, so that a claim that is not true any more does not cost the last attempt.
//! Questions and connections that fail cost time only: each teaches the registry something that holds for every other
//! request. What is left is a replica that changes between the question and the request: it costs the last attempt.
//! Where nobody claims to serve a request, the most promising replica gets it, once: at best one whose upgrade rules lead
//! to somebody else, who is found by the query that it hands back.

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Capability, Code, Error, Query};

use crate::policy::{Keys, Policy};
use crate::registry::Pick;
use crate::{Handle, Registry, Trip};

/// Attempts of one request at most.
const ATTEMPTS: u32 = 2;
/// Most promising replicas that one request tries at most: those that cannot be reached have not had it.
const PROMISES: u32 = 8;
/// Ejected replicas that one request tries at most.
const LAST_RESORTS: u32 = 8;

/// What is wanted of a fleet.
#[derive(Clone, Debug)]
pub struct Call {
    /// What a capability must satisfy.
    pub query: Query,
    /// What it belongs together with.
    pub keys: Keys,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// Its way so far.
    pub trip: Trip,
}

/// A replica that is to be asked, or sent a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Which start of which replica.
    pub handle: Handle,
    /// Its name.
    pub id: Arc<str>,
    /// Its start.
    pub epoch: u64,
    /// Where it takes requests.
    pub endpoint: Arc<str>,
    /// What it says that it has; `None` if it is only the most promising one.
    pub capability: Option<Arc<Capability>>,
    /// What is asked of it: the query of the request, or the one that it was handed back with.
    pub query: Query,
    /// The counter that goes along: with 1 it must not hand the request back.
    pub delegations: u32,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask whether the replica serves the query. The request itself does not go along.
    Ask(Target),
    /// Send the request.
    Send(Target),
    /// Nothing: this is its end.
    Over(Result<(), Error>),
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The replica that was asked serves the query.
    Can,
    /// It does not.
    Cannot,
    /// The request has its answer.
    Answered,
    /// The replica answered with an error.
    Failed {
        /// The error.
        error: Error,
        /// A part of the answer had come before.
        emitted: bool,
    },
    /// The replica cannot serve it, and nothing of an answer has come: it may be sent elsewhere, with this query.
    HandedBack(Query),
    /// No connection could be made, or it broke before anything was written.
    Unreached,
    /// The connection broke after something was written.
    Broken {
        /// A part of the answer had come before.
        emitted: bool,
    },
    /// The caller left.
    Left,
    /// The deadline passed.
    Late,
}

/// An event that cannot be in this state. It made no difference.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{event:?} while {state}")]
pub struct UnexpectedEvent {
    /// `begun`, `asking`, `sending` or `over`.
    pub state: &'static str,
    /// The event.
    pub event: Event,
}

/// One request on its way.
#[derive(Debug)]
pub struct Route {
    /// What is wanted now: at first what the caller asks for, later what it was handed back with.
    query: Query,
    /// What the caller asked for, if that is another query.
    original: Option<Query>,
    keys: Keys,
    deadline: Option<Instant>,
    attempts: u32,
    delegations: u32,
    /// Who refused it or could not be reached.
    avoid: Vec<Arc<str>>,
    unreached: u32,
    last_resorts: u32,
    /// The most promising replica has had it.
    promised: bool,
    /// Most promising replicas so far.
    promises: u32,
    /// Why the last one refused it.
    refused: Option<Error>,
    state: State,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Begun,
    Asking(Pick),
    Sending(Pick),
    Over,
}

/// What an event leads to.
enum Next {
    /// The replica that was asked gets the request.
    Send(Pick),
    /// Another replica is looked for.
    Choose,
    /// Nothing more.
    End(Result<(), Error>),
}

// === impl State ===

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Asking(_) => "asking",
            Self::Sending(_) => "sending",
            Self::Over => "over",
        }
    }
}

// === impl Route ===

impl Route {
    /// A request arrives. One that was handed on already has had its first attempt.
    pub fn new(call: Call) -> Self {
        let Call { query, keys, deadline, trip } = call;
        Self {
            query,
            original: None,
            keys,
            deadline,
            attempts: trip.delegations,
            delegations: trip.delegations,
            avoid: trip.refused_by.into_iter().map(Arc::from).collect(),
            unreached: 0,
            last_resorts: 0,
            promised: false,
            promises: 0,
            refused: None,
            state: State::Begun,
        }
    }

    /// The first step. What was begun already is not begun again, and its end is told.
    pub fn begin(&mut self, registry: &mut Registry, policy: &dyn Policy, now: Instant) -> Step {
        match self.state {
            State::Begun => self.choose(registry, policy, now),
            _ => self.over(Err(Error::internal("a request was begun twice"))),
        }
    }

    /// The step after an event.
    ///
    /// # Errors
    /// [`UnexpectedEvent`] for one that cannot be now.
    pub fn on(
        &mut self,
        event: Event,
        registry: &mut Registry,
        policy: &dyn Policy,
        now: Instant,
    ) -> Result<Step, UnexpectedEvent> {
        let next = match (self.state.clone(), event) {
            (State::Asking(pick), event) => self.asked(pick, event, registry, now)?,
            (State::Sending(pick), event) => self.sent(&pick, event, registry, now)?,
            (state, event) => return Err(UnexpectedEvent { state: state.name(), event }),
        };
        Ok(match next {
            Next::Send(pick) => self.send(pick, registry, policy, now),
            Next::Choose => self.choose(registry, policy, now),
            Next::End(end) => self.over(end),
        })
    }

    /// What comes after an event while a replica is asked.
    fn asked(
        &mut self,
        pick: Pick,
        event: Event,
        registry: &mut Registry,
        now: Instant,
    ) -> Result<Next, UnexpectedEvent> {
        Ok(match event {
            Event::Can => {
                registry.reached(&pick);
                Next::Send(pick)
            }
            Event::Cannot => self.denied(&pick, registry),
            Event::Unreached | Event::Broken { .. } => self.unreached(&pick, registry, now),
            Event::Left => Next::End(Err(left())),
            Event::Late => Next::End(Err(self.late())),
            event => return Err(UnexpectedEvent { state: self.state.name(), event }),
        })
    }

    /// What comes after an event while a replica has the request.
    fn sent(
        &mut self,
        pick: &Pick,
        event: Event,
        registry: &mut Registry,
        now: Instant,
    ) -> Result<Next, UnexpectedEvent> {
        Ok(match event {
            Event::Answered => {
                answered(pick, registry);
                Next::End(Ok(()))
            }
            Event::Failed { error, emitted } => self.failed(pick, error, emitted, registry),
            Event::HandedBack(query) => self.handed_back(pick, query, registry),
            Event::Unreached => {
                self.attempts -= 1;
                registry.finished(pick);
                self.unreached(pick, registry, now)
            }
            Event::Broken { emitted } => self.broken(pick, emitted, registry, now),
            Event::Left | Event::Late => {
                registry.finished(pick);
                Next::End(Err(if event == Event::Left { left() } else { self.late() }))
            }
            event => return Err(UnexpectedEvent { state: self.state.name(), event }),
        })
    }

    /// Attempts so far, with those before it came here.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Delegations so far.
    pub fn delegations(&self) -> u32 {
        self.delegations
    }

    /// The next replica, or the end.
    fn choose(&mut self, registry: &mut Registry, policy: &dyn Policy, now: Instant) -> Step {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return self.over(Err(self.late()));
        }
        registry.expire(now);
        if self.attempts >= ATTEMPTS {
            return self.give_up(registry);
        }
        match self.claiming(registry, policy) {
            Some((pick, query)) => {
                self.last_resorts += u32::from(pick.claim.is_some_and(|claim| claim.ejected));
                self.query = query;
                if self.attempts == 0 { self.send(pick, registry, policy, now) } else { self.ask(pick, registry) }
            }
            None => self.promise(registry, policy, now),
        }
    }

    /// One that says it serves the query or, if nobody does, what the caller asked for before it was handed back.
    fn claiming(&self, registry: &mut Registry, policy: &dyn Policy) -> Option<(Pick, Query)> {
        let ejected = self.last_resorts < LAST_RESORTS;
        std::iter::once(&self.query).chain(&self.original).find_map(|query| {
            let pick = registry.choose(query, &self.avoid, ejected, policy, &self.keys)?;
            Some((pick, query.clone()))
        })
    }

    /// Nobody says so: the most promising one, once, unless somebody was only too busy.
    fn promise(&mut self, registry: &mut Registry, policy: &dyn Policy, now: Instant) -> Step {
        let busy = self.refused.as_ref().is_some_and(|error| error.code != Code::NoCapability);
        if std::mem::replace(&mut self.promised, true) || busy {
            return self.give_up(registry);
        }
        // With counter 1 nobody upgrades anything.
        let rules = self.delegations.max(self.attempts) == 0;
        match registry.promising(&self.query, &self.avoid, policy, &self.keys, rules) {
            Some((pick, _)) => {
                self.promises += 1;
                self.send(pick, registry, policy, now)
            }
            None => self.give_up(registry),
        }
    }

    fn ask(&mut self, pick: Pick, registry: &mut Registry) -> Step {
        match self.target(&pick, registry) {
            Some(target) => {
                self.state = State::Asking(pick);
                Step::Ask(target)
            }
            None => self.give_up(registry),
        }
    }

    /// Sends it to a replica. One that is gone since it was asked cannot be reached.
    fn send(&mut self, pick: Pick, registry: &mut Registry, policy: &dyn Policy, now: Instant) -> Step {
        let Some(target) = self.target(&pick, registry) else {
            self.unreached += 1;
            self.avoid.push(pick.id);
            return self.choose(registry, policy, now);
        };
        self.attempts += 1;
        registry.sent(&pick);
        self.state = State::Sending(pick);
        Step::Send(target)
    }

    fn target(&self, pick: &Pick, registry: &Registry) -> Option<Target> {
        let (epoch, endpoint) = registry.endpoint(pick)?;
        Some(Target {
            handle: pick.handle,
            id: Arc::clone(&pick.id),
            epoch,
            endpoint,
            capability: registry.claimed(pick),
            query: self.query.clone(),
            // The second attempt is the last one, so that nothing may be handed back.
            delegations: self.delegations.max(self.attempts),
        })
    }

    fn unreached(&mut self, pick: &Pick, registry: &mut Registry, now: Instant) -> Next {
        registry.eject(pick.handle, now);
        self.unreached += 1;
        self.avoid.push(Arc::clone(&pick.id));
        if pick.claim.is_none() && self.promises < PROMISES {
            self.promised = false;
        }
        Next::Choose
    }

    fn denied(&mut self, pick: &Pick, registry: &mut Registry) -> Next {
        registry.reached(pick);
        registry.deny(pick);
        self.avoid.push(Arc::clone(&pick.id));
        Next::Choose
    }

    /// An error is the request's end, unless it says that the replica did not begin it.
    fn failed(&mut self, pick: &Pick, error: Error, emitted: bool, registry: &mut Registry) -> Next {
        answered(pick, registry);
        match error.code {
            Code::NoCapability => registry.deny(pick),
            Code::Draining => registry.drain(pick),
            Code::Overloaded => registry.saturate(pick),
            Code::Starting => {}
            _ => return Next::End(Err(error)),
        }
        if emitted {
            return Next::End(Err(error));
        }
        self.avoid.push(Arc::clone(&pick.id));
        self.refused = Some(error);
        Next::Choose
    }

    fn handed_back(&mut self, pick: &Pick, query: Query, registry: &mut Registry) -> Next {
        answered(pick, registry);
        registry.deny(pick);
        if self.delegations.max(self.attempts - 1) > 0 {
            return Next::End(Err(self.handed_on_already(&pick.id)));
        }
        self.delegations += 1;
        self.avoid.push(Arc::clone(&pick.id));
        if query != self.query {
            self.original = Some(std::mem::replace(&mut self.query, query));
        }
        Next::Choose
    }

    fn broken(&mut self, pick: &Pick, emitted: bool, registry: &mut Registry, now: Instant) -> Next {
        registry.finished(pick);
        registry.eject(pick.handle, now);
        let again = pick.claim.is_some_and(|claim| claim.idempotent);
        self.avoid.push(Arc::clone(&pick.id));
        let error = Error::new(Code::WorkerLost, format!("the connection to replica '{}' broke", pick.id));
        if emitted || !again {
            return Next::End(Err(error));
        }
        self.refused = Some(error);
        Next::Choose
    }

    fn over(&mut self, end: Result<(), Error>) -> Step {
        self.state = State::Over;
        Step::Over(end)
    }

    fn give_up(&mut self, registry: &mut Registry) -> Step {
        let error = match self.refused.take() {
            // That one replica does not serve it is less than what is known here.
            Some(error) if error.code != Code::NoCapability || registry.is_empty() => error,
            None if self.unreached > 0 => registry.out_of_reach(&self.query, self.unreached),
            _ => registry.nobody(&self.query, 0),
        };
        self.over(Err(error))
    }

    fn handed_on_already(&self, id: &str) -> Error {
        let message = format!("replica '{id}' handed {} back, which was handed on once already", self.query);
        Error::new(Code::NoCapability, message)
    }

    fn late(&self) -> Error {
        Error::new(Code::Deadline, format!("the deadline passed after {} attempts", self.attempts))
    }
}

/// A pick that the request was sent to answered, whatever it said.
fn answered(pick: &Pick, registry: &mut Registry) {
    registry.finished(pick);
    registry.reached(pick);
}

fn left() -> Error {
    Error::new(Code::Cancelled, "the caller left")
}
