//! What is done: every option checked, every default filled in.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use anyserve_core::{Limits, Resources};
use anyserve_server::{ServerConfig, TlsFiles};
use anyserve_worker::{PoolConfig, PoolPolicy, SharedMemory, WorkerEvent};

use crate::fleet::FleetSettings;
use crate::objects::ObjectSettings;
use crate::store::{self, StoreOptions};
use crate::{Options, resources, weights};

/// A replica's settings.
#[allow(clippy::struct_excessive_bools)] // Each is an option.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Worker processes.
    pub workers: u32,
    /// Threads of the async runtime.
    pub threads: usize,
    /// Directives for the log.
    pub log_level: String,
    /// Time for requests in flight to finish.
    pub grace: Duration,
    /// The ingress.
    pub server: ServerConfig,
    /// Whether clients may share memory.
    pub client_shm: bool,
    /// Where objects are that are not here.
    pub objects: ObjectSettings,
    /// The API servers, and who this replica is to them.
    pub fleet: FleetSettings,
    /// Whether the app is loaded again when its files change.
    pub reload: bool,
    python: PathBuf,
    target: String,
    factory: bool,
    fork: bool,
    resources: Resources,
    policy: PoolPolicy,
    start_timeout: Duration,
    ping_timeout: Duration,
    scheduling: Scheduling,
    pub(crate) store: StoreOptions,
}

/// What the dispatcher is told.
#[derive(Clone, Debug)]
struct Scheduling {
    overrun_grace: Duration,
    quarantine_ttl: Duration,
    sequence_idle: Duration,
    tenant_weights: Vec<(String, u32)>,
}

/// More workers than this are a typing error.
const MAX_WORKERS: u32 = 1024;
/// Longest time that can be given, in seconds: a week.
const MAX_SECONDS: f64 = 604_800.0;

// === impl Settings ===

impl Settings {
    /// Checks options and fills in what they leave open.
    ///
    /// # Errors
    /// What is wrong and how to mend it, for the person who gave them.
    pub fn try_new(options: Options) -> Result<Self> {
        let options = options.with_file()?;
        let target = options
            .target
            .clone()
            .context("nothing to serve: name a target, for example `anyserve serve examples.basic.app:app`")?;
        let workers = options.workers.unwrap_or(1);
        ensure!((1..=MAX_WORKERS).contains(&workers), "--workers is {workers}, it takes 1 to {MAX_WORKERS}");
        let grace = seconds("--grace-s", options.grace_s, 30.0)?;
        Ok(Self {
            address: address(options.host.as_deref().unwrap_or("127.0.0.1"), options.port.unwrap_or(8000))?,
            workers,
            threads: options.threads.map_or_else(|| Ok(half_the_cores()), threads)?,
            log_level: log_level(options.log_level.as_deref().unwrap_or("info"))?,
            grace,
            server: server(&options, grace)?,
            client_shm: options.client_shm.unwrap_or(false),
            objects: ObjectSettings::try_new(&options)?,
            fleet: FleetSettings::try_new(&options)?,
            scheduling: scheduling(&options)?,
            store: store::parse(options.object_store.as_deref(), options.object_threshold.as_deref())?,
            python: options.python.unwrap_or_else(|| "python3".into()),
            target,
            factory: options.factory.unwrap_or(false),
            fork: options.fork.unwrap_or(true),
            reload: options.reload.unwrap_or(false),
            resources: resources::parse(options.resources.as_deref().unwrap_or_default(), options.gpus.as_deref())?,
            policy: policy(options.min_residency_s, options.starvation_s)?,
            start_timeout: seconds("--start-timeout-s", options.start_timeout_s, 600.0)?,
            ping_timeout: seconds("--ping-timeout-s", options.ping_timeout_s, 10.0)?.max(Duration::from_millis(100)),
        })
    }

