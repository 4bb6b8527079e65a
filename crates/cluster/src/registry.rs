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
//! Health ([`Health`]) goes beside it: what replicas say renews leases, what connections do ejects. It is
//! deterministic: the same events at the same instants give the same answers.

mod adopt;
mod choose;
mod lead;
mod look;
mod nobody;
mod open;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use anyserve_core::Capability;
use slab::Slab;

use crate::hash::of_bytes;
use crate::health::Health;
use crate::holders::{Holders, Standing};
use crate::index::{CapabilityIndex, narrow, wide};
use crate::replica::{Held, Replica};
use crate::retired::Retired;
use crate::rules::Rules;
use crate::{Announce, Answer, Heartbeat, Load, MessageError, Offer, RegistryConfig};

pub(crate) use choose::Pick;
pub use look::{CapabilityView, OfferView, Resolved};

/// Characters that are kept of why a replica cannot be reached.
const MAX_TROUBLE: usize = 200;

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

/// What is known of a replica at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// For what is seen of it.
    pub handle: Handle,
    /// Its name.
    pub id: Arc<str>,
    /// Its start.
    pub epoch: u64,
    /// Where it takes requests.
    pub endpoint: Arc<str>,
    /// It takes no more requests.
    pub draining: bool,
    /// How fit it is.
    pub health: Health,
    /// Why it could not be reached last, where that is known and it is not up.
    pub trouble: Option<Arc<str>>,
    /// Another API server hears it, and it is known through the store.
    pub adopted: bool,
    /// When it is believed to be gone.
    pub lease_until: Instant,
    /// How many capabilities it has.
    pub capabilities: usize,
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

    /// When [`expire`](Self::expire) or [`probes`](Self::probes) have something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, u32)>| set.first().map(|(due, _)| *due);
        first(&self.leases).into_iter().chain(first(&self.dues)).min()
    }

    /// What is known of a replica.
    pub fn view(&self, id: &str) -> Option<ReplicaView> {
        self.slots.get(id).map(|slot| self.view_of(*slot))
    }

    /// What is known of everybody, in no order.
    pub fn views(&self) -> impl Iterator<Item = ReplicaView> {
        self.slots.values().map(|slot| self.view_of(*slot))
    }

    /// Whether this start of a replica is registered.
    pub fn knows(&self, handle: Handle) -> bool {
        self.get(handle).is_some()
    }

    /// Whether there is a replica that any request may go to: it is not leaving, and nothing speaks against it.
    pub fn is_ready(&self) -> bool {
        !self.up.is_empty()
    }

    /// The different capabilities that are registered, in no order, each with whether a worker somewhere can take a
    /// request for it.
    pub fn offered(&self) -> impl Iterator<Item = (&Arc<Capability>, bool)> {
        let warm = |number| {
            let somebody = |standing| self.holders.list(number, standing).is_some();
            somebody(Standing::Ready) || somebody(Standing::Saturated)
        };
        self.index.iter().map(move |(number, capability)| (capability, warm(number)))
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
    fn renew(&mut self, slot: u32, seq: u64, draining: bool, now: Instant) {
        let known = &mut self.replicas[wide(slot)];
        self.leases.remove(&(known.lease_until, slot));
        (known.seq, known.lease_until, known.adopted) = (seq, now + self.config.lease, false);
        self.leases.insert((known.lease_until, slot));
        if std::mem::replace(&mut known.draining, draining) != draining {
            self.stand(slot);
        }
    }

    /// Replaces what a replica offers. What it offered before too keeps its number throughout.
    fn offer(&mut self, slot: u32, offers: &[Offer]) {
        let held = |offer: &Offer| Held {
            number: self.index.acquire(&offer.capability),
            idempotent: offer.idempotent,
            slots: offer.slots.max(1),
            load: offer.load,
            denied: false,
            place: None,
        };
        let held: Vec<Held> = offers.iter().map(held).collect();
        self.withdraw(slot);
        self.replicas[wide(slot)].offers = held;
        self.stand(slot);
    }

    /// Takes everything back that a replica offers.
    fn withdraw(&mut self, slot: u32) {
        (0..self.replicas[wide(slot)].offers.len()).for_each(|offer| self.unplace(slot, offer));
        for offer in std::mem::take(&mut self.replicas[wide(slot)].offers) {
            if self.index.release(offer.number) {
                self.holders.forget(offer.number);
            }
        }
    }

    fn load(&mut self, slot: u32, loads: &[Load]) {
        let known = &mut self.replicas[wide(slot)];
        known.offers.iter_mut().zip(loads).for_each(|(offer, load)| offer.load = *load);
        let (hash, count) = (known.hash, known.offers.len());
        self.stand(slot);
        for offer in 0..count {
            let held = &self.replicas[wide(slot)].offers[offer];
            if let Some(place) = held.place {
                let candidate = held.candidate(hash, slot, narrow(offer));
                self.holders.change(held.number, place, |known| *known = candidate);
            }
        }
    }

    /// Brings every offer of a replica to the list where it belongs.
    fn stand(&mut self, slot: u32) {
        for offer in 0..self.replicas[wide(slot)].offers.len() {
            self.stand_one(slot, offer);
        }
        self.list_up(slot);
    }

    fn stand_one(&mut self, slot: u32, offer: usize) {
        let known = &self.replicas[wide(slot)];
        let held = &known.offers[offer];
        let standing = known.standing(held);
        if held.place.map(|place| place.standing) == standing {
            return;
        }
        let (number, candidate) = (held.number, held.candidate(known.hash, slot, narrow(offer)));
        self.unplace(slot, offer);
        let place = standing.map(|standing| self.holders.add(number, standing, candidate));
        self.replicas[wide(slot)].offers[offer].place = place;
    }

    fn unplace(&mut self, slot: u32, offer: usize) {
        let held = &mut self.replicas[wide(slot)].offers[offer];
        let Some(place) = held.place.take() else { return };
        if let Some((slot, offer)) = self.holders.remove(held.number, place) {
            self.replicas[wide(slot)].offers[wide(offer)].place = Some(place);
        }
    }

    fn set_health(&mut self, slot: u32, health: Health) {
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

    fn get(&self, handle: Handle) -> Option<&Replica> {
        self.replicas.get(wide(handle.slot)).filter(|replica| replica.life == handle.life)
    }

    fn handle(&self, slot: u32) -> Handle {
        Handle { slot, life: self.replicas[wide(slot)].life }
    }

    fn view_of(&self, slot: u32) -> ReplicaView {
        let known = &self.replicas[wide(slot)];
        ReplicaView {
            handle: self.handle(slot),
            id: Arc::clone(&known.id),
            epoch: known.epoch,
            endpoint: Arc::clone(&known.endpoint),
            draining: known.draining,
            health: known.health,
            trouble: known.trouble.clone(),
            adopted: known.adopted,
            lease_until: known.lease_until,
            capabilities: known.offers.len(),
        }
    }
}

/// Why a message of this epoch makes no difference, if there is a reason.
fn refusal(known: &Replica, epoch: u64, seq: u64) -> Option<Answer> {
    if epoch < known.epoch {
        return Some(Answer::StaleEpoch { latest: known.epoch });
    }
    (epoch == known.epoch && seq <= known.seq).then_some(Answer::Outdated { latest: known.seq })
}
