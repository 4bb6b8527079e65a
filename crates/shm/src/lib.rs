//! Memory that the runtime and its workers share. The one home of `unsafe` in the runtime.
//!
//! Today it holds the slot table, by which both ends know how far a request has come without a system call, and after a
//! worker's death too. The object plane's arena is to live here as well. Memory that clients share is mapped here by both
//! ends, with a guard around it, because a client may take it away at any time.

mod guard;
mod region;
mod region_key;
mod region_map;
#[cfg(test)]
mod region_testing;
mod region_views;
mod regions;
mod slots;

pub use region::RegionStatus;
pub use region_key::KeyError;
pub use region_map::MapError;
pub use region_views::{RegionPlace, RegionRoom, RegionViews, RoomError, ViewError};
pub use regions::{Located, MAX_REGION_NAME, MAX_REGIONS, RegionError, Regions, RegisterError};
pub use slots::{OpenError, Phase, SLOTS, SlotTable};
