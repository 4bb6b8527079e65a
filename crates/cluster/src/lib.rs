//! Many replicas as pure state machines: who is there, who serves what, and who gets a request.
//!
//! Events and an instant go in, answers and steps come out. Nothing here sends a byte, starts a task or reads a clock:
//! the API server does (`anyserve_gateway`).
//!
//! ```text
//!  announce, heartbeat, leave ──► Registry ──► who serves what: CapabilityIndex, holders by standing; who may upgrade what: rules
//!  eject, probed, expire ───────►    ▲
//!                                    │ choose (Policy), correct
//!  a request ──► Route ──────────────┘ ──► Ask, Send, Over
//! ```
//!
//! What a replica claims may be wrong by the time a request arrives. So a wrong claim costs a question and is taken
//! back, a replica that cannot be reached is ejected and costs no attempt, and only what a replica may have begun
//! counts: at most two attempts, at most one delegation.

mod config;
mod delegation;
mod hash;
mod health;
mod holders;
pub mod index;
mod list;
mod message;
pub mod policy;
mod registry;
mod replica;
mod retired;
mod route;
mod rules;

pub use config::{RegistryConfig, RegistryLimits};
pub use delegation::{Arrival, Refusal, Trip, refuse};
pub use health::Health;
pub use holders::{Candidate, Standing};
pub use index::CapabilityIndex;
pub use message::{Announce, Answer, Heartbeat, Load, MessageError, Offer, check_upgrades};
pub use registry::{CapabilityView, Counts, Handle, OfferView, Registry, ReplicaView, Resolved};
pub use route::{Call, Event, Route, Step, Target, UnexpectedEvent};
