//! The protobuf messages in the metadata of frames.
//!
//! Field numbers are the protocol; they never change their meaning. Datatypes and codes travel as their numbers in the
//! tables of `anyserve_core`.

mod call;
mod hello;
mod object;
mod request;
mod response;
mod template;
mod tensor;
mod value;

pub use call::{Call, CallResult};
pub use hello::{Handler, Hello, Plane, TensorSpec, Welcome};
pub use object::{Get, ObjectId, Put, Release, Sealed, Stat, View, Wanted};
pub use request::{Batch, Destination, Member, Request};
pub use response::{Credit, Failed, Response};
pub use template::{Amount, Fork, Forked, Group, Manifest};
pub use tensor::{Block, Memory, Place, Region, Tensor};
pub use value::{Header, KeyValue, Value};
