//! What is done by an API server: every option checked, every default filled in.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use anyserve_cluster::RegistryConfig;
use anyserve_cluster::policy::{BinPacking, LeastWait, Policy, PrefixAffinity, RoundRobin, Sticky};
use anyserve_gateway::store::StoreConfig;
use anyserve_gateway::{GatewayConfig, ProxyConfig, ReplicasConfig};
use anyserve_server::{AdminToken, ServerConfig};

use super::ApiServerOptions;
use super::threads::as_many_as_cores;
use crate::client_tls::{ClientFiles, ClientTls};
use crate::settings::{address, limits, log_level, seconds, threads, tls};

/// An API server's settings.
#[derive(Debug)]
pub(crate) struct ApiServerSettings {
    pub(crate) address: SocketAddr,
    /// Threads that carry requests.
    pub(crate) threads: usize,
    pub(crate) log_level: String,
    pub(crate) registry: RegistryConfig,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) store: StoreConfig,
    /// The port.
    pub(crate) server: ServerConfig,
    /// What answers on it.
    pub(crate) gateway: GatewayConfig,
    /// How to talk TLS with replicas.
    pub(crate) replica_tls: ClientTls,
    /// How to talk TLS with the store.
    pub(crate) store_tls: ClientTls,
}

// === impl ApiServerSettings ===

impl ApiServerSettings {
    /// Checks options and fills in what they leave open.
    ///
    /// # Errors
    /// What is wrong and how to mend it, for the person who gave them.
    pub(crate) fn try_new(options: ApiServerOptions) -> Result<Self> {
        let options = options.with_file()?;
        let (replica_tls, store_tls) = (replica_tls(&options)?, store_tls(&options)?);
        Ok(Self {
            address: address(options.host.as_deref().unwrap_or("127.0.0.1"), options.port.unwrap_or(8080))?,
            threads: options.threads.map_or_else(|| Ok(as_many_as_cores()), threads)?,
            log_level: log_level(options.log_level.as_deref().unwrap_or("info"))?,
            registry: registry(&options)?,
            policy: policy(options.policy.as_deref().unwrap_or("least-wait"))?,
            store: store(&options, &store_tls)?,
            server: server(&options)?,
            gateway: gateway(&options, &replica_tls)?,
            replica_tls,
            store_tls,
        })
    }
}

fn registry(options: &ApiServerOptions) -> Result<RegistryConfig> {
    let default = RegistryConfig::default();
    let heartbeat = seconds("--heartbeat-s", options.heartbeat_s, default.heartbeat.as_secs_f64())?;
    let lease = seconds("--lease-s", options.lease_s, default.lease.as_secs_f64())?;
    ensure!(
        heartbeat >= Duration::from_millis(10),
        "--heartbeat-s is {}, it takes at least 0.01",
        heartbeat.as_secs_f64()
    );
    ensure!(
        lease >= heartbeat * 2,
        "--lease-s is {} and --heartbeat-s is {}: a lease lasts at least two heartbeats, so that one may be lost",
        lease.as_secs_f64(),
        heartbeat.as_secs_f64()
    );
    Ok(RegistryConfig { heartbeat, lease, ..default })
}

fn policy(name: &str) -> Result<Box<dyn Policy>> {
    let known: [Box<dyn Policy>; 5] = [
        Box::new(LeastWait),
        Box::new(BinPacking),
        Box::new(Sticky),
        Box::<PrefixAffinity>::default(),
        Box::new(RoundRobin),
    ];
    let names = known.iter().map(|policy| policy.name()).collect::<Vec<_>>().join(", ");
    let found = known.into_iter().find(|policy| policy.name() == name);
    found.with_context(|| format!("--policy is '{name}', it takes one of {names}"))
}

fn store(options: &ApiServerOptions, tls: &ClientTls) -> Result<StoreConfig> {
    let mut store = options.store.as_deref().unwrap_or("memory").parse().context("--store")?;
    match &mut store {
        StoreConfig::Etcd(etcd) => {
            let use_of = tls.files().is_empty() || etcd.is_secure();
            ensure!(
                use_of,
                "--store speaks no TLS, so --store-ca, --store-cert and --store-key have no use: write etcd+https://"
            );
            etcd.tls = tls.tls().clone();
        }
        StoreConfig::Memory => ensure!(
            tls.files().is_empty(),
            "--store is memory, and --store-ca, --store-cert and --store-key are for etcd"
        ),
    }
    Ok(store)
}

fn store_tls(options: &ApiServerOptions) -> Result<ClientTls> {
    let (ca, certificate, key) = (options.store_ca.clone(), options.store_cert.clone(), options.store_key.clone());
    ClientFiles { ca, certificate, key }.read("--store")
}

fn replica_tls(options: &ApiServerOptions) -> Result<ClientTls> {
    let (ca, certificate) = (options.replica_ca.clone(), options.replica_cert.clone());
    ClientFiles { ca, certificate, key: options.replica_key.clone() }.read("--replica")
}

