//! What can be set about the ingress.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Limits, LocalObjects};
use anyserve_shm::Regions;

use crate::{AdminToken, CertificateDates};

/// Plain data; [`ServerConfig::default`] is what a replica on loopback needs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Bounds of what clients send. Of these the ingress uses `max_message`, `max_rank` and `max_tensors`.
    pub limits: Limits,
    /// Name that `ServerMetadata` tells.
    pub server_id: String,
    /// Version that `ServerMetadata` tells.
    pub version: String,
    /// Protocol extensions that `ServerMetadata` tells.
    pub extensions: Vec<String>,
    /// Memory that clients on this machine share, if they may: `ServerMetadata` tells the extension then.
    pub regions: Option<Arc<Regions>>,
    /// TLS, if connections are to be encrypted.
    pub tls: Option<TlsFiles>,
    /// What `/metrics` tells of certificates.
    pub certificates: CertificateDates,
    /// Who knows it may administrate. Without one, whoever is on this machine may.
    pub admin_token: Option<AdminToken>,
    /// Objects that other replicas may pull. Without it there is no such service.
    pub objects: Option<Arc<dyn LocalObjects>>,
    /// How long requests in flight may go on once draining has begun.
    pub grace: Duration,
    /// Connections that are open at the same time; further ones wait to be accepted.
    pub max_connections: usize,
    /// Requests that one HTTP/2 connection may have open at the same time.
    pub max_concurrent_streams: u32,
    /// Requests that one `ModelStreamInfer` call may have in flight; the client waits beyond that.
    pub max_stream_requests: usize,
    /// Bytes of request messages, of all clients together, that may be held at the same time. Messages of less than
    /// one HTTP/2 frame are not counted, nor are large tensors in memory that bounds itself. Beyond it requests are
    /// refused with `OVERLOADED`.
    pub max_buffered: usize,
    /// How long a client may take for a TLS handshake, for the first bytes of a connection, and for the headers of
    /// an HTTP/1 request.
    pub handshake_timeout: Duration,
    /// How often a silent HTTP/2 client is asked whether it is still there.
    pub keepalive: Duration,
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain, its own certificate first.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// Authorities of clients' certificates. If set, a client without such a certificate is refused (mTLS).
    pub client_ca: Option<PathBuf>,
}

// === impl ServerConfig ===

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            server_id: "anyserve".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            regions: None,
            tls: None,
            certificates: CertificateDates::default(),
            admin_token: None,
            objects: None,
            grace: Duration::from_secs(30),
            max_connections: 4096,
            max_concurrent_streams: 4096,
            max_stream_requests: 256,
            max_buffered: 4 << 30,
            handshake_timeout: Duration::from_secs(10),
            keepalive: Duration::from_mins(1),
        }
    }
}

/// Triton's names of the extensions that are there.
const EXTENSIONS: [&str; 8] = [
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "sequence",
    "statistics",
    "trace",
    "logging",
];
