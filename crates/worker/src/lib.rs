//! Python worker processes: spawned, greeted, supervised, and given requests over a Unix socket each.
//!
//! [`Pool`] is the replica's local dispatcher: a `tower::Service` from a request to its reply, and the
//! [`Directory`](anyserve_core::Directory) that ingress reads. What it decides is decided in `anyserve_sched` (which
//! request goes where) and in [`Lifecycle`] (what becomes of a process); the rest of this crate carries it out.
//!
//! ```text
//!  Pool::call ─► Routes (query → handler) ─► Dispatcher (pure) ─► Link ══ socket ══ worker process
//!                                                 ▲                │
//!        reply ◄── Pending ◄──────────────────────┴── frames ◄─────┘        Supervisor: spawn, handshake, ping,
//!                                                                            restart, drain, one per worker
//! ```

mod config;
mod control;
mod deadline;
mod dispatch;
mod explain;
mod far;
mod fingerprint;
mod handshake;
mod lifecycle;
mod link;
mod memory;
mod objects;
mod outbox;
mod output;
mod pending;
mod pool;
mod process;
mod receive;
mod references;
mod regions;
mod routes;
mod service;
mod statistics;
mod stream;
mod supervisor;
mod wishes;

pub use config::{PoolConfig, WorkerEvent};
pub use lifecycle::{Action, Event, Lifecycle, UnexpectedEvent};
pub use memory::SharedMemory;
pub use pool::{Pool, Running, StartError};
