//! How a replica is asked whether it lives.

use std::time::Duration;

use anyserve_client::{Client, Endpoint, Tls};

/// Asks replicas whether they live.
pub trait Prober: Send + Sync + 'static {
    /// Whether the replica there says in time that it lives.
    fn is_live(&self, endpoint: &str, timeout: Duration) -> impl Future<Output = bool> + Send;
}

/// Asks with `ServerLive`, over a connection of its own: whether one can be made is what is asked about.
#[derive(Clone, Debug, Default)]
pub struct GrpcProber {
    tls: Tls,
}

// === impl GrpcProber ===

impl GrpcProber {
    /// A prober that talks TLS like this where an endpoint asks for it.
    pub fn new(tls: Tls) -> Self {
        Self { tls }
    }
}

impl Prober for GrpcProber {
    async fn is_live(&self, endpoint: &str, timeout: Duration) -> bool {
        let Ok(endpoint) = endpoint.parse::<Endpoint>() else { return false };
        let Ok(client) = Client::try_new(endpoint, &self.tls) else { return false };
        let live = client.server_live(Some(timeout)).await;
        if let Err(error) = &live {
            tracing::debug!(endpoint = %client.endpoint(), %error, "a probe failed");
        }
        live.unwrap_or(false)
    }
}
