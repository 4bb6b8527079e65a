//! What operators see of an API server: health, metrics, explanations, and a page over all replicas.

mod explain;
mod health;
mod metrics;
mod page;
mod status;

use std::sync::Arc;

use anyserve_server::CertificateDates;
use anyserve_server::parts::pages::Pulse;
use axum::Router;
use tokio_util::sync::CancellationToken;

use crate::{Fleet, GatewayConfig};

/// What pages look at.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) leaving: CancellationToken,
    /// The version of this server.
    pub(crate) version: String,
    /// When certificates expire.
    pub(crate) certificates: CertificateDates,
    /// Who watches the status.
    pub(crate) pulse: Pulse,
}

/// Every path of it.
pub(crate) fn router() -> Router<Arc<Seen>> {
    let shown = page::router().merge(status::router()).merge(metrics::router()).merge(health::router());
    shown.merge(explain::router())
}

// === impl Seen ===

impl Seen {
    pub(crate) fn new(fleet: Arc<Fleet>, config: &GatewayConfig) -> Self {
        let (leaving, version) = (config.leaving.clone(), config.proxy.version.clone());
        Self { fleet, leaving, version, certificates: config.certificates.clone(), pulse: Pulse::new() }
    }

    /// Whether this server has begun to leave.
    fn draining(&self) -> bool {
        self.leaving.is_cancelled()
    }
}
