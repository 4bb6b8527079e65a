//! What was asked for, by flag, variable or file, and not yet checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use anyserve_server::AdminToken;
use serde::{Deserialize, Deserializer};

use crate::weights;

/// Options of `serve`; `None` where nothing was given. Each is a flag of the commands, a variable `ANYSERVE_<NAME>` and a
/// line of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What to serve: `module:app`, `path/file.py:app`, or with --factory `module:function`
    #[arg(env = "ANYSERVE_TARGET")]
    pub target: Option<String>,
    /// The target is a function that makes the app
    #[arg(long, env = "ANYSERVE_FACTORY", num_args = 0..=1, default_missing_value = "true")]
    pub factory: Option<bool>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "ANYSERVE_HOST")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8000]
    #[arg(long, env = "ANYSERVE_PORT")]
    pub port: Option<u16>,
    /// Worker processes [default: 1]
    #[arg(long, env = "ANYSERVE_WORKERS")]
    pub workers: Option<u32>,
    /// Tokens that workers share, such as token=2; may be repeated [default: none]
    #[arg(long, env = "ANYSERVE_RESOURCES", value_name = "NAME=AMOUNT")]
    #[serde(default, deserialize_with = "weights::of_file")]
    pub resources: Option<Vec<String>>,
    /// GPUs that workers share: auto, none, or a list such as 0,1 [default: auto]
    #[arg(long, env = "ANYSERVE_GPUS")]
    pub gpus: Option<String>,
    /// Whether workers are forked off a process that has loaded the app, where that is safe [default: true]
    #[arg(long, env = "ANYSERVE_FORK", num_args = 0..=1, default_missing_value = "true")]
    pub fork: Option<bool>,
    /// Seconds that a worker keeps its resources at least before others may have them [default: 1]
    #[arg(long, env = "ANYSERVE_MIN_RESIDENCY_S", allow_negative_numbers = true)]
    pub min_residency_s: Option<f64>,
    /// Seconds after which a request that waits for resources may have those of busy workers [default: 5]
    #[arg(long, env = "ANYSERVE_STARVATION_S", allow_negative_numbers = true)]
    pub starvation_s: Option<f64>,
    /// Load the app again when one of its files changes; for development
    #[arg(long, env = "ANYSERVE_RELOAD", num_args = 0..=1, default_missing_value = "true")]
    pub reload: Option<bool>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "ANYSERVE_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Seconds that requests in flight have to finish when the replica is stopped [default: 30]
    #[arg(long, env = "ANYSERVE_GRACE_S", allow_negative_numbers = true)]
    pub grace_s: Option<f64>,
    /// TOML file with these options
    #[arg(long, env = "ANYSERVE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Python interpreter of the workers [default: python3]
    #[arg(long, env = "ANYSERVE_PYTHON")]
    pub python: Option<PathBuf>,
    /// Largest message, in MiB [default: 1024]
    #[arg(long, env = "ANYSERVE_MAX_MESSAGE_MB")]
    pub max_message_mb: Option<u32>,
    /// Requests that may wait for each capability [default: 1024]
    #[arg(long, env = "ANYSERVE_MAX_QUEUE")]
    pub max_queue: Option<u32>,
    /// Size of the object store, such as 512MiB; 0 for none [default: 1GiB or 30 % of memory, whichever is less]
    #[arg(long, env = "ANYSERVE_OBJECT_STORE")]
    pub object_store: Option<String>,
    /// Size from which on tensors go through shared memory [default: 64KiB]
    #[arg(long, env = "ANYSERVE_OBJECT_THRESHOLD")]
    pub object_threshold: Option<String>,
    /// Seconds that a worker has to become ready [default: 600]
    #[arg(long, env = "ANYSERVE_START_TIMEOUT_S", allow_negative_numbers = true)]
    pub start_timeout_s: Option<f64>,
    /// Seconds without an answer to a ping after which a worker is replaced [default: 10]
    #[arg(long, env = "ANYSERVE_PING_TIMEOUT_S", allow_negative_numbers = true)]
    pub ping_timeout_s: Option<f64>,
    /// Seconds beyond its deadline that a handler has before its worker is replaced [default: 5]
    #[arg(long, env = "ANYSERVE_OVERRUN_GRACE_S", allow_negative_numbers = true)]
    pub overrun_grace_s: Option<f64>,
    /// Seconds that requests like those which killed two workers are refused [default: 600]
    #[arg(long, env = "ANYSERVE_QUARANTINE_TTL_S", allow_negative_numbers = true)]
    pub quarantine_ttl_s: Option<f64>,
    /// Seconds without a request after which a sequence is over [default: 60]
    #[arg(long, env = "ANYSERVE_SEQUENCE_IDLE_S", allow_negative_numbers = true)]
    pub sequence_idle_s: Option<f64>,
    /// Share of a tenant, such as gold=3; may be repeated [default: 1 each]
    #[arg(long, env = "ANYSERVE_TENANT_WEIGHT", value_name = "NAME=WEIGHT")]
    #[serde(default, deserialize_with = "weights::of_file")]
    pub tenant_weight: Option<Vec<String>>,
    /// Token that whoever calls /admin has to know; without one, only this machine may call it
    #[arg(long, env = "ANYSERVE_ADMIN_TOKEN", hide_env_values = true)]
    #[serde(default, deserialize_with = "token")]
    pub admin_token: Option<AdminToken>,
    /// Replica that objects are pulled from, such as 10.0.0.2:8000; may be repeated
    #[arg(long, env = "ANYSERVE_OBJECT_PEER", value_name = "HOST:PORT")]
    pub object_peer: Option<Vec<String>>,
    /// Where durable objects are kept: a folder, or `s3://bucket/prefix`
    #[arg(long, env = "ANYSERVE_OBJECT_SPILL", value_name = "PLACE")]
    pub object_spill: Option<String>,
    /// API server that this replica announces itself to, such as `http://10.0.0.1:8080`; may be repeated
    #[arg(long, env = "ANYSERVE_API_SERVER", value_name = "URL")]
    pub api_server: Option<Vec<String>>,
    /// Name of this replica, which it keeps when it starts anew [default: what is advertised]
    #[arg(long, env = "ANYSERVE_REPLICA_ID", value_name = "ID")]
    pub replica_id: Option<String>,
    /// Where others reach this replica [default: the address that it listens on]
    #[arg(long, env = "ANYSERVE_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Token that API servers on other machines ask for
    #[arg(long, env = "ANYSERVE_CLUSTER_TOKEN", hide_env_values = true)]
    #[serde(default, deserialize_with = "token")]
    pub cluster_token: Option<AdminToken>,
    /// Authorities of the certificates of API servers and of other replicas in PEM [default: those of the system]
    #[arg(long, env = "ANYSERVE_API_SERVER_CA", value_name = "FILE")]
    pub api_server_ca: Option<PathBuf>,
    /// Own certificate chain in PEM, for API servers and replicas that ask for one
    #[arg(long, env = "ANYSERVE_API_SERVER_CERT", value_name = "FILE")]
    pub api_server_cert: Option<PathBuf>,
    /// Private key of --api-server-cert in PEM
    #[arg(long, env = "ANYSERVE_API_SERVER_KEY", value_name = "FILE")]
    pub api_server_key: Option<PathBuf>,
    /// Threads of the runtime [default: one for two cores]
    #[arg(long, env = "ANYSERVE_THREADS")]
    pub threads: Option<u32>,
    /// Name that server metadata tells [default: anyserve]
    #[arg(long, env = "ANYSERVE_SERVER_ID")]
    pub server_id: Option<String>,
    /// Take tensors in shared memory of clients, who are on this machine and trusted
    #[arg(long, env = "ANYSERVE_CLIENT_SHM", num_args = 0..=1, default_missing_value = "true")]
    pub client_shm: Option<bool>,
    /// Certificate chain in PEM
    #[arg(long, env = "ANYSERVE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, env = "ANYSERVE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Authorities of clients' certificates in PEM; clients without one are refused
    #[arg(long, env = "ANYSERVE_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
}

