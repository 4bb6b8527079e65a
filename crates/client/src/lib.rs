//! The KServe v2 client behind `anyserve.Client`: core types in, gRPC on the wire, core types out.
//!
//! It connects on first use, keeps one HTTP/2 connection per [`Client`] and reconnects after a loss. Every failure is
//! a [`Error`](anyserve_core::Error) of the closed set, whichever side it comes from. It sends nothing twice: a retry
//! is the caller's decision, who alone knows what the request does. It knows no replica but its endpoint; finding one
//! is not its job. Other clients of a
//! replica's port use its [`channel`] and its reading of a failure, [`from_status`].

mod call;
mod client;
mod decode;
mod encode;
mod endpoint;
mod failure;
mod stream;

pub use call::Call;
pub use client::{Client, Metadata, Tls, channel};
pub use endpoint::{Endpoint, EndpointError};
pub use failure::from_status;
