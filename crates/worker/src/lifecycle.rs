//! The life of one worker, over all the processes that play it: a pure state machine.
//!
//! ```text
//!              ┌────────────── BackoffOver ───────────────┐
//!              ▼                                          │
//!          Starting ──Ready──► Ready ──Exited──────► BackingOff ──Drain──► Stopped
//!              │                 │                        ▲
//!              │ StartTimeout,   │ Unresponsive, Overrun, │
//!              │                 │ Broken                 │
//!              │ Broken          ▼                        │
//!              ├────────────► Replacing ──Exited──────────┤
//!              └──Exited──────────────────────────────────┘
//!
//!          Starting ──Drain──► Stopping ──Exited──► Stopped
//!          Ready ──Drain──► Draining ──Exited──► Stopped;  Draining ──GraceOver──► Stopping
//!
//!          Ready ──Sleep──► Finishing ──Idle──► FallingAsleep ──Slept──► Asleep ──Wake──► Waking ──Ready──► Ready
//!
//!          Finishing, FallingAsleep, Asleep ──Exited──► Stopped;  a failure of theirs ──► Stopping
//!          Finishing, FallingAsleep, Asleep ──Drain──► Draining
//!          Waking: as Starting
//! ```
//!
//! A worker that goes to sleep gives its resources up: if it dies then it is gone, and not started again beside whoever
//! has them now.

use std::time::Duration;

/// What can happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It said hello and is ready for requests, or it is awake again.
    Ready,
    /// It did not become ready, or did not fall asleep, in time.
    StartTimeout,
    /// It has been ready for so long that its last crash is no longer held against it.
    Settled,
    /// It did not answer pings.
    Unresponsive,
    /// One of its handlers did not stop when it was told to.
    Overrun,
    /// It broke the protocol, or closed its socket.
    Broken,
    /// Its process has ended.
    Exited,
    /// The time to wait before the next start is over.
    BackoffOver,
    /// It is to leave: finish what is in flight.
    Drain,
    /// The time to finish is over.
    GraceOver,
    /// It is to give its resources back and stay alive.
    Sleep,
    /// Nothing that it was given is in flight any more.
    Idle,
    /// It has given its resources back.
    Slept,
    /// It may take its resources again.
    Wake,
}

/// What the supervisor is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Give it requests.
    Publish,
    /// Give it no more requests, and tell it to finish.
    Withdraw,
    /// End its process at once.
    Kill,
    /// It is dead: settle what it had, and start it again after this time.
    Restart(Duration),
    /// Start its process.
    Spawn,
    /// It is gone for good.
    Finish,
    /// Give it no more requests.
    Withhold,
    /// Tell it to sleep.
    PutToSleep,
    /// Tell it to wake.
    Rouse,
}

/// An event that cannot happen in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker that is {state} cannot have {event:?}")]
pub struct UnexpectedEvent {
    /// Name of the state.
    pub state: &'static str,
    /// The event.
    pub event: Event,
}

/// The state of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting { failures: u32 },
    Ready { failures: u32 },
    Replacing { failures: u32 },
    BackingOff { failures: u32 },
    Finishing,
    FallingAsleep,
    Asleep,
    Waking,
    Draining,
    Stopping,
    Stopped,
}

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

// === impl Lifecycle ===

impl Lifecycle {
    /// A worker whose first process is being started.
    pub fn starting() -> Self {
        Self { state: State::Starting { failures: 0 } }
    }

    /// The state's name, as it stands in metrics and logs.
    pub fn name(&self) -> &'static str {
        self.state.name()
    }

    /// Failed starts and crashes without a settled run between them.
    pub fn failures(&self) -> u32 {
        match self.state {
            State::Starting { failures }
            | State::Ready { failures }
            | State::Replacing { failures }
            | State::BackingOff { failures } => failures,
            _ => 0,
        }
    }

    /// Whether it may still be told to leave.
    pub fn can_drain(&self) -> bool {
        !matches!(self.state, State::Draining | State::Stopping | State::Stopped)
    }

    /// Whether it takes no more requests and waits for its last ones to end before it sleeps.
    pub fn waits_for_idle(&self) -> bool {
        self.state == State::Finishing
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// [`UnexpectedEvent`] if it cannot happen now; nothing changes then.
    pub fn on(&mut self, event: Event) -> Result<Action, UnexpectedEvent> {
        let next =
            self.state.running(event).or_else(|| self.state.resting(event)).or_else(|| self.state.leaving(event));
        let (state, action) = next.ok_or(UnexpectedEvent { state: self.state.name(), event })?;
        self.state = state;
        Ok(action)
    }
}