// === impl Options ===

impl Options {
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
            target: self.target.or(file.target),
            factory: self.factory.or(file.factory),
            host: self.host.or(file.host),
            port: self.port.or(file.port),
            workers: self.workers.or(file.workers),
            resources: self.resources.or(file.resources),
            gpus: self.gpus.or(file.gpus),
            fork: self.fork.or(file.fork),
            min_residency_s: self.min_residency_s.or(file.min_residency_s),
            starvation_s: self.starvation_s.or(file.starvation_s),
            reload: self.reload.or(file.reload),
            log_level: self.log_level.or(file.log_level),
            grace_s: self.grace_s.or(file.grace_s),
            config: self.config,
            python: self.python.or(file.python),
            max_message_mb: self.max_message_mb.or(file.max_message_mb),
            max_queue: self.max_queue.or(file.max_queue),
            object_store: self.object_store.or(file.object_store),
            object_threshold: self.object_threshold.or(file.object_threshold),
            start_timeout_s: self.start_timeout_s.or(file.start_timeout_s),
            ping_timeout_s: self.ping_timeout_s.or(file.ping_timeout_s),
            overrun_grace_s: self.overrun_grace_s.or(file.overrun_grace_s),
            quarantine_ttl_s: self.quarantine_ttl_s.or(file.quarantine_ttl_s),
            sequence_idle_s: self.sequence_idle_s.or(file.sequence_idle_s),
            tenant_weight: self.tenant_weight.or(file.tenant_weight),
            admin_token: self.admin_token.or(file.admin_token),
            object_peer: self.object_peer.or(file.object_peer),
            object_spill: self.object_spill.or(file.object_spill),
            api_server: self.api_server.or(file.api_server),
            replica_id: self.replica_id.or(file.replica_id),
            advertise: self.advertise.or(file.advertise),
            cluster_token: self.cluster_token.or(file.cluster_token),
            api_server_ca: self.api_server_ca.or(file.api_server_ca),
            api_server_cert: self.api_server_cert.or(file.api_server_cert),
            api_server_key: self.api_server_key.or(file.api_server_key),
            threads: self.threads.or(file.threads),
            server_id: self.server_id.or(file.server_id),
            client_shm: self.client_shm.or(file.client_shm),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
        }
    }
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AdminToken>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(text.into()))
}

