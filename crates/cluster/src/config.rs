//! The numbers that a registry goes by.

use std::time::Duration;

use anyserve_core::MAX_UPGRADES;

/// How long things last in a registry, and how much it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Time between two heartbeats of a replica.
    pub heartbeat: Duration,
    /// Time after its last message for which a replica is believed to be there.
    pub lease: Duration,
    /// Time for which a replica is ejected the first time. Every probe without success doubles it.
    pub first_ejection: Duration,
    /// The longest time between two probes.
    pub longest_ejection: Duration,
    /// Time after which a probe without an answer has failed.
    pub probe_timeout: Duration,
    /// Time for which the epoch of a replica that is gone is remembered.
    pub remember: Duration,
    /// What replicas may ask for.
    pub limits: RegistryLimits,
}

/// Upper bounds of everything that a replica decides the size of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Replicas, and epochs of those that are gone.
    pub max_replicas: usize,
    /// Capabilities of one replica.
    pub max_capabilities: usize,
    /// Keys of one capability.
    pub max_keys: usize,
    /// Bytes of an id, an endpoint, a key or a value.
    pub max_text: usize,
    /// Upgrade rules of one replica.
    pub max_upgrades: usize,
    /// Bytes of an upgrade rule as a text.
    pub max_upgrade: usize,
}

// === impl RegistryConfig ===

impl Default for RegistryConfig {
    /// A heartbeat every second, leases of 5 s, ejections from 500 ms to 30 s, probes of 1 s, epochs for 10 minutes.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            first_ejection: Duration::from_millis(500),
            longest_ejection: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(1),
            remember: Duration::from_mins(10),
            limits: RegistryLimits::default(),
        }
    }
}

// === impl RegistryLimits ===

impl Default for RegistryLimits {
    /// 20 000 replicas with 256 capabilities of 64 keys each, texts of 256 bytes, and 64 rules of 1024 bytes.
    fn default() -> Self {
        let (max_upgrades, max_upgrade) = (MAX_UPGRADES, 1024);
        Self { max_replicas: 20_000, max_capabilities: 256, max_keys: 64, max_text: 256, max_upgrades, max_upgrade }
    }
}