    /// The pool's part of the settings.
    pub fn pool(&self, memory: SharedMemory, on_event: impl Fn(WorkerEvent) + Send + Sync + 'static) -> PoolConfig {
        let mut target: Vec<OsString> = ["--target", &self.target].map(Into::into).into();
        target.extend(self.factory.then(|| "--factory".into()));
        PoolConfig {
            program: self.python.clone(),
            target,
            fork: self.fork,
            environment: vec![("PYTHONUNBUFFERED".into(), "1".into())],
            workers: self.workers,
            resources: self.resources.clone(),
            policy: self.policy,
            grace: self.grace,
            limits: self.server.limits,
            start_timeout: self.start_timeout,
            ping_timeout: self.ping_timeout,
            overrun_grace: self.scheduling.overrun_grace,
            quarantine_ttl: self.scheduling.quarantine_ttl,
            sequence_idle: self.scheduling.sequence_idle,
            tenant_weights: self.scheduling.tenant_weights.clone(),
            memory,
            uplink: None,
            debug: matches!(self.log_level.as_str(), "debug" | "trace"),
            on_event: Arc::new(on_event),
        }
    }
}

fn server(options: &Options, grace: Duration) -> Result<ServerConfig> {
    let defaults = ServerConfig::default();
    let mut limits = limits(options.max_message_mb)?;
    if let Some(len) = options.max_queue {
        ensure!(len > 0, "--max-queue is 0: nothing could ever wait; it takes at least 1");
        limits.max_queue = usize::try_from(len)?;
    }
    let server_id = options.server_id.clone().unwrap_or(defaults.server_id);
    let admin_token = options.admin_token.clone();
    if let Some(token) = &admin_token {
        token.check().context("--admin-token")?;
    }
    let tls = tls(options.tls_cert.clone(), options.tls_key.clone(), options.tls_client_ca.clone())?;
    Ok(ServerConfig { limits, server_id, tls, admin_token, grace, ..ServerConfig::default() })
}

/// The limits with `--max-message-mb`.
pub(crate) fn limits(max_message_mb: Option<u32>) -> Result<Limits> {
    let mut limits = Limits::default();
    if let Some(mb) = max_message_mb {
        ensure!((1..=16_384).contains(&mb), "--max-message-mb is {mb}, it takes 1 to 16384");
        limits.max_message = usize::try_from(u64::from(mb) << 20)?;
    }
    Ok(limits)
}

fn policy(min_residency: Option<f64>, starvation: Option<f64>) -> Result<PoolPolicy> {
    let default = PoolPolicy::default();
    let min_residency = seconds("--min-residency-s", min_residency, default.min_residency.as_secs_f64())?;
    let starvation = seconds("--starvation-s", starvation, default.starvation.as_secs_f64())?;
    Ok(PoolPolicy { min_residency, starvation, ..default })
}

fn scheduling(options: &Options) -> Result<Scheduling> {
    let sequence_idle = seconds("--sequence-idle-s", options.sequence_idle_s, 60.0)?;
    ensure!(!sequence_idle.is_zero(), "--sequence-idle-s is 0: every sequence would be over at once; it takes more");
    Ok(Scheduling {
        overrun_grace: seconds("--overrun-grace-s", options.overrun_grace_s, 5.0)?,
        quarantine_ttl: seconds("--quarantine-ttl-s", options.quarantine_ttl_s, 600.0)?,
        sequence_idle,
        tenant_weights: weights::parse(options.tenant_weight.as_deref().unwrap_or_default())?,
    })
}

/// The files of `--tls-cert`, `--tls-key` and `--tls-client-ca`.
pub(crate) fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>> {
    match (certificate, key, client_ca) {
        (Some(certificate), Some(key), client_ca) => Ok(Some(TlsFiles { certificate, key, client_ca })),
        (None, None, None) => Ok(None),
        (None, None, Some(_)) => bail!("--tls-client-ca needs --tls-cert and --tls-key too"),
        (Some(_), None, _) => bail!("--tls-cert needs --tls-key too"),
        (None, Some(_), _) => bail!("--tls-key needs --tls-cert too"),
    }
}

pub(crate) fn address(host: &str, port: u16) -> Result<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found = (bare, port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.with_context(|| {
        format!("--host '{host}' is no address of this machine: use 127.0.0.1 or 0.0.0.0, for example")
    })
}

pub(crate) fn seconds(flag: &str, given: Option<f64>, default: f64) -> Result<Duration> {
    let seconds = given.unwrap_or(default);
    ensure!((0.0..=MAX_SECONDS).contains(&seconds), "{flag} is {seconds}, it takes 0 to {MAX_SECONDS} seconds");
    Ok(Duration::from_secs_f64(seconds))
}

/// The other half is the workers'.
fn half_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

pub(crate) fn threads(threads: u32) -> Result<usize> {
    ensure!((1..=256).contains(&threads), "--threads is {threads}, it takes 1 to 256");
    Ok(usize::try_from(threads)?)
}

