//! A place for a worker, from the order to start it until it is over.
//!
//! ```text
//!           Start                      Ready                Sleep                  Asleep
//!   (none) ──────► Starting ──────────────────────► Ready ────────► FallingAsleep ───────► Asleep
//!                     │                               │ ▲                │                   │ Wake
//!                     │                       Failing │ │ Ready          │ Failing           ▼
//!                     └──────── Failing ──────────► Failing ◄────────────┴────Failing──── Waking ── Ready ─► Ready
//!
//!   any ── Stop ─► Stopping;   any ── Gone ─► (over)
//! ```
//!
//! Every state but Asleep has what its group needs of the resources.

use std::time::{Duration, Instant};

use super::ledger::Grant;

/// What the shell says of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceEvent {
    /// Its worker takes requests.
    Ready,
    /// Its worker gave its resources back and lives on. A worker that dies while it sleeps is [`Gone`](Self::Gone): it has
    /// nothing to start with.
    Asleep,
    /// Its process died or does not start; its supervisor tries again. What it had is still its own.
    Failing,
    /// It has no process, and none comes: the place is over, and what it had is free.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Starting,
    Ready,
    FallingAsleep,
    Asleep,
    Waking,
    Failing,
    Stopping,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) stage: Stage,
    /// When it came into this state.
    pub(super) since: Instant,
    /// When its worker was first ready with what it has.
    pub(super) resident: Option<Instant>,
    /// What it had before it fell asleep.
    pub(super) slept: Option<Grant>,
    /// It was told to start or wake up then, and has not failed since.
    ordered: Option<Instant>,
}

/// A start or a waking that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measured {
    Start(Duration),
    Wake(Duration),
}

// === impl Stage ===

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::FallingAsleep => "falling-asleep",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Failing => "failing",
            Self::Stopping => "stopping",
        }
    }

    /// Where an event leads; `None` for one that comes too late to mean anything.
    fn after(self, event: PlaceEvent) -> Option<Self> {
        match (self, event) {
            (Self::Starting | Self::Waking | Self::Failing | Self::FallingAsleep, PlaceEvent::Ready) => {
                Some(Self::Ready)
            }
            (Self::FallingAsleep, PlaceEvent::Asleep) => Some(Self::Asleep),
            (Self::Starting | Self::Ready | Self::Waking | Self::FallingAsleep, PlaceEvent::Failing) => {
                Some(Self::Failing)
            }
            // It must not start again without resources.
            (Self::Asleep, PlaceEvent::Failing | PlaceEvent::Ready) => Some(Self::Stopping),
            _ => None,
        }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn starting(now: Instant) -> Self {
        Self { stage: Stage::Starting, since: now, resident: None, slept: None, ordered: Some(now) }
    }

    /// Goes where a planner's order leads.
    pub(super) fn order(&mut self, stage: Stage, now: Instant) {
        self.ordered = (stage == Stage::Waking).then_some(now);
        (self.stage, self.since) = (stage, now);
        if matches!(stage, Stage::Waking | Stage::Asleep) {
            self.resident = None;
        }
    }

    /// Goes where an event leads. False if it leads nowhere.
    pub(super) fn on(&mut self, event: PlaceEvent, now: Instant) -> (bool, Option<Measured>) {
        let Some(next) = self.stage.after(event) else { return (false, None) };
        let took = self.ordered.take().map(|since| now.saturating_duration_since(since));
        let measured = match (self.stage, next) {
            (Stage::Starting, Stage::Ready) => took.map(Measured::Start),
            (Stage::Waking, Stage::Ready) => took.map(Measured::Wake),
            _ => None,
        };
        (self.stage, self.since) = (next, now);
        match next {
            Stage::Ready => self.resident = self.resident.or(Some(now)),
            Stage::Asleep => self.resident = None,
            _ => {}
        }
        (true, measured)
    }

    /// Time since it was told to start or wake up.
    pub(super) fn underway(&self, now: Instant) -> Option<Duration> {
        self.ordered.map(|since| now.saturating_duration_since(since))
    }

    /// It is a worker, or will be one.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Waking | Stage::Ready | Stage::Failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [PlaceEvent; 3] = [PlaceEvent::Ready, PlaceEvent::Asleep, PlaceEvent::Failing];

    /// What every state makes of every event but the last, in the order of `EVENTS`; a dot is nothing.
    const TABLE: [(Stage, [&str; 3]); 7] = [
        (Stage::Starting, ["ready", ".", "failing"]),
        (Stage::Ready, [".", ".", "failing"]),
        (Stage::FallingAsleep, ["ready", "asleep", "failing"]),
        (Stage::Asleep, ["stopping", ".", "stopping"]),
        (Stage::Waking, ["ready", ".", "failing"]),
        (Stage::Failing, ["ready", ".", "."]),
        (Stage::Stopping, [".", ".", "."]),
    ];

    #[test]
    fn every_state_answers_every_event_as_the_table_says() {
        for (stage, row) in TABLE {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(stage.after(event).map_or(".", Stage::name), expected, "{stage:?} on {event:?}");
            }
        }
    }

    #[test]
    fn a_start_is_measured_unless_it_failed_on_the_way() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut place = Place::starting(now);
        assert_eq!(place.on(PlaceEvent::Ready, now + second), (true, Some(Measured::Start(second))));
        let mut place = Place::starting(now);
        place.on(PlaceEvent::Failing, now + second);
        assert_eq!(place.on(PlaceEvent::Ready, now + 2 * second), (true, None));
        place.order(Stage::FallingAsleep, now + 2 * second);
        place.on(PlaceEvent::Asleep, now + 2 * second);
        assert_eq!(place.resident, None, "residency begins anew after a sleep");
        place.order(Stage::Waking, now + 2 * second);
        assert_eq!(place.on(PlaceEvent::Ready, now + 3 * second), (true, Some(Measured::Wake(second))));
        assert_eq!(place.resident, Some(now + 3 * second));
    }
}
