//! What can be set about an API server.

use anyserve_server::{AdminToken, CertificateDates};
use tokio_util::sync::CancellationToken;

use crate::ProxyConfig;

/// What can be set beside its port; [`GatewayConfig::default`] is what an API server on loopback needs.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// The data path.
    pub proxy: ProxyConfig,
    /// Who knows it may be a replica from elsewhere. Without one, only who is on this machine may.
    pub cluster_token: Option<AdminToken>,
    /// What `/metrics` tells of certificates.
    pub certificates: CertificateDates,
    /// Cancelled once the server leaves: the same one that [`anyserve_server::Server::of`] gets.
    pub leaving: CancellationToken,
}