pub(crate) fn log_level(level: &str) -> Result<String> {
    let known = ["error", "warn", "info", "debug", "trace"];
    ensure!(known.contains(&level), "--log-level is '{level}', it takes one of {}", known.join(", "));
    Ok(level.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: Options) -> String {
        let options = Options { target: Some("m:app".into()), ..options };
        format!("{:#}", Settings::try_new(options).unwrap_err())
    }

    #[test]
    fn defaults_are_loopback_and_one_worker() {
        let settings = Settings::try_new(Options { target: Some("m:app".into()), ..Options::default() }).unwrap();
        assert_eq!((settings.address.to_string().as_str(), settings.workers), ("127.0.0.1:8000", 1));
        let pool = settings.pool(SharedMemory::default(), |_| {});
        assert_eq!((pool.target, pool.fork), (vec!["--target".into(), "m:app".into()], true));
        let times = [pool.overrun_grace, pool.quarantine_ttl, pool.sequence_idle].map(|time| time.as_secs());
        assert_eq!((times, pool.tenant_weights), ([5, 600, 60], Vec::new()));
        assert_eq!((settings.server.admin_token, settings.client_shm), (None, false));
    }

    #[test]
    fn shares_of_tenants_reach_the_pool() {
        let tenant_weight = Some(vec!["a=3,b=2".into()]);
        let options = Options { target: Some("m:app".into()), tenant_weight, ..Options::default() };
        let weights = Settings::try_new(options).unwrap().pool(SharedMemory::default(), |_| {}).tenant_weights;
        assert_eq!(weights, [("a".to_owned(), 3), ("b".to_owned(), 2)]);
    }

    #[test]
    fn every_value_out_of_range_is_named_with_its_range() {
        let none = Options::default;
        for (options, part) in vec![
            (Options { workers: Some(0), ..none() }, "--workers is 0"),
            (Options { resources: Some(vec!["a".into()]), ..none() }, "--resources 'a'"),
            (Options { gpus: Some("0,".into()), ..none() }, "--gpus '0,'"),
            (Options { min_residency_s: Some(-1.0), ..none() }, "--min-residency-s is -1"),
            (Options { starvation_s: Some(1e9), ..none() }, "--starvation-s is 1000000000"),
            (Options { grace_s: Some(-1.0), ..none() }, "--grace-s is -1"),
            (Options { grace_s: Some(f64::NAN), ..none() }, "--grace-s is NaN"),
            (Options { max_message_mb: Some(0), ..none() }, "--max-message-mb is 0"),
            (Options { max_queue: Some(0), ..none() }, "--max-queue is 0"),
            (Options { threads: Some(0), ..none() }, "--threads is 0"),
            (Options { overrun_grace_s: Some(-1.0), ..none() }, "--overrun-grace-s is -1"),
            (Options { quarantine_ttl_s: Some(1e9), ..none() }, "--quarantine-ttl-s is 1000000000"),
            (Options { sequence_idle_s: Some(0.0), ..none() }, "--sequence-idle-s is 0"),
            (Options { tenant_weight: Some(vec!["a".into()]), ..none() }, "--tenant-weight 'a' has no weight"),
            (Options { admin_token: Some("a b".to_owned().into()), ..none() }, "--admin-token: a token is one word"),
            (Options { object_store: Some("much".into()), ..none() }, "--object-store is 'much'"),
            (Options { object_threshold: Some("-1".into()), ..none() }, "--object-threshold is '-1'"),
            (Options { object_peer: Some(vec!["a:1,b".into()]), ..none() }, "--object-peer: endpoint 'b' has no port"),
            (Options { object_spill: Some(String::new()), ..none() }, "--object-spill is empty"),
            (Options { log_level: Some("loud".into()), ..none() }, "--log-level is 'loud'"),
            (Options { tls_key: Some("k".into()), ..none() }, "--tls-key needs --tls-cert"),
            (Options { tls_client_ca: Some("c".into()), ..none() }, "--tls-client-ca needs"),
            (Options { host: Some("no such host".into()), ..none() }, "--host 'no such host'"),
        ] {
            let message = refused(options);
            assert!(message.contains(part), "{message}");
        }
        let nothing = format!("{:#}", Settings::try_new(none()).unwrap_err());
        assert!(nothing.contains("nothing to serve"), "{nothing}");
    }
}