fn backoff(failures: u32) -> Duration {
    // What died once may have been killed from outside: it comes back at once.
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    FIRST_BACKOFF.saturating_mul(1 << doublings.min(16)).min(LONGEST_BACKOFF)
}

// === impl State ===

impl State {
    /// What follows in a worker that is to serve.
    fn running(self, event: Event) -> Option<(Self, Action)> {
        use Event as E;
        Some(match (self, event) {
            (Self::Starting { failures }, E::Ready) => (Self::Ready { failures }, Action::Publish),
            (Self::Starting { failures }, E::StartTimeout | E::Broken)
            | (Self::Ready { failures }, E::Unresponsive | E::Overrun | E::Broken) => {
                (Self::Replacing { failures }, Action::Kill)
            }
            (Self::Starting { failures } | Self::Ready { failures } | Self::Replacing { failures }, E::Exited) => {
                (Self::BackingOff { failures: failures + 1 }, Action::Restart(backoff(failures)))
            }
            (Self::Ready { .. }, E::Settled) => (Self::Ready { failures: 0 }, Action::Nothing),
            (Self::BackingOff { failures }, E::BackoffOver) => (Self::Starting { failures }, Action::Spawn),
            _ => return None,
        })
    }

    /// What follows in a worker that goes to sleep, sleeps, or wakes.
    fn resting(self, event: Event) -> Option<(Self, Action)> {
        use Event as E;
        Some(match (self, event) {
            (Self::Ready { .. }, E::Sleep) => (Self::Finishing, Action::Withhold),
            (Self::Finishing, E::Idle) => (Self::FallingAsleep, Action::PutToSleep),
            (Self::FallingAsleep, E::Slept) => (Self::Asleep, Action::Nothing),
            (Self::Asleep, E::Wake) => (Self::Waking, Action::Rouse),
            (Self::Waking, E::Ready) => (Self::Ready { failures: 0 }, Action::Publish),
            (Self::Waking, E::StartTimeout | E::Unresponsive | E::Broken) => {
                (Self::Replacing { failures: 0 }, Action::Kill)
            }
            (Self::Waking, E::Exited) => (Self::BackingOff { failures: 1 }, Action::Restart(backoff(0))),
            (Self::FallingAsleep, E::StartTimeout)
            | (Self::Finishing | Self::FallingAsleep | Self::Asleep, E::Unresponsive | E::Overrun | E::Broken) => {
                (Self::Stopping, Action::Kill)
            }
            (Self::Finishing | Self::FallingAsleep | Self::Asleep, E::Exited) => (Self::Stopped, Action::Finish),
            _ => return None,
        })
    }

