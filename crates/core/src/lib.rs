//! Plain data of the runtime: what a capability is, what a request carries, and how it can fail.
//!
//! Every other crate speaks in these types. This crate does no I/O, starts no task and reads no clock; an instant
//! is always handed in.

mod capability;
mod catalog;
mod check;
mod code;
mod datatype;
mod error;
mod handler;
mod limits;
mod matching;
mod parameter;
mod query;
mod request;
mod selector;
mod tensor;

pub use capability::{Capability, CapabilityError, Value};
pub use catalog::{Catalog, CatalogEntry, Directory, Durations, Snapshot, Statistics, WorkerCount};
pub use check::check_request;
pub use code::Code;
pub use datatype::Datatype;
pub use error::Error;
pub use handler::Handler;
pub use limits::Limits;
pub use matching::{Match, matches_of};
pub use parameter::{Parameter, Parameters};
pub use query::{Condition, Op, Query};
pub use request::{Expects, Reply, Request, Response, Responses};
pub use selector::SelectorError;
pub use tensor::{BytesError, BytesReader, ShapeError, Tensor, TensorSpec, elements};
