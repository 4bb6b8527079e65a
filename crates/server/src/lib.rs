//! Ingress: what a replica says to the outside, on one port.
//!
//! ```text
//! Listener ─► connection ─► route ─┬─► grpc  ModelInfer, ModelStreamInfer ─► the dispatcher (a tower::Service)
//!   (TLS)    (HTTP/1, HTTP/2)      ├─► grpc  everything else of KServe, health, reflection ─► Directory
//!                                  ├─► grpc  ObjectTransfer ─► the objects in this replica's memory
//!                                  ├─► http  /health, /metrics, /explain, /admin/quarantine ─► Directory
//!                                  └─► http  /, /status, /admin, and grpc RepositoryModel… ─► Control
//! ```
//!
//! Protocols become [`anyserve_core::Request`]s here and nowhere else. This crate decides nothing about requests: it
//! checks that they are well formed, hands them to the [`Upstream`], and writes what comes back. It knows no worker,
//! no queue and no configuration file.

mod accept;
mod body;
mod budget;
mod config;
mod connection;
mod explain;
mod grpc;
mod guard;
mod http;
mod listen;
mod metrics;
mod orders;
pub mod parts;
mod pulse;
mod rooms;
mod route;
mod status;
mod threads;
mod tls;
mod token;

use anyserve_core::{Control, Directory, Error, Reply, Request};

pub use accept::{Answers, Drained, Server};
pub use body::BodyError;
pub use config::{ServerConfig, TlsFiles};
pub use listen::{BindError, Listener};
pub use metrics::CertificateDates;
pub use threads::Threads;
pub use tls::{ServerTls, TlsError};
pub use token::{AdminToken, AdminTokenError};

/// What is behind the ingress: it answers requests, tells what it can serve, and takes orders.
///
/// Implemented by itself for every such service. Dropping the service's future, or the [`anyserve_core::Responses`]
/// it answered with, cancels the request.
pub trait Upstream:
    tower::Service<Request, Response = Reply, Error = Error, Future: Send>
    + Directory
    + Control
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Upstream for S where
    S: tower::Service<Request, Response = Reply, Error = Error, Future: Send>
        + Directory
        + Control
        + Clone
        + Send
        + Sync
        + 'static
{
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz {
    //! Fuzz targets of the parsers in here.
    pub use crate::{grpc::fuzz as grpc, http::fuzz as http};
}
