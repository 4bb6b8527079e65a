//! The dispatcher as a pure state machine: events and an instant in, actions out.
//!
//! It knows no process, no socket and no clock. The shell in `anyserve_worker` feeds it with what happened and carries
//! out what it decides:
//!
//! ```text
//!   submit ──► Queued ──Send──► Sent ──finished──► (over)
//!                │                │
//!                │                ├─ cancel, expire ─► Abandoned ──finished, gone──► (over)
//!                │                └─ gone ─► Queued again if it had not started, otherwise (over: Lost)
//!                └─ cancel, expire, full, down ─► (over)
//! ```
//!
//! Every submitted request is over exactly once. A request that was abandoned still holds its worker's credit until the
//! worker has answered for it, so that a limit on concurrency is never broken by a timeout.

mod deadlines;
mod dispatcher;
mod group;
mod service_time;
mod ticket;
mod worker;

pub use dispatcher::{Action, Dispatcher, Finished, Job, Over, Refusal, Submitted, UnknownRequest};
pub use group::{GroupId, GroupLoad, HandlerLimits};
pub use service_time::ServiceTime;
pub use ticket::Ticket;
pub use worker::WorkerId;

/// Requests beyond its credits that a worker may hold: a slot table needs as many slots more.
pub const MAX_PREFETCH: u32 = worker::MAX_PREFETCH;
