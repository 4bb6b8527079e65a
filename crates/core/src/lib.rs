//! Plain data of the runtime: what a capability is, what a request carries, and how it can fail.
//!
//! Every other crate speaks in these types. This crate does no I/O, starts no task and reads no clock; an instant
//! is always handed in.

mod batch;
mod capability;
mod catalog;
mod check;
mod code;
mod control;
mod datatype;
mod error;
mod explain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod group;
mod handler;
pub mod header;
mod index;
mod limits;
mod matching;
mod memory;
mod names;
mod nearest;
mod objects;
mod objref;
mod parameter;
mod quarantined;
mod query;
mod request;
mod schedule;
mod selector;
mod status;
mod tensor;
mod upgrade;
mod uplink;

pub use batch::batch_key;
pub use capability::{Capability, CapabilityError, Value};
pub use catalog::{
    CapabilityLoad, Catalog, CatalogEntry, Changed, Directory, Durations, Snapshot, Statistics, StoreLoad, WorkerCount,
};
pub use check::check_request;
pub use code::Code;
pub use control::{Control, Obeyed, Order};
pub use datatype::Datatype;
pub use error::Error;
pub use explain::{Candidate, Decision, Explanation, Verdict, verdicts, why_not};
pub use group::{DEFAULT_GROUP, GroupSpec, Needs, Resources};
pub use handler::Handler;
pub use index::Index;
pub use limits::Limits;
pub use matching::{Match, matches_of};
pub use memory::{Destination, Elsewhere, FarObjects, TensorMemory, TensorRoom};
pub use names::Names;
pub use objects::{HeldObject, Lease, LocalObjects, ObjectRoom};
pub use objref::{ObjRef, ObjRefError, StoreId};
pub use parameter::{Parameter, Parameters};
pub use quarantined::{Fingerprint, FingerprintError, Quarantined};
pub use query::{Bound, Condition, Conditions, Op, Query};
pub use request::{Expects, Reply, Request, Response, Responses};
pub use schedule::{MAX_SEQUENCE, MAX_TENANT, Priority, Schedule, SequenceCall, SequenceId};
pub use selector::SelectorError;
pub use status::{GroupStatus, ResourceStatus, Status, WorkerStatus};
pub use tensor::{BytesError, BytesReader, ShapeError, Tensor, TensorSpec, elements};
pub use upgrade::{MAX_UPGRADES, Upgrade, UpgradeError, Upgrades};
pub use uplink::{Answered, Uplink};
