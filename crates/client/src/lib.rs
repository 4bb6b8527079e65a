//! The KServe v2 client behind `anyserve.Client`: core types in, gRPC on the wire, core types out.
//!
//! It connects on first use, keeps one HTTP/2 connection per [`Client`] and reconnects after a loss. Every failure is
//! a [`Error`](anyserve_core::Error) of the closed set, whichever side it comes from. A [`Client`] knows no replica but its
//! endpoint and sends nothing twice. [`Discovery`] finds replicas through API servers, and sends a call to another one
//! only if none has begun it. Other clients of a port use its [`channel`] and its reading of a failure, [`from_status`].

mod call;
mod client;
mod decode;
mod discovery;
mod encode;
mod endpoint;
mod expiry;
mod failure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod secure;
mod stream;
mod tls;
mod tls_error;
mod tls_fault;

pub use call::Call;
pub use client::{Client, Metadata, channel, channel_to_member};
pub use discovery::{ApiServers, Discovery, Found};
pub use endpoint::{Endpoint, EndpointError};
pub use expiry::expiry;
pub use failure::{Failed, from_status, handed_back, unsent};
pub use tls::{Tls, TlsPem};
pub use tls_error::{TlsError, TlsFile};
pub use tls_fault::TlsFault;