fn server(options: &ApiServerOptions) -> Result<ServerConfig> {
    let tls = tls(options.tls_cert.clone(), options.tls_key.clone(), options.tls_client_ca.clone())?;
    let grace = seconds("--grace-s", options.grace_s, 30.0)?;
    Ok(ServerConfig { limits: limits(options.max_message_mb)?, tls, grace, ..ServerConfig::default() })
}

fn gateway(options: &ApiServerOptions, tls: &ClientTls) -> Result<GatewayConfig> {
    let cluster_token = options.cluster_token.clone();
    cluster_token.as_ref().map(AdminToken::check).transpose().context("--cluster-token")?;
    let default = ProxyConfig::default();
    let proxy = ProxyConfig {
        limits: limits(options.max_message_mb)?,
        server_id: options.server_id.clone().unwrap_or_else(|| default.server_id.clone()),
        replicas: ReplicasConfig { tls: tls.tls().clone(), ..ReplicasConfig::default() },
        ..default
    };
    Ok(GatewayConfig { proxy, cluster_token, ..GatewayConfig::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> ApiServerOptions {
        ApiServerOptions::default()
    }

    #[test]
    fn defaults_are_loopback_and_memory() {
        let settings = ApiServerSettings::try_new(none()).unwrap();
        let (store, policy) = (settings.store.name(), settings.policy.name());
        assert_eq!((settings.address.to_string().as_str(), store, policy), ("127.0.0.1:8080", "memory", "least-wait"));
        assert_eq!((settings.registry, settings.gateway.cluster_token), (RegistryConfig::default(), None));
    }

    #[test]
    fn certificates_for_a_store_are_for_one_that_speaks_tls() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        std::fs::write(&ca, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
        let of = |store: &str| ApiServerOptions { store: Some(store.into()), store_ca: Some(ca.clone()), ..none() };
        assert!(ApiServerSettings::try_new(of("etcd+https://h")).is_ok());
        for (store, part) in [("etcd://h", "write etcd+https://"), ("memory", "are for etcd")] {
            let message = format!("{:#}", ApiServerSettings::try_new(of(store)).unwrap_err());
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn every_policy_is_found_by_its_name() {
        for name in ["least-wait", "bin-packing", "sticky", "prefix", "round-robin"] {
            assert_eq!(policy(name).unwrap().name(), name);
        }
    }

    #[test]
    fn a_lease_lasts_two_heartbeats_at_least() {
        let leases = |lease_s| ApiServerOptions { lease_s: Some(lease_s), heartbeat_s: Some(1.5), ..none() };
        let fit = [2.999, 3.0, 3.001].map(|lease| ApiServerSettings::try_new(leases(lease)).is_ok());
        assert_eq!(fit, [false, true, true]);
    }

    #[test]
    fn every_value_out_of_range_is_named_with_its_range() {
        for (options, part) in [
            (ApiServerOptions { store: Some("redis://x".into()), ..none() }, "--store: a store is memory, or etcd://"),
            (ApiServerOptions { store_ca: Some("x".into()), ..none() }, "--store-ca: x cannot be read"),
            (ApiServerOptions { store_key: Some("k".into()), ..none() }, "--store-key needs --store-cert too"),
            (
                ApiServerOptions { policy: Some("best".into()), ..none() },
                "--policy is 'best', it takes one of least-wait",
            ),
            (ApiServerOptions { cluster_token: Some("a b".to_owned().into()), ..none() }, "--cluster-token: a token"),
            (ApiServerOptions { lease_s: Some(-1.0), ..none() }, "--lease-s is -1"),
            (ApiServerOptions { heartbeat_s: Some(0.0), ..none() }, "--heartbeat-s is 0"),
            (ApiServerOptions { grace_s: Some(-1.0), ..none() }, "--grace-s is -1"),
            (ApiServerOptions { max_message_mb: Some(0), ..none() }, "--max-message-mb is 0"),
            (ApiServerOptions { log_level: Some("loud".into()), ..none() }, "--log-level is 'loud'"),
            (ApiServerOptions { threads: Some(0), ..none() }, "--threads is 0"),
            (ApiServerOptions { tls_key: Some("k".into()), ..none() }, "--tls-key needs --tls-cert"),
            (ApiServerOptions { replica_ca: Some("nothing".into()), ..none() }, "--replica-ca: nothing cannot be read"),
            (ApiServerOptions { replica_key: Some("k".into()), ..none() }, "--replica-key needs --replica-cert too"),
            (
                ApiServerOptions { replica_cert: Some("c".into()), replica_key: Some("k".into()), ..none() },
                "--replica-cert: c cannot be read",
            ),
            (ApiServerOptions { host: Some("no such host".into()), ..none() }, "--host 'no such host'"),
        ] {
            let message = format!("{:#}", ApiServerSettings::try_new(options).unwrap_err());
            assert!(message.contains(part), "{message}");
        }
    }
}
