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
//! ```

use std::time::Duration;

/// What can happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It said hello and is ready for requests.
    Ready,
    /// It did not become ready in time.
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
    /// The replica leaves: finish what is in flight.
    Drain,
    /// The time to finish is over.
    GraceOver,
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
            State::Draining | State::Stopping | State::Stopped => 0,
        }
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// [`UnexpectedEvent`] if it cannot happen now; nothing changes then.
    pub fn on(&mut self, event: Event) -> Result<Action, UnexpectedEvent> {
        use Event as E;
        use State as S;
        let (next, action) = match (self.state, event) {
            (S::Starting { failures }, E::Ready) => (S::Ready { failures }, Action::Publish),
            (
                S::Starting { failures } | S::Ready { failures },
                E::StartTimeout | E::Unresponsive | E::Overrun | E::Broken,
            ) if fits(self.state, event) => (S::Replacing { failures }, Action::Kill),
            (S::Starting { failures } | S::Ready { failures } | S::Replacing { failures }, E::Exited) => {
                (S::BackingOff { failures: failures + 1 }, Action::Restart(backoff(failures)))
            }
            (S::Ready { .. }, E::Settled) => (S::Ready { failures: 0 }, Action::Nothing),
            (S::BackingOff { failures }, E::BackoffOver) => (S::Starting { failures }, Action::Spawn),
            (S::Ready { .. }, E::Drain) => (S::Draining, Action::Withdraw),
            (S::Starting { .. } | S::Replacing { .. }, E::Drain)
            | (S::Draining, E::GraceOver | E::Unresponsive | E::Overrun) => (S::Stopping, Action::Kill),
            // A draining worker closes its socket when it is done; its exit follows.
            (S::Draining, E::Broken) => (S::Draining, Action::Nothing),
            (S::BackingOff { .. }, E::Drain) | (S::Draining | S::Stopping, E::Exited) => (S::Stopped, Action::Finish),
            (state, event) => return Err(UnexpectedEvent { state: state.name(), event }),
        };
        self.state = next;
        Ok(action)
    }
}

/// Whether a failure of a living process belongs to the state: only a start can time out, only a ready worker is pinged.
fn fits(state: State, event: Event) -> bool {
    match event {
        Event::StartTimeout => matches!(state, State::Starting { .. }),
        Event::Unresponsive | Event::Overrun => matches!(state, State::Ready { .. }),
        _ => true,
    }
}

fn backoff(failures: u32) -> Duration {
    // What died once may have been killed from outside: it comes back at once.
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    FIRST_BACKOFF.saturating_mul(1 << doublings.min(16)).min(LONGEST_BACKOFF)
}

// === impl State ===

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Replacing { .. } => "replacing",
            Self::BackingOff { .. } => "backing-off",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 10] = [
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
    ];

    /// What every state makes of every event, in the order of `EVENTS`; a dot is a refusal.
    const TABLE: [(State, [&str; 10]); 7] = [
        (
            State::Starting { failures: 1 },
            ["ready", "replacing", ".", ".", ".", "replacing", "backing-off", ".", "stopping", "."],
        ),
        (
            State::Ready { failures: 1 },
            [".", ".", "ready", "replacing", "replacing", "replacing", "backing-off", ".", "draining", "."],
        ),
        (State::Replacing { failures: 1 }, [".", ".", ".", ".", ".", ".", "backing-off", ".", "stopping", "."]),
        (State::BackingOff { failures: 1 }, [".", ".", ".", ".", ".", ".", ".", "starting", "stopped", "."]),
        (State::Draining, [".", ".", ".", "stopping", "stopping", "draining", "stopped", ".", ".", "stopping"]),
        (State::Stopping, [".", ".", ".", ".", ".", ".", "stopped", ".", ".", "."]),
        (State::Stopped, [".", ".", ".", ".", ".", ".", ".", ".", ".", "."]),
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
}
