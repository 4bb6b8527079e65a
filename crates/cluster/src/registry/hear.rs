//! What replicas say of themselves: that they are there, with what, how busy they are, that they go. Who says nothing for
//! the time of a lease is gone too.

use std::sync::Arc;
use std::time::Instant;

use super::Registry;
use crate::hash::of_bytes;
use crate::health::Health;
use crate::index::{narrow, wide};
use crate::replica::Replica;
use crate::{Announce, Answer, Heartbeat, MessageError};

// === impl Registry ===

impl Registry {
    /// A replica announces itself.
    ///
    /// # Errors
    /// [`MessageError`] for what is beyond the limits, or no room; nothing is changed then.
    pub fn announce(&mut self, announce: &Announce, now: Instant) -> Result<Answer, MessageError> {
        announce.check(&self.config.limits)?;
        self.expire(now);
        let Some(slot) = self.slots.get(announce.id.as_str()).copied() else { return self.register(announce, now) };
        let known = &self.replicas[wide(slot)];
        if let Some(answer) = refusal(known, announce.epoch, announce.seq) {
            return Ok(answer);
        }
        if announce.epoch > known.epoch {
            self.remove(slot);
            self.insert(announce, now);
        } else {
            self.update(slot, announce, now);
        }
        self.counts.announced += 1;
        Ok(Answer::Accepted)
    }

    /// A replica says that it is there. Whose claims were found wrong is told to announce itself again.
    ///
    /// # Errors
    /// [`MessageError::Loads`] if there is not one load for every capability; nothing is changed then.
    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) -> Result<Answer, MessageError> {
        self.expire(now);
        let Some(slot) = self.slots.get(heartbeat.id.as_str()).copied() else {
            let refused = self.retired.refuses(&heartbeat.id, heartbeat.epoch, heartbeat.seq);
            return Ok(refused.unwrap_or(Answer::AnnounceAgain));
        };
        let known = &self.replicas[wide(slot)];
        if let Some(answer) = refusal(known, heartbeat.epoch, heartbeat.seq) {
            return Ok(answer);
        }
        if heartbeat.epoch > known.epoch {
            // A later start that has not announced itself: the one that is known is gone for good.
            self.retire(slot, true, now);
            return Ok(Answer::AnnounceAgain);
        }
        if heartbeat.announced != known.announced {
            return Ok(Answer::AnnounceAgain);
        }
        let (count, expected) = (heartbeat.loads.len(), known.offers.len());
        if count != expected {
            return Err(MessageError::Loads { id: known.id.to_string(), count, expected });
        }
        let denied = known.offers.iter().any(|offer| offer.denied);
        self.renew(slot, heartbeat.seq, heartbeat.draining, now);
        self.load(slot, &heartbeat.loads);
        self.counts.heartbeats += 1;
        Ok(if denied { Answer::AnnounceAgain } else { Answer::Accepted })
    }

    /// A replica says that it goes. This epoch does not come back.
    pub fn leave(&mut self, id: &str, epoch: u64, now: Instant) -> Answer {
        let Some(slot) = self.slots.get(id).copied() else { return Answer::Accepted };
        let known = &self.replicas[wide(slot)];
        if epoch < known.epoch {
            return Answer::StaleEpoch { latest: known.epoch };
        }
        self.retire(slot, true, now);
        self.counts.left += 1;
        Answer::Accepted
    }

    /// Lets those go whose leases are over at this instant. Returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while let Some((_, slot)) = self.leases.first().copied().filter(|(until, _)| *until <= now) {
            self.retire(slot, false, now);
            self.counts.expired += 1;
            count += 1;
        }
        self.retired.forget(self.config.remember, now);
        count
    }

    fn register(&mut self, announce: &Announce, now: Instant) -> Result<Answer, MessageError> {
        if let Some(answer) = self.retired.refuses(&announce.id, announce.epoch, announce.seq) {
            return Ok(answer);
        }
        let max = self.config.limits.max_replicas;
        if self.replicas.len() >= max {
            return Err(MessageError::Full { max });
        }
        self.retired.remove(&announce.id);
        self.insert(announce, now);
        self.counts.announced += 1;
        Ok(Answer::Accepted)
    }

    fn insert(&mut self, announce: &Announce, now: Instant) {
        self.lives += 1;
        let lease_until = now + self.config.lease;
        let id: Arc<str> = announce.id.as_str().into();
        let slot = narrow(self.replicas.insert(Replica {
            id: Arc::clone(&id),
            endpoint: announce.endpoint.as_str().into(),
            epoch: announce.epoch,
            life: self.lives,
            seq: announce.seq,
            announced: announce.seq,
            lease_until,
            draining: announce.draining,
            health: Health::Up,
            trouble: None,
            adopted: false,
            hash: of_bytes(id.as_bytes()),
            offers: Vec::new(),
            up_at: None,
            book: self.rules.acquire(&announce.upgrades),
            book_at: None,
        }));
        self.slots.insert(id, slot);
        self.leases.insert((lease_until, slot));
        self.offer(slot, &announce.offers);
        self.list_up(slot);
    }

    fn update(&mut self, slot: u32, announce: &Announce, now: Instant) {
        let known = &mut self.replicas[wide(slot)];
        known.announced = announce.seq;
        if *known.endpoint != *announce.endpoint {
            known.endpoint = announce.endpoint.as_str().into();
        }
        self.renew(slot, announce.seq, announce.draining, now);
        self.offer(slot, &announce.offers);
        self.keep_rules(slot, &announce.upgrades);
    }

    /// A message came.
    pub(super) fn renew(&mut self, slot: u32, seq: u64, draining: bool, now: Instant) {
        let known = &mut self.replicas[wide(slot)];
        self.leases.remove(&(known.lease_until, slot));
        (known.seq, known.lease_until, known.adopted) = (seq, now + self.config.lease, false);
        self.leases.insert((known.lease_until, slot));
        if std::mem::replace(&mut known.draining, draining) != draining {
            self.stand(slot);
        }
    }

    fn retire(&mut self, slot: u32, left: bool, now: Instant) {
        let known = &self.replicas[wide(slot)];
        let (id, last) = (Arc::clone(&known.id), (known.epoch, known.seq));
        self.remove(slot);
        self.retired.add(&id, last, left, now, self.config.limits.max_replicas);
    }

    fn remove(&mut self, slot: u32) {
        self.withdraw(slot);
        self.unlist_up(slot);
        let gone = self.replicas.remove(wide(slot));
        if let Some(book) = gone.book {
            self.rules.release(book);
        }
        self.slots.remove(&gone.id);
        self.leases.remove(&(gone.lease_until, slot));
        gone.health.due().map(|due| self.dues.remove(&(due, slot)));
    }
}

/// Why a message of this epoch makes no difference, if there is a reason.
fn refusal(known: &Replica, epoch: u64, seq: u64) -> Option<Answer> {
    if epoch < known.epoch {
        return Some(Answer::StaleEpoch { latest: known.epoch });
    }
    (epoch == known.epoch && seq <= known.seq).then_some(Answer::Outdated { latest: known.seq })
}
