//! A replica's side of a fleet.
//!
//! ```text
//!  Directory ──► announcer (pure) ──► register, heartbeat, leave ──► every API server, one task each
//!  dispatcher ─► delegate ──► handed back, or forwarded to the first API server that answers
//!             └► call ──────► another replica, found through an API server; through it, if it cannot be reached
//! ```
//!
//! [`Link`] is there before the replica's workers are, so that it can be given to their dispatcher, and speaks for the
//! replica once it is told what there is to announce. API servers that are away cost the replica nothing: it serves what
//! comes, and announces itself again when they are back.
//!
//! This crate knows neither workers nor queues nor the protocol of clients: it reads a [`Directory`] and speaks through
//! `anyserve_client`.
//!
//! [`Directory`]: anyserve_core::Directory

mod announcer;
mod chance;
mod config;
mod forward;
mod link;
mod offers;
mod speaker;
mod trouble;

pub use anyserve_client::{Endpoint, EndpointError, Tls};
pub use config::{LinkConfig, Token};
pub use link::{Link, Running};
