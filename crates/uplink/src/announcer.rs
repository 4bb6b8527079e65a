//! What a replica says to one API server, and when. Pure.

use std::time::{Duration, Instant};

use anyserve_proto::v1::Verdict;

use crate::chance::Chance;

/// Time until the next attempt after the first failure. Every further one doubles it, up to the time between heartbeats:
/// an API server that comes back empty knows the replica as soon as one that never went.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest time between two attempts, whatever the API server says of heartbeats.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Time between two attempts where the API server refuses what it is told: that does not pass by itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Time between heartbeats, if the API server does not say, and what it may say.
const HEARTBEAT: Duration = Duration::from_secs(1);
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);
const LONGEST_HEARTBEAT: Duration = Duration::from_mins(1);
/// Least time between two messages that changes cause.
const GAP: Duration = Duration::from_millis(50);

/// What the replica wants of its API servers, in the order in which that happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// Requests.
    #[default]
    Serve,
    /// No more requests.
    Drain,
    /// To be forgotten.
    Leave,
}

/// What has changed at the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// How busy it is.
    Loads,
    /// What it serves.
    Offers,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The API server answered the registration of this `seq`.
    Registered {
        /// What it makes of it.
        verdict: Verdict,
        /// The number of the registration.
        seq: u64,
        /// Time between heartbeats, as it wants it.
        heartbeat: Duration,
    },
    /// It answered a heartbeat.
    Answered(Verdict),
    /// It cannot be reached, the connection broke, or no answer came in time.
    Broken,
    /// It refuses the message, and would refuse it again.
    Refused,
    /// The replica has left, or the API server does not care.
    Left,
    /// Something has changed at the replica.
    Changed(Change),
    /// The time that was waited for has come.
    Due,
    /// The replica wants something else.
    Wants(Wish),
}

/// What is to be done. Each ends with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Say what the replica serves.
    Register,
    /// Say how busy it is.
    Heartbeat {
        /// The number of the registration whose offers the loads belong to.
        registered: u64,
    },
    /// Say that it goes.
    Leave,
    /// Wait until then, or for a change or a wish.
    Wait(Instant),
    /// Nothing any more.
    Over(End),
}

/// Why nothing is said any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The replica has left.
    Left,
    /// Another process runs with this replica's id.
    Replaced,
}

/// The state of one API server's knowledge.
///
/// ```text
///          due, change of wish            accepted
///  Away ──────────────────► Registering ────────────► Known(seq, due) ◄────┐
///    ▲                          │  ▲  ▲                 │      │           │ accepted
///    │  broken, refused         │  │  └── offers changed┘      │ due, loads changed
///    ├──────────────────────────┘  │ register again           ▼           │
///    └───────────── broken ────────┴─────────────────────── Beating ──────┘
///  any ── another start is known ──► Over        Away, Known ── leave ──► Leaving ──► Over
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    state: State,
    chance: Chance,
    /// Time between heartbeats.
    heartbeat: Duration,
    /// Failures in a row.
    strikes: u32,
    /// When the last message was answered.
    last: Option<Instant>,
    /// It may know this start of the replica.
    known: bool,
    wish: Wish,
    /// What it knows of the wish, or would know if it could be reached.
    told: Wish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away { until: Instant },
    Registering,
    Known { seq: u64, due: Instant, change: Option<Change> },
    Beating { seq: u64 },
    Leaving,
    Over(End),
}

// === impl Announcer ===

impl Announcer {
    /// An API server that knows nothing, and the first thing to do. The seed spreads what replicas do.
    pub(crate) fn new(seed: u64) -> (Self, Action) {
        let announcer = Self {
            state: State::Registering,
            chance: Chance::new(seed),
            heartbeat: HEARTBEAT,
            strikes: 0,
            last: None,
            known: false,
            wish: Wish::Serve,
            told: Wish::Serve,
        };
        (announcer, Action::Register)
    }

    /// What the replica wants, for the next message.
    pub(crate) fn wish(&self) -> Wish {
        self.wish
    }

    /// What the API server was told of it, or could not be told.
    pub(crate) fn told(&self) -> Wish {
        self.told
    }

