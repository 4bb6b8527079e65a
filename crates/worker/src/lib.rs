//! Python worker processes: spawned, greeted, supervised, and given requests over a Unix socket each.
//!
//! [`Pool`] is the replica's local dispatcher: a `tower::Service` from a request to its reply, and the
//! [`Directory`](anyserve_core::Directory) that ingress reads. What it decides is decided in `anyserve_sched` (which
//! request goes where) and in [`Lifecycle`] (what becomes of a process); the rest of this crate carries it out.
//!
//! ```text
//!  Pool::call ─► Routes (query → handler) ─► Dispatcher (pure) ─► Link ══ socket ══ worker process
//!                                                 ▲                │                     ▲
//!        reply ◄── Pending ◄──────────────────────┴── frames ◄─────┘                     │ forks, or is spawned
//!                                                                                        │
//!  App (template: manifest) ─► WorkerGroups ─► Pools (pure) ─► Planner ─► Supervisor ────┘
//!                                  ▲           who starts, sleeps, leaves   one per worker: handshake, ping, drain,
//!        orders (Control) ─────────┘                                        sleep, wake, restart
//! ```

mod app;
mod birth;
mod called;
mod calls;
mod config;
mod control;
mod deadline;
mod dispatch;
mod explain;
mod far;
mod fingerprint;
mod fleet;
mod group;
mod handshake;
mod lifecycle;
mod link;
mod memory;
mod objects;
mod open_calls;
mod outbox;
mod output;
mod pending;
mod planner;
mod pool;
mod process;
mod reaper;
mod receive;
mod references;
mod regions;
mod reload;
mod routes;
mod service;
mod statistics;
mod status;
mod stream;
mod supervisor;
mod template;
mod wishes;

pub use anyserve_sched::PoolPolicy;
pub use config::{PoolConfig, WorkerEvent};
pub use lifecycle::{Action, Event, Lifecycle, UnexpectedEvent};
pub use memory::SharedMemory;
pub use pool::{Pool, Running, StartError};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use template::fuzz;
