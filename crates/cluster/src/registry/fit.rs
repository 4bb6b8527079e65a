//! How fit replicas are: what connections and probes have shown of them.

use std::time::Instant;

use super::{Handle, Registry, ReplicaView};
use crate::health::Health;
use crate::index::wide;

/// Characters that are kept of why a replica cannot be reached.
const MAX_TROUBLE: usize = 200;

// === impl Registry ===

impl Registry {
    /// A connection to a replica failed: no request goes there without need, whatever its lease says.
    pub fn eject(&mut self, handle: Handle, now: Instant) {
        let Some(replica) = self.get(handle) else { return };
        let (before, after) = (replica.health, replica.health.eject(now, &self.config));
        self.set_health(handle.slot, after);
        self.counts.ejected += u64::from(before.is_up());
    }

    /// The replicas that are to be probed now, one probe each, and no more than `max`; those that are left over stay
    /// due. The shell asks whether the replica is live, and says so with [`probed`](Self::probed).
    pub fn probes(&mut self, max: usize, now: Instant) -> Vec<ReplicaView> {
        let mut probes = Vec::new();
        while let Some((_, slot)) = self.dues.first().copied().filter(|(due, _)| *due <= now && probes.len() < max) {
            let (health, probe) = self.replicas[wide(slot)].health.turn(now, &self.config);
            self.set_health(slot, health);
            probes.extend(probe.then(|| self.view_of(slot)));
        }
        probes
    }

    /// A probe ended.
    pub fn probed(&mut self, handle: Handle, good: bool, now: Instant) {
        let Some(replica) = self.get(handle) else { return };
        self.set_health(handle.slot, replica.health.probed(good, now, &self.config));
    }

    /// Why a replica cannot be reached, for whoever operates it. It is forgotten once the replica is up.
    pub fn blame(&mut self, handle: Handle, why: &str) {
        if self.get(handle).is_some_and(|replica| !replica.health.is_up()) {
            let end = why.char_indices().nth(MAX_TROUBLE).map_or(why.len(), |(end, _)| end);
            self.replicas[wide(handle.slot)].trouble = Some(why[..end].into());
        }
    }

    pub(super) fn set_health(&mut self, slot: u32, health: Health) {
        let known = &mut self.replicas[wide(slot)];
        let before = std::mem::replace(&mut known.health, health);
        if health.is_up() {
            known.trouble = None;
        }
        before.due().map(|due| self.dues.remove(&(due, slot)));
        health.due().map(|due| self.dues.insert((due, slot)));
        if before.is_up() != health.is_up() {
            self.stand(slot);
        }
    }
}
