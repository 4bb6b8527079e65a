//! How a replica is asked whether it lives.

use std::time::Duration;

use anyserve_client::{Client, Endpoint, Tls};

/// Asks replicas whether they live.
pub trait Prober: Send + Sync + 'static {
    /// Has the replica there say in time that it lives.
    ///
    /// # Errors
    /// Why it does not, for whoever operates it.
    fn probe(&self, endpoint: &str, timeout: Duration) -> impl Future<Output = Result<(), String>> + Send;
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
    async fn probe(&self, endpoint: &str, timeout: Duration) -> Result<(), String> {
        let endpoint = endpoint.parse::<Endpoint>().map_err(|error| error.to_string())?;
        let client = Client::try_new(endpoint, &self.tls).map_err(|error| error.to_string())?;
        let live = client.server_live(Some(timeout)).await;
        if let Err(error) = &live {
            tracing::debug!(endpoint = %client.endpoint(), %error, "a probe failed");
        }
        let live = live.map_err(|error| error.message)?;
        if live { Ok(()) } else { Err("it says that it does not live".to_owned()) }
    }
}
