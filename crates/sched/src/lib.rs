//! The dispatcher and the planner of workers as pure state machines: events and an instant in, actions out.
//!
//! It knows no process, no socket and no clock. The shell in `anyserve_worker` feeds it with what happened and carries
//! out what it decides:
//!
//! ```text
//!   submit ──► Behind ──its turn──► Queued ──Send──► Sent ──finished──► (over)
//!              (its sequence)          ▲               │
//!                                      │               ├─ cancel, expire ─► Abandoned ──finished, gone──► (over)
//!                                      │               │                        └─ grace over ─► Replace its worker
//!                                      ├── stuck ──────┤
//!                                      └── gone ───────┴─► (over: lost, poison)
//!              └─ cancel, expire, pushed out, down ─► (over)
//! ```
//!
//! Every submitted request is over exactly once. A request that was abandoned still holds its worker's credit until the
//! worker has answered for it, so that a limit on concurrency is never broken by a timeout. `docs/scheduling.md` has the
//! rules and the pictures of the parts.
//!
//! [`Calls`] knows which requests wait for others because their handlers call them, and which call would wait for ever.
//!
//! Beside it, [`Pools`] says which workers there are: see `pool/`.

mod budget;
mod calls;
mod dispatcher;
mod group;
mod job;
mod level;
mod pace;
mod pool;
mod quarantine;
mod queue;
mod sequence;
mod service_time;
mod tenant;
mod ticket;
mod timers;
mod usage;
mod worker;

pub use budget::RetryBudget;
pub use calls::{Calls, Line, Places, Progress};
pub use dispatcher::{
    Action, CannotRest, Cause, Dispatcher, Finished, Outlook, Over, Refusal, Retries, SchedConfig, Sending, Slots,
    Submitted, UnknownRequest, Verdict,
};
pub use group::{GroupId, GroupLoad, HandlerLimits};
pub use job::{Job, Payload};
pub use pool::{PlaceEvent, PlaceId, PoolAction, PoolError, PoolGroup, PoolPolicy, Pools};
pub use quarantine::{Quarantine, Record, Standing};
pub use service_time::ServiceTime;
pub use ticket::Ticket;
pub use worker::WorkerId;

/// Calls beyond its credits that a worker may hold: a slot table needs as many slots more.
pub const MAX_PREFETCH: u32 = worker::MAX_PREFETCH;
