//! What was asked for of an API server, by flag, variable or file, and not yet checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use anyserve_server::AdminToken;
use serde::{Deserialize, Deserializer};

/// Options of `api-server`; `None` where nothing was given. Each is a flag of the commands, a variable
/// `ANYSERVE_<NAME>` and a line of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ApiServerOptions {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "ANYSERVE_HOST")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8080]
    #[arg(long, env = "ANYSERVE_PORT")]
    pub port: Option<u16>,
    /// Where API servers share what they hear: memory, or etcd://host:port,host:port [default: memory]
    #[arg(long, env = "ANYSERVE_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// Authorities of etcd's certificate in PEM, for etcd+https:// [default: those of the system]
    #[arg(long, env = "ANYSERVE_STORE_CA")]
    pub store_ca: Option<PathBuf>,
    /// Own certificate chain in PEM, for etcd that asks for one
    #[arg(long, env = "ANYSERVE_STORE_CERT")]
    pub store_cert: Option<PathBuf>,
    /// Private key of --store-cert in PEM
    #[arg(long, env = "ANYSERVE_STORE_KEY")]
    pub store_key: Option<PathBuf>,
    /// Who gets a request: least-wait, bin-packing, sticky, prefix or round-robin [default: least-wait]
    #[arg(long, env = "ANYSERVE_POLICY")]
    pub policy: Option<String>,
    /// Token that replicas from elsewhere have to know; without one, only those on this machine may register
    #[arg(long, env = "ANYSERVE_CLUSTER_TOKEN", hide_env_values = true)]
    #[serde(default, deserialize_with = "token")]
    pub cluster_token: Option<AdminToken>,
    /// Seconds after its last message for which a replica is believed to be there [default: 5]
    #[arg(long, env = "ANYSERVE_LEASE_S", allow_negative_numbers = true)]
    pub lease_s: Option<f64>,
    /// Seconds between two messages of a replica [default: 1]
    #[arg(long, env = "ANYSERVE_HEARTBEAT_S", allow_negative_numbers = true)]
    pub heartbeat_s: Option<f64>,
    /// Seconds that requests in flight have to finish when the server is stopped [default: 30]
    #[arg(long, env = "ANYSERVE_GRACE_S", allow_negative_numbers = true)]
    pub grace_s: Option<f64>,
    /// Largest message, in MiB [default: 1024]
    #[arg(long, env = "ANYSERVE_MAX_MESSAGE_MB")]
    pub max_message_mb: Option<u32>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "ANYSERVE_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Threads that carry requests, each with a connection to each replica [default: one per core, at most 8]
    #[arg(long, env = "ANYSERVE_THREADS")]
    pub threads: Option<u32>,
    /// TOML file with these options
    #[arg(long, env = "ANYSERVE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name that server metadata tells [default: anyserve]
    #[arg(long, env = "ANYSERVE_SERVER_ID")]
    pub server_id: Option<String>,
    /// Certificate chain in PEM
    #[arg(long, env = "ANYSERVE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, env = "ANYSERVE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Authorities of clients' certificates in PEM; clients without one are refused
    #[arg(long, env = "ANYSERVE_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Authorities of replicas' certificates in PEM, for endpoints with https:// [default: those of the system]
    #[arg(long, env = "ANYSERVE_REPLICA_CA")]
    pub replica_ca: Option<PathBuf>,
    /// Own certificate chain in PEM, for replicas that ask for one
    #[arg(long, env = "ANYSERVE_REPLICA_CERT")]
    pub replica_cert: Option<PathBuf>,
    /// Private key of --replica-cert in PEM
    #[arg(long, env = "ANYSERVE_REPLICA_KEY")]
    pub replica_key: Option<PathBuf>,
}

// === impl ApiServerOptions ===

impl ApiServerOptions {
    /// These options, and for what they don't say, those of the file that they name.
    ///
    /// # Errors
    /// If the file cannot be read, is no TOML, or has an option that there is not.
    pub fn with_file(self) -> Result<Self> {
        let Some(path) = &self.config else { return Ok(self) };
        let file = read(path)?;
        Ok(self.or(file))
    }

    fn or(self, file: Self) -> Self {
        Self {
            host: self.host.or(file.host),
            port: self.port.or(file.port),
            store: self.store.or(file.store),
            store_ca: self.store_ca.or(file.store_ca),
            store_cert: self.store_cert.or(file.store_cert),
            store_key: self.store_key.or(file.store_key),
            policy: self.policy.or(file.policy),
            cluster_token: self.cluster_token.or(file.cluster_token),
            lease_s: self.lease_s.or(file.lease_s),
            heartbeat_s: self.heartbeat_s.or(file.heartbeat_s),
            grace_s: self.grace_s.or(file.grace_s),
            max_message_mb: self.max_message_mb.or(file.max_message_mb),
            log_level: self.log_level.or(file.log_level),
            threads: self.threads.or(file.threads),
            config: self.config,
            server_id: self.server_id.or(file.server_id),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            replica_ca: self.replica_ca.or(file.replica_ca),
            replica_cert: self.replica_cert.or(file.replica_cert),
            replica_key: self.replica_key.or(file.replica_key),
        }
    }
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AdminToken>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(text.into()))
}

fn read(path: &Path) -> Result<ApiServerOptions> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration file {} cannot be read", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, flags: ApiServerOptions) -> Result<ApiServerOptions> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anyserve.toml");
        std::fs::write(&path, text).unwrap();
        ApiServerOptions { config: Some(path), ..flags }.with_file()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_a_token_is_shown_nowhere() {
        let flags = ApiServerOptions { port: Some(1), ..ApiServerOptions::default() };
        let options = with_file("port = 2\nlease_s = 3\ncluster_token = \"secret\"", flags).unwrap();
        assert_eq!((options.port, options.lease_s), (Some(1), Some(3.0)));
        assert!(options.cluster_token.is_some() && !format!("{options:?}").contains("secret"));
    }

    #[test]
    fn an_option_of_a_replica_is_none_of_an_api_server() {
        let error = format!("{:#}", with_file("workers = 2", ApiServerOptions::default()).unwrap_err());
        assert!(error.contains("workers") && error.contains("line 1"), "{error}");
    }
}
