//! Who gets what nobody claims to serve, by the upgrade rules that replicas announced.
//!
//! ```text
//!  a rule applies, and another replica claims what it makes of the query ──► goes first
//!  a rule applies                                                        ──► goes second
//! ```
//!
//! The rules are hints, as claims are: the replica itself upgrades the query, or does something else with it.

use anyserve_core::Query;

use super::Registry;
use super::choose::UP;
use crate::hash::{mix, place};
use crate::holders::Standing;
use crate::index::wide;
use crate::list::List;

/// Claimants that are looked for: one of two is another one than the replica that upgrades the query.
const ENOUGH: usize = 2;

/// Who is to upgrade a query, and what to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Led {
    pub(super) slot: u32,
    pub(super) query: Query,
    /// Whether somebody else claims what it becomes.
    pub(super) claimed: bool,
}

// === impl Registry ===

impl Registry {
    /// One with a rule that applies to a query, whom a request may go to and who is not excluded.
    pub(super) fn led(&mut self, query: &Query, excluded: &[u32]) -> Option<Led> {
        self.turns = self.turns.wrapping_add(1);
        let leads = self.rules.leads(query, self.turns);
        let mut claims: Vec<(Query, Vec<u32>)> = Vec::new();
        let mut second = None;
        for lead in leads {
            let Some(anyone) = self.idle(Some(lead.book), excluded) else { continue };
            let claimants = match claims.iter().find(|(query, _)| *query == lead.query) {
                Some((_, claimants)) => claimants.clone(),
                None => self.claimants(&lead.query, excluded),
            };
            if let Some(slot) = self.other_than(&claimants, lead.book, anyone, excluded) {
                return Some(Led { slot, query: lead.query, claimed: true });
            }
            claims.push((lead.query.clone(), claimants));
            second = second.or(Some(Led { slot: anyone, query: lead.query, claimed: false }));
        }
        second
    }

    /// One with these rules beside whom somebody claims what they make of the query.
    fn other_than(&mut self, claimants: &[u32], book: u32, anyone: u32, excluded: &[u32]) -> Option<u32> {
        match claimants {
            [] => None,
            [only] if *only == anyone => self.idle(Some(book), &[excluded, &[*only]].concat()),
            _ => Some(anyone),
        }
    }

    /// Two who claim to serve a query and are not excluded, or as many as there are.
    fn claimants(&mut self, query: &Query, excluded: &[u32]) -> Vec<u32> {
        let best = self.index.best(query);
        let mut found = Vec::new();
        self.add_claimants(&best, excluded, &mut found);
        if found.len() < ENOUGH && !best.is_empty() {
            let known = [excluded, &found].concat();
            let others =
                self.index.best_where(query, |number| self.holders_of(number).any(|slot| !known.contains(&slot)));
            self.add_claimants(&others, excluded, &mut found);
        }
        found
    }

    fn add_claimants(&self, numbers: &[u32], excluded: &[u32], found: &mut Vec<u32>) {
        for slot in numbers.iter().flat_map(|number| self.holders_of(*number)) {
            if found.len() >= ENOUGH {
                return;
            }
            if !excluded.contains(&slot) && !found.contains(&slot) {
                found.push(slot);
            }
        }
    }

    /// Who has a capability, and may be sent requests without need.
    fn holders_of(&self, number: u32) -> impl Iterator<Item = u32> {
        let list = move |standing: Standing| self.holders.list(number, standing);
        UP.into_iter().filter_map(list).flat_map(List::candidates).map(|one| one.slot)
    }

    /// The one of two drawn ones that has less to do: of those with the same rules, or of all.
    pub(super) fn idle(&mut self, book: Option<u32>, excluded: &[u32]) -> Option<u32> {
        let among = book.map_or(self.up.as_slice(), |book| self.rules.users(book));
        let len = among.len();
        if len == 0 {
            return None;
        }
        self.turns = self.turns.wrapping_add(1);
        let draw = |number: u64| {
            let (before, after) = among.split_at(place(number, len));
            after.iter().chain(before).find(|slot| !excluded.contains(slot)).copied()
        };
        let pending = |slot: u32| self.replicas[wide(slot)].pending();
        let (one, other) = (draw(self.turns)?, draw(mix(self.turns))?);
        Some(if pending(other) < pending(one) { other } else { one })
    }
}
