//! What can be set about the data path.

use anyserve_core::Limits;

use crate::ReplicasConfig;

/// Plain data; [`ProxyConfig::default`] is what an API server on loopback needs.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Bounds of what clients and replicas send. Of these `max_message`, `max_rank` and `max_tensors` are used.
    pub limits: Limits,
    /// Bytes of messages in transit, of everybody together, that may be held at the same time. Messages of less than one
    /// HTTP/2 frame are not counted. Beyond it requests are refused with `OVERLOADED`.
    pub max_buffered: usize,
    /// Bytes of one JSON body.
    pub max_json: usize,
    /// Requests that one `ModelStreamInfer` call may have in flight; the client waits beyond that.
    pub max_stream_requests: usize,
    /// Name that `ServerMetadata` tells.
    pub server_id: String,
    /// Version that `ServerMetadata` tells.
    pub version: String,
    /// Connections to replicas.
    pub replicas: ReplicasConfig,
}

// === impl ProxyConfig ===

impl Default for ProxyConfig {
    /// The limits of a replica, 4 GiB of messages in transit, JSON of 64 MiB, 256 requests a stream.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            max_buffered: 4 << 30,
            max_json: 64 << 20,
            max_stream_requests: 256,
            server_id: "anyserve".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replicas: ReplicasConfig::default(),
        }
    }
}
