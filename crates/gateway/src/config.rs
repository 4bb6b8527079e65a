//! What can be set about an API server.

use anyserve_client::Tls;
use anyserve_core::Limits;
use anyserve_server::AdminToken;
use tokio_util::sync::CancellationToken;

/// Plain data; [`GatewayConfig::default`] is what an API server on loopback needs.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Bounds of what clients send.
    pub limits: Limits,
    /// Name that `ServerMetadata` tells.
    pub server_id: String,
    /// Version that `ServerMetadata` tells.
    pub version: String,
    /// Who knows it may be a replica from elsewhere. Without one, only who is on this machine may.
    pub cluster_token: Option<AdminToken>,
    /// How to talk TLS with replicas whose endpoints are `https://`.
    pub replica_tls: Tls,
    /// Cancelled once the server leaves: the same one that [`anyserve_server::Server::of`] gets.
    pub leaving: CancellationToken,
}

// === impl GatewayConfig ===

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            server_id: "anyserve".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_token: None,
            replica_tls: Tls::default(),
            leaving: CancellationToken::new(),
        }
    }
}
