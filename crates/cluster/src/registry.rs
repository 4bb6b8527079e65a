//! The replicas of a fleet: who is there, what each serves, and how fit each is to be sent requests.
//!
//! ```text
//!            announce                 lease over, leave
//!  unknown ───────────► registered ─────────────────────► retired (its epoch is remembered)
//!                        │  ▲ heartbeat, announce: the lease begins anew        │
//!                        └──┘                  announce of the same epoch after │ a lease that was over,
//!                           ◄──────────────────  or of a later one  ────────────┘
//! ```
//!
//! Health ([`Health`](crate::Health)) goes beside it: what replicas say renews leases, what connections do ejects. It is
//! deterministic: the same events at the same instants give the same answers.

mod adopt;
mod choose;
mod fit;
mod hear;
mod lead;
mod look;
mod nobody;
mod open;
mod stand;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::RegistryConfig;
use crate::holders::Holders;
use crate::index::{CapabilityIndex, wide};
use crate::replica::Replica;
use crate::retired::Retired;
use crate::rules::Rules;

pub(crate) use choose::Pick;
pub use look::{CapabilityView, OfferView, ReplicaView, Resolved};

/// The replicas of a fleet.
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
    slots: HashMap<Arc<str>, u32>,
    replicas: Slab<Replica>,
    leases: BTreeSet<(Instant, u32)>,
    /// When something is to be done about somebody's health.
    dues: BTreeSet<(Instant, u32)>,
    /// Those that any request may go to.
    up: Vec<u32>,
    retired: Retired,
    index: CapabilityIndex,
    holders: Holders,
    rules: Rules,
    lives: u64,
    turns: u64,
    counts: Counts,
}

/// How often something has happened in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Announcements that were written down.
    pub announced: u64,
    /// Heartbeats that were written down.
    pub heartbeats: u64,
    /// Replicas that said that they go.
    pub left: u64,
    /// Replicas whose leases were over.
    pub expired: u64,
    /// Replicas that were ejected, each time anew.
    pub ejected: u64,
}

/// One start of one replica. It means nothing any more once the replica is gone or was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    slot: u32,
    life: u64,
}

// === impl Registry ===

impl Registry {
    /// An empty one.
    pub fn new(config: RegistryConfig) -> Self {
        Self {
            config,
            slots: HashMap::new(),
            replicas: Slab::new(),
            leases: BTreeSet::new(),
            dues: BTreeSet::new(),
            up: Vec::new(),
            retired: Retired::default(),
            index: CapabilityIndex::default(),
            holders: Holders::default(),
            rules: Rules::default(),
            lives: 0,
            turns: 0,
            counts: Counts::default(),
        }
    }

    /// When [`expire`](Self::expire) or [`probes`](Self::probes) have something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, u32)>| set.first().map(|(due, _)| *due);
        first(&self.leases).into_iter().chain(first(&self.dues)).min()
    }

    /// Whether this start of a replica is registered.
    pub fn knows(&self, handle: Handle) -> bool {
        self.get(handle).is_some()
    }

    /// Whether there is a replica that any request may go to: it is not leaving, and nothing speaks against it.
    pub fn is_ready(&self) -> bool {
        !self.up.is_empty()
    }

    /// How many replicas are registered.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// How often something has happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The numbers that it goes by.
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// The different capabilities that are registered.
    pub fn capabilities(&self) -> &CapabilityIndex {
        &self.index
    }

    fn get(&self, handle: Handle) -> Option<&Replica> {
        self.replicas.get(wide(handle.slot)).filter(|replica| replica.life == handle.life)
    }

    fn handle(&self, slot: u32) -> Handle {
        Handle { slot, life: self.replicas[wide(slot)].life }
    }
}
