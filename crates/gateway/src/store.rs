//! What several API servers share: each writes what it hears, and reads what the others write.
//!
//! No request ever waits for it. What is heard is noted and written later; a store that is gone is tried again.

mod config;
mod entry;
mod etcd;
mod mirror;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::{Announce, Heartbeat, RegistryConfig};

use crate::Fleet;

pub use config::{EtcdConfig, StoreConfig, StoreError};

/// What a replica said here, and the registry wrote down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said<'a> {
    /// Who it is and what it serves.
    Announced(&'a Announce),
    /// That it is there, and how busy it is.
    Beat(&'a Heartbeat),
    /// That it goes.
    Left {
        /// Its name.
        id: &'a str,
        /// The start of it that goes.
        epoch: u64,
    },
}

/// Whether others see what is heard here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// There are no others.
    Memory,
    /// They do.
    Connected,
    /// Not now.
    Disconnected,
}

/// Where API servers share what they hear.
pub trait Store: fmt::Debug + Send + Sync {
    /// A replica said something here. It returns at once; false if others cannot be told, because what the replica
    /// announced is not known here.
    fn heard(&self, said: Said<'_>) -> bool;

    /// Whether others see it.
    fn state(&self) -> StoreState;
}

/// What has to be run for a store, for as long as the API server runs.
#[derive(Debug)]
pub struct Driver(Option<etcd::Driver>);

/// The store of this configuration, and what runs it. Nothing is connected yet.
pub fn open(config: StoreConfig, registry: &RegistryConfig) -> (Arc<dyn Store>, Driver) {
    match config {
        StoreConfig::Memory => (Arc::new(Memory), Driver(None)),
        StoreConfig::Etcd(config) => {
            let (store, driver) = etcd::open(config, registry, Instant::now());
            (store, Driver(Some(driver)))
        }
    }
}

/// No store: this is the only API server.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

// === impl StoreState ===

impl StoreState {
    /// As pages spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

// === impl Driver ===

impl Driver {
    /// Writes what is heard and reads what the others write, for as long as it is polled: it never ends.
    ///
    /// # Cancel safety
    /// Dropping it ends everything that is under way. What the store knows ends with its leases there.
    pub async fn run(self, fleet: Arc<Fleet>) {
        match self.0 {
            Some(driver) => driver.run(fleet).await,
            None => std::future::pending().await,
        }
    }
}

// === impl Memory ===

impl Store for Memory {
    fn heard(&self, _: Said<'_>) -> bool {
        true
    }

    fn state(&self) -> StoreState {
        StoreState::Memory
    }
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
