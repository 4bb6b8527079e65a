//! Objects that are elsewhere: with other replicas, and in a store that outlives them.
//!
//! ```text
//!            FarStore (core::FarObjects)
//!  fetch ──► one flight per reference ──► Plan (pure) ─┬─► Peers ── Identify, Pull ──► another replica's memory
//!                                          which next? └─► Spill ── object_store ────► a folder, or a bucket
//!                                                               ▼
//!                                    Assembly: lengths, checksums ─► a room in core::LocalObjects
//! ```
//!
//! A copy is pulled once for all who wait for it, is checked before it becomes an object, and may be evicted like any
//! cache. This crate knows no worker, no socket of theirs and no shared memory: the store here is a trait of `core`.
//! It connects to nobody but the peers and the store that the operator named.

mod assembly;
mod far;
mod flights;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod peers;
mod plan;
mod spill;

pub use anyserve_client::Endpoint;
pub use far::FarStore;
pub use peers::{Peers, PeersError};
pub use spill::{Spill, SpillError};