    /// What follows in a worker that leaves.
    fn leaving(self, event: Event) -> Option<(Self, Action)> {
        use Event as E;
        Some(match (self, event) {
            (Self::Ready { .. } | Self::Finishing | Self::FallingAsleep | Self::Asleep, E::Drain) => {
                (Self::Draining, Action::Withdraw)
            }
            (Self::Starting { .. } | Self::Replacing { .. } | Self::Waking, E::Drain)
            | (Self::Draining, E::GraceOver | E::Unresponsive | E::Overrun) => (Self::Stopping, Action::Kill),
            // A draining worker closes its socket when it is done; its exit follows. One that was falling asleep may say so.
            (Self::Draining, E::Broken | E::Slept) => (Self::Draining, Action::Nothing),
            (Self::BackingOff { .. }, E::Drain) | (Self::Draining | Self::Stopping, E::Exited) => {
                (Self::Stopped, Action::Finish)
            }
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Replacing { .. } => "replacing",
            Self::BackingOff { .. } => "backing-off",
            Self::Finishing | Self::FallingAsleep => "falling-asleep",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 14] = [
        Event::Ready,
        Event::StartTimeout,
        Event::Settled,
        Event::Unresponsive,
        Event::Overrun,
        Event::Broken,
        Event::Exited,
        Event::BackoffOver,
        Event::Drain,
        Event::GraceOver,
        Event::Sleep,
        Event::Idle,
        Event::Slept,
        Event::Wake,
    ];

    /// What every state makes of every event, in the order of `EVENTS`; a dot is a refusal.
    const TABLE: [(State, [&str; 14]); 11] = [
        (
            State::Starting { failures: 1 },
            ["ready", "replacing", ".", ".", ".", "replacing", "backing-off", ".", "stopping", ".", ".", ".", ".", "."],
        ),
        (
            State::Ready { failures: 1 },
            [
                ".",
                ".",
                "ready",
                "replacing",
                "replacing",
                "replacing",
                "backing-off",
                ".",
                "draining",
                ".",
                "falling-asleep",
                ".",
                ".",
                ".",
            ],
        ),
        (
            State::Replacing { failures: 1 },
            [".", ".", ".", ".", ".", ".", "backing-off", ".", "stopping", ".", ".", ".", ".", "."],
        ),
        (
            State::BackingOff { failures: 1 },
            [".", ".", ".", ".", ".", ".", ".", "starting", "stopped", ".", ".", ".", ".", "."],
        ),
        (
            State::Finishing,
            [
                ".",
                ".",
                ".",
                "stopping",
                "stopping",
                "stopping",
                "stopped",
                ".",
                "draining",
                ".",
                ".",
                "falling-asleep",
                ".",
                ".",
            ],
        ),
        (
            State::FallingAsleep,
            [
                ".", "stopping", ".", "stopping", "stopping", "stopping", "stopped", ".", "draining", ".", ".", ".",
                "asleep", ".",
            ],
        ),
        (
            State::Asleep,
            [
                ".", ".", ".", "stopping", "stopping", "stopping", "stopped", ".", "draining", ".", ".", ".", ".",
                "waking",
            ],
        ),
        (
            State::Waking,
            [
                "ready",
                "replacing",
                ".",
                "replacing",
                ".",
                "replacing",
                "backing-off",
                ".",
                "stopping",
                ".",
                ".",
                ".",
                ".",
                ".",
            ],
        ),
        (
            State::Draining,
            [
                ".", ".", ".", "stopping", "stopping", "draining", "stopped", ".", ".", "stopping", ".", ".",
                "draining", ".",
            ],
        ),
        (State::Stopping, [".", ".", ".", ".", ".", ".", "stopped", ".", ".", ".", ".", ".", ".", "."]),
        (State::Stopped, ["."; 14]),
    ];

    #[test]
    fn every_state_answers_every_event_as_the_table_says() {
        for (state, row) in TABLE {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let mut life = Lifecycle { state };
                match life.on(event) {
                    Ok(_) => assert_eq!(life.name(), expected, "{state:?} on {event:?}"),
                    Err(refused) => {
                        assert_eq!(expected, ".", "{state:?} on {event:?}");
                        assert_eq!((refused.event, life.state), (event, state), "a refusal changes nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn the_wait_before_a_restart_doubles_up_to_its_bound_and_forgets_after_a_settled_run() {
        let mut life = Lifecycle::starting();
        let mut waits = Vec::new();
        for _ in 0..12 {
            let Ok(Action::Restart(wait)) = life.on(Event::Exited) else { panic!("an exit restarts") };
            waits.push(wait.as_millis());
            life.on(Event::BackoffOver).unwrap();
        }
        assert_eq!(waits[..5], [0, 100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        life.on(Event::Ready).unwrap();
        life.on(Event::Settled).unwrap();
        assert_eq!(life.on(Event::Exited), Ok(Action::Restart(Duration::ZERO)));
    }

    #[test]
    fn one_that_dies_asleep_is_gone_and_one_that_dies_while_it_wakes_is_started_again() {
        let mut life = Lifecycle::starting();
        for event in [Event::Ready, Event::Sleep, Event::Idle, Event::Slept] {
            life.on(event).unwrap();
        }
        assert_eq!(life.clone().on(Event::Exited), Ok(Action::Finish));
        assert_eq!(life.on(Event::Wake), Ok(Action::Rouse));
        assert_eq!(life.on(Event::Exited), Ok(Action::Restart(Duration::ZERO)));
    }
}
