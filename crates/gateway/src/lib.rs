//! The API server: one port in front of many replicas.
//!
//! ```text
//! Server (anyserve_server) ─► Gateway ─┬─► proxy     ModelInfer, ModelStreamInfer, model questions ─► a replica
//!                                      ├─► json      POST /infer, POST /infer/stream ─► a replica
//!                                      ├─► registry  Register, Heartbeat, Leave, Resolve, and the same over HTTP
//!                                      └─► pages     /, /status, /health, /metrics, /explain
//!                                           │
//!                                           ▼
//!                                         Fleet ─► Registry, Policy (anyserve_cluster: pure)
//! ```
//!
//! It decides nothing: who gets a request is decided in `anyserve_cluster`, and this crate carries it out.

mod body;
mod config;
mod control;
mod fleet;
mod gateway;
mod in_flight;
mod json;
mod pages;
mod proxy;
mod registry;
mod replicas;
pub mod store;

pub use body::Body;
pub use config::GatewayConfig;
pub use fleet::{Counted, Counters, Fleet, GrpcProber, Prober};
pub use gateway::Gateway;
pub use proxy::ProxyConfig;
pub use replicas::{ReplicaTlsError, ReplicasConfig};

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz {
    //! Fuzz targets of the parsers in here.
    pub use crate::{json::fuzz as json, proxy::fuzz as proxy, registry::fuzz as registry, store::fuzz as store};
}
