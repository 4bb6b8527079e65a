//! Memory that the runtime and its workers share. The one home of `unsafe` in the runtime.
//!
//! - The **slot table** tells both ends how far a request has come without a system call, and after a worker's death too.
//! - The **object plane** holds large tensors and objects: [`Plane`] as the runtime has it, [`Attached`] as a worker has
//!   it, and between them a directory that workers read, pins that they write, and the arena. What a block is for is
//!   decided in [`Table`], which is pure; who may still read it by the protocol in `protocol.rs`.
//! - **Regions** are memory that clients share: [`Regions`] as the runtime has them, [`RegionViews`] as a worker has them,
//!   with a guard around both, because a client may take its memory away at any time.

mod alloc;
mod atomic;
mod attached;
mod entry;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod layout;
mod lease;
mod memory;
pub mod object;
mod pins;
mod plane;
mod protocol;
mod region;
mod region_key;
mod region_map;
#[cfg(test)]
mod region_testing;
mod region_views;
mod regions;
mod segment;
mod slots;
mod table;

pub use alloc::{ALIGNMENT, Allocator};
pub use anyserve_core::Lease;
pub use attached::{Attached, PlaneAt};
pub use entry::{BlockId, Extent, Owner, Writer};
pub use layout::Layout;
pub use lease::{MAX_KEY, MAX_TTL};
pub use memory::Room;
pub use plane::{Plane, PlaneConfig, PlaneError};
pub use region::RegionStatus;
pub use region_key::KeyError;
pub use region_map::MapError;
pub use region_views::{RegionPlace, RegionRoom, RegionViews, RoomError, ViewError};
pub use regions::{Located, MAX_REGION_NAME, MAX_REGIONS, RegionError, Regions, RegisterError};
pub use segment::OWN_PREFIX;
pub use slots::{OpenError, Phase, SLOTS, SlotTable};
pub use table::{Change, Pins, Table, TableError, Usage};