    /// What to do after an event. One that cannot be in this state changes nothing.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Action {
        self.state = match (self.state, event) {
            (State::Registering, Event::Registered { verdict: Verdict::Accepted, seq, heartbeat }) => {
                self.registered(seq, heartbeat, now)
            }
            (State::Registering, Event::Registered { verdict: Verdict::StaleEpoch, .. })
            | (State::Beating { .. }, Event::Answered(Verdict::StaleEpoch)) => self.over(End::Replaced),
            (State::Beating { seq }, Event::Answered(Verdict::Accepted | Verdict::Outdated)) => self.answered(seq, now),
            (State::Beating { .. }, Event::Answered(Verdict::RegisterAgain) | Event::Changed(Change::Offers)) => {
                State::Registering
            }
            (State::Registering, Event::Registered { .. } | Event::Broken)
            | (State::Beating { .. }, Event::Answered(_) | Event::Broken) => self.pause(now),
            (State::Registering | State::Beating { .. }, Event::Refused) => self.refused(now),
            (State::Leaving, Event::Left | Event::Broken | Event::Refused) => self.over(End::Left),
            (State::Known { seq, due, change }, Event::Changed(new)) => self.changed(seq, due, change.max(Some(new))),
            (State::Known { change: Some(Change::Offers), due, .. }, Event::Due) if due <= now => State::Registering,
            (State::Known { seq, due, .. }, Event::Due) if due <= now => State::Beating { seq },
            (State::Away { until }, Event::Due) if until <= now => State::Registering,
            (State::Known { .. } | State::Away { .. }, Event::Wants(wish)) if wish > self.wish => self.wants(wish),
            (state, _) => state,
        };
        if matches!(self.state, State::Known { .. } | State::Away { .. }) {
            // Whatever came of it, more than that cannot be done for a wish.
            self.told = self.wish;
        }
        self.action()
    }

    fn action(&self) -> Action {
        match self.state {
            State::Registering => Action::Register,
            State::Beating { seq } => Action::Heartbeat { registered: seq },
            State::Leaving => Action::Leave,
            State::Known { due: until, .. } | State::Away { until } => Action::Wait(until),
            State::Over(end) => Action::Over(end),
        }
    }

    fn registered(&mut self, seq: u64, heartbeat: Duration, now: Instant) -> State {
        self.heartbeat = if heartbeat.is_zero() { HEARTBEAT } else { heartbeat };
        self.heartbeat = self.heartbeat.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT);
        (self.known, self.strikes, self.last) = (true, 0, Some(now));
        // Replicas that register together, because their API server came back, do not beat together.
        State::Known { seq, due: now + self.chance.spread(10, self.heartbeat), change: None }
    }

    fn answered(&mut self, seq: u64, now: Instant) -> State {
        (self.strikes, self.last) = (0, Some(now));
        State::Known { seq, due: now + self.chance.spread(90, self.heartbeat), change: None }
    }

    fn pause(&mut self, now: Instant) -> State {
        let longest = self.heartbeat.min(LONGEST_PAUSE).max(FIRST_PAUSE);
        let pause = FIRST_PAUSE.saturating_mul(1 << self.strikes.min(10)).min(longest);
        self.strikes = self.strikes.saturating_add(1);
        State::Away { until: now + self.chance.spread(50, pause) }
    }

    fn refused(&mut self, now: Instant) -> State {
        State::Away { until: now + self.chance.spread(80, REFUSED_PAUSE) }
    }

    /// Something changed: it is told soon, together with what else changes by then.
    fn changed(&self, seq: u64, due: Instant, change: Option<Change>) -> State {
        let soon = self.last.map_or(due, |last| last + GAP);
        State::Known { seq, due: due.min(soon), change }
    }

    /// The replica wants something else, which is told at once. An API server that is away is tried once more for it.
    fn wants(&mut self, wish: Wish) -> State {
        self.wish = wish;
        match (wish, self.state) {
            (Wish::Leave, _) if !self.known => self.over(End::Left),
            (Wish::Leave, _) => State::Leaving,
            (_, State::Known { seq, change, .. }) if change != Some(Change::Offers) => State::Beating { seq },
            _ => State::Registering,
        }
    }

    fn over(&mut self, end: End) -> State {
        self.told = Wish::Leave;
        State::Over(end)
    }
}

#[cfg(test)]
#[path = "announcer/tests.rs"]
mod tests;
