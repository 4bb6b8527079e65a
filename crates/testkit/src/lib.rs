//! What tests share: seeded chance and simulated time. Nothing here reads a clock or depends on the order of threads, so a
//! seed replays exactly.

mod chance;
pub mod simulation;
mod timeline;

pub use chance::Chance;
pub use timeline::Timeline;
