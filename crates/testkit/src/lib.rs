//! What tests share: seeded chance, simulated time, and an object store without shared memory. Nothing here reads a clock or depends on the order of threads, so a
//! seed replays exactly.

mod chance;
mod shelf;
pub mod simulation;
mod timeline;

pub use chance::Chance;
pub use shelf::Shelf;
pub use timeline::Timeline;
