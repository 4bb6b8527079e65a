//! What replicas offer, each offer on the list of those that stand alike: [`Holders`](crate::holders::Holders).

use super::Registry;
use crate::index::{narrow, wide};
use crate::replica::Held;
use crate::{Load, Offer};

// === impl Registry ===

impl Registry {
    /// Replaces what a replica offers. What it offered before too keeps its number throughout.
    pub(super) fn offer(&mut self, slot: u32, offers: &[Offer]) {
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
    pub(super) fn withdraw(&mut self, slot: u32) {
        (0..self.replicas[wide(slot)].offers.len()).for_each(|offer| self.unplace(slot, offer));
        for offer in std::mem::take(&mut self.replicas[wide(slot)].offers) {
            if self.index.release(offer.number) {
                self.holders.forget(offer.number);
            }
        }
    }

    pub(super) fn load(&mut self, slot: u32, loads: &[Load]) {
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
    pub(super) fn stand(&mut self, slot: u32) {
        for offer in 0..self.replicas[wide(slot)].offers.len() {
            self.stand_one(slot, offer);
        }
        self.list_up(slot);
    }

    pub(super) fn stand_one(&mut self, slot: u32, offer: usize) {
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
}
