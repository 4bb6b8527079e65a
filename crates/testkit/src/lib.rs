//! What tests share: seeded chance, simulated time, an object store without shared memory, and attacks on parsers.
//!
//! Nothing here reads a clock or depends on the order of threads, so a seed replays exactly.

mod chance;
pub mod fuzz;
mod shelf;
pub mod simulation;
mod timeline;

pub use chance::Chance;
pub use shelf::Shelf;
pub use timeline::Timeline;
