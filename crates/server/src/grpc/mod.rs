//! KServe v2 over gRPC, with Triton's extensions.
//!
//! The two inference calls are written by hand on HTTP/2 bodies: small requests are decoded where they arrived, large
//! tensors are received into the runtime's memory and written from where they are, and the heap is reserved as bytes
//! arrive instead of as a length prefix promises. Every other call goes through the generated service.

mod compression;
mod contents;
mod decode;
mod describe;
mod encode;
mod framing;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generated;
mod health;
mod meta;
mod metadata;
mod models;
mod parameters;
mod pieces;
mod raw;
mod reflection;
mod regions;
mod replica;
mod reply;
mod repository;
mod scan;
mod scatter;
mod services;
mod session;
mod settings;
mod shared;
mod status;
mod stream;
mod timeout;
mod transfer;
mod unary;

pub use front::CallHead;
pub(crate) use front::stream_error;
pub(crate) use generated::Generated;
pub(crate) use metadata::Metadata;
pub(crate) use parameters::from_choice;
pub use reflection::Reflection;
pub use services::Services;
pub use status::status as status_of;
pub(crate) use status::{failed, hand_back, refusal, succeeded};
pub(crate) use stream::stream_infer;
pub(crate) use unary::infer;