fn read(path: &Path) -> Result<Options> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration file {} cannot be read", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, flags: Options) -> Result<Options> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anyserve.toml");
        std::fs::write(&path, text).unwrap();
        Options { config: Some(path), ..flags }.with_file()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_nothing() {
        let flags = Options { port: Some(1), ..Options::default() };
        let options = with_file("port = 2\nworkers = 3\ngrace_s = 0.5", flags).unwrap();
        assert_eq!((options.port, options.workers, options.grace_s), (Some(1), Some(3), Some(0.5)));
    }

    #[test]
    fn weights_are_a_list_or_a_table_and_a_token_is_shown_nowhere() {
        let weights = Some(vec!["a=3".to_owned(), "b=2".to_owned()]);
        for text in [r#"tenant_weight = ["a=3", "b=2"]"#, "[tenant_weight]\na = 3\nb = 2"] {
            assert_eq!(with_file(text, Options::default()).unwrap().tenant_weight, weights, "{text}");
        }
        let error = format!("{:#}", with_file("tenant_weight = 3", Options::default()).unwrap_err());
        assert!(error.contains(r#"a list such as ["gold=3"]"#) && error.contains("line 1"), "{error}");
        for name in ["admin_token", "cluster_token"] {
            let options = with_file(&format!(r#"{name} = "secret""#), Options::default()).unwrap();
            let known = options.admin_token.is_some() || options.cluster_token.is_some();
            assert!(known && !format!("{options:?}").contains("secret"));
        }
    }

    #[test]
    fn an_option_that_there_is_not_is_named_with_its_line() {
        let error = format!("{:#}", with_file("port = 1\nprot = 2", Options::default()).unwrap_err());
        assert!(error.contains("prot") && error.contains("line 2"), "{error}");
    }
}
