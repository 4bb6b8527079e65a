//! One replica in the registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::holders::{Candidate, Place, Standing};
use crate::{Health, Load};

/// What is known of a replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: Arc<str>,
    pub(crate) endpoint: Arc<str>,
    pub(crate) epoch: u64,
    /// Unique among all starts of all replicas.
    pub(crate) life: u64,
    /// The newest message.
    pub(crate) seq: u64,
    /// The message that the offers are of.
    pub(crate) announced: u64,
    pub(crate) lease_until: Instant,
    pub(crate) draining: bool,
    pub(crate) health: Health,
    /// Why it could not be reached last, while it is not up.
    pub(crate) trouble: Option<Arc<str>>,
    /// Another API server hears it.
    pub(crate) adopted: bool,
    /// Of the id.
    pub(crate) hash: u64,
    pub(crate) offers: Vec<Held>,
    /// Its place among all that are up, if it is.
    pub(crate) up_at: Option<usize>,
    /// The number of its upgrade rules, if it has any.
    pub(crate) book: Option<u32>,
    /// Its place among those with the same rules that are up, if it is.
    pub(crate) book_at: Option<usize>,
}

/// One of its capabilities.
#[derive(Debug)]
pub(crate) struct Held {
    /// Of the capability.
    pub(crate) number: u32,
    pub(crate) idempotent: bool,
    pub(crate) slots: u32,
    pub(crate) load: Load,
    /// The replica itself denied it: it counts again with the next announcement.
    pub(crate) denied: bool,
    pub(crate) place: Option<Place>,
}

// === impl Replica ===

impl Replica {
    /// Where one of its offers belongs; `None` if requests must not go there.
    pub(crate) fn standing(&self, offer: &Held) -> Option<Standing> {
        match (self.draining || offer.denied, self.health.is_up()) {
            (true, _) => None,
            (false, false) => Some(Standing::Ejected),
            (false, true) if !offer.load.ready => Some(Standing::Cold),
            (false, true) if offer.load.saturated => Some(Standing::Saturated),
            (false, true) => Some(Standing::Ready),
        }
    }

    /// Whether any request may go to it.
    pub(crate) fn is_open(&self) -> bool {
        !self.draining && self.health.is_up()
    }

    /// Requests that wait or run, as last told.
    pub(crate) fn pending(&self) -> u64 {
        self.offers.iter().map(|offer| u64::from(offer.load.pending)).sum()
    }
}

// === impl Held ===

impl Held {
    pub(crate) fn candidate(&self, hash: u64, slot: u32, offer: u32) -> Candidate {
        let Load { pending, wait, .. } = self.load;
        Candidate { hash, pending, slots: self.slots, wait, step: self.step(), slot, offer }
    }

    /// What one more request adds to the wait.
    pub(crate) fn step(&self) -> Duration {
        self.load.service / self.slots
    }
}
