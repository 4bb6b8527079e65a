//! Replicas that another API server hears of.

use std::time::Instant;

use super::Registry;
use crate::index::wide;
use crate::{Announce, Answer, Heartbeat, MessageError};

// === impl Registry ===

impl Registry {
    /// Takes over what another API server knows of a replica: its announcement, with the newest loads and the newest
    /// `seq`, of which `announced` was the announcement's own. The replica's heartbeats are understood here from then on.
    ///
    /// One whose lease was over here is back with what it said last, because somebody else heard it since.
    ///
    /// # Errors
    /// [`MessageError`] for what is beyond the limits, or no room; nothing is changed then.
    pub fn adopt(&mut self, newest: &Announce, announced: u64, now: Instant) -> Result<Answer, MessageError> {
        if self.has_announced(newest, announced) {
            let loads = newest.offers.iter().map(|offer| offer.load).collect();
            let (id, epoch, seq, draining) = (newest.id.clone(), newest.epoch, newest.seq, newest.draining);
            let answer = self.heartbeat(&Heartbeat { id, epoch, seq, announced, draining, loads }, now)?;
            if matches!(answer, Answer::Accepted | Answer::AnnounceAgain) {
                self.adopted(&newest.id);
            }
            return Ok(answer);
        }
        if !self.slots.contains_key(newest.id.as_str()) {
            self.retired.forgive(&newest.id, newest.epoch);
        }
        let answer = self.announce(newest, now)?;
        if let (Answer::Accepted, Some(slot)) = (answer, self.slots.get(newest.id.as_str())) {
            self.replicas[wide(*slot)].announced = announced;
            self.adopted(&newest.id);
        }
        Ok(answer)
    }

    /// The lease of a replica that another API server still hears of begins anew, if it is the one of this epoch. False
    /// if it is not.
    pub fn renew_adopted(&mut self, id: &str, epoch: u64, now: Instant) -> bool {
        self.expire(now);
        let Some(slot) = self.slots.get(id).copied() else { return false };
        let known = &self.replicas[wide(slot)];
        let (same, seq, draining) = (known.epoch == epoch, known.seq, known.draining);
        if same {
            self.renew(slot, seq, draining, now);
            self.adopted(id);
        }
        same
    }

    /// Somebody else hears it.
    fn adopted(&mut self, id: &str) {
        if let Some(slot) = self.slots.get(id) {
            self.replicas[wide(*slot)].adopted = true;
        }
    }

    /// Whether exactly this announcement is known already.
    fn has_announced(&self, newest: &Announce, announced: u64) -> bool {
        let known = self.slots.get(newest.id.as_str()).map(|slot| &self.replicas[wide(*slot)]);
        known.is_some_and(|known| {
            (known.epoch, known.announced) == (newest.epoch, announced) && known.offers.len() == newest.offers.len()
        })
    }
}
