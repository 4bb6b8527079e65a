//! A worker's life besides its requests: its hooks, in the order that the runtime asks for them.
//!
//! ```text
//! Starting ─started─► Awake ─Sleep─► FallingAsleep ─slept─► Asleep ─Wake─► Waking ─woke─► Awake
//!     │                 │                  │                   │             │
//!     └──── failed ─────┴──── drained ─────┴──────────────────►Over◄─────────┘
//! ```
//!
//! The thread that reads the socket makes the steps that the runtime asks for, the main thread all others. Hooks run in
//! the main thread, and only while no request is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyserve_core::{Code, Error};
use anyserve_wire::{Frame, Kind, message};
use pyo3::prelude::*;

use super::failure::shortened;
use super::handle_signals;
use super::session::Session;

/// How the process of a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// After a drain, or when the runtime has gone.
    Drained = 0,
    /// It cannot start; the runtime was told why.
    CannotStart = 2,
    /// It cannot sleep or wake; its end gives its resources back.
    CannotTurn = 3,
}

/// Where a worker is between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Starting,
    /// Takes requests.
    Awake,
    /// Was told to sleep.
    FallingAsleep,
    Asleep,
    /// Was told to wake.
    Waking,
    /// Takes nothing more.
    Over,
}

const PHASES: [Phase; 6] =
    [Phase::Starting, Phase::Awake, Phase::FallingAsleep, Phase::Asleep, Phase::Waking, Phase::Over];

/// The phase, for every thread to read. One step is made at a time.
pub(super) struct Phases(AtomicU8);

/// The hooks of the worker's class, by `anyserve.worker._life.Life`.
pub(super) struct Life<'py> {
    hooks: Bound<'py, PyAny>,
    session: Arc<Session>,
}

// === impl Phase ===

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Awake => "awake",
            Self::FallingAsleep => "falling asleep",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Over => "ending",
        }
    }

    /// Whether a hook runs, or is about to, that is of no use to anybody once the runtime has gone.
    pub(super) fn is_turning(self) -> bool {
        matches!(self, Self::Starting | Self::FallingAsleep | Self::Waking)
    }
}

// === impl Phases ===

impl Phases {
    pub(super) fn get(&self) -> Phase {
        PHASES[usize::from(self.0.load(Ordering::SeqCst))]
    }

    /// Makes a step; false if the worker is not where it begins.
    pub(super) fn step(&self, from: Phase, to: Phase) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Makes the last step, from wherever the worker is.
    pub(super) fn end(&self) {
        self.0.store(Phase::Over as u8, Ordering::SeqCst);
    }
}

impl Default for Phases {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }
}

// === impl Life ===

impl<'py> Life<'py> {
    pub(super) fn new(hooks: &Bound<'py, PyAny>, session: &Arc<Session>) -> Self {
        Self { hooks: hooks.clone(), session: Arc::clone(session) }
    }

    /// What Python knows it by.
    pub(super) fn hooks(&self) -> &Bound<'py, PyAny> {
        &self.hooks
    }

    /// Starts the worker and says that it is ready, or why it cannot start. False then.
    pub(super) fn start(&self) -> PyResult<bool> {
        let failed: Option<(String, String)> = self.hooks.call_method0("start")?.extract()?;
        let Some((message, traceback)) = failed else {
            // From here on a signal to end means that what is in flight is finished.
            handle_signals(self.hooks.py(), &self.session)?;
            self.arrive(Phase::Starting, Phase::Awake, Kind::Ready);
            return Ok(true);
        };
        self.session.phases.end();
        let error = Error::new(Code::HandlerError, shortened(message)).with_traceback(shortened(traceback));
        self.send(&Frame::with_meta(Kind::Failed, 0, &message::Failed::from(&error)));
        Ok(false)
    }

    /// Runs the hook that the runtime asked for, and says that it has run. False if it raised.
    pub(super) fn turn(&self) -> PyResult<bool> {
        let (hook, from, to, kind) = match self.session.phases.get() {
            Phase::FallingAsleep => ("sleep", Phase::FallingAsleep, Phase::Asleep, Kind::Asleep),
            Phase::Waking => ("wake", Phase::Waking, Phase::Awake, Kind::Ready),
            _ => return Ok(true),
        };
        if self.hooks.call_method0(hook)?.extract()? {
            self.arrive(from, to, kind);
            return Ok(true);
        }
        // The end of the socket is what the runtime sees at once, however long the interpreter takes to end.
        self.session.phases.end();
        self.session.link.hang_up();
        Ok(false)
    }

    /// Runs the last hook; every request has its answer.
    pub(super) fn stop(&self) -> PyResult<()> {
        self.session.link.flush(self.hooks.py());
        self.hooks.call_method0("stop")?;
        self.session.link.flush(self.hooks.py());
        Ok(())
    }

    /// The step first: once the runtime has the frame, it may send what the worker only takes after it.
    fn arrive(&self, from: Phase, to: Phase, kind: Kind) {
        self.session.phases.step(from, to);
        self.send(&Frame::bare(kind, 0));
    }

    fn send(&self, frame: &Frame) {
        let session = &self.session;
        self.hooks.py().detach(|| session.link.send_detached(frame));
    }
}
