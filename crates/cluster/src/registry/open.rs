//! The replicas that any request may go to: all of them, and those with the same upgrade rules.

use anyserve_core::Upgrades;

use super::Registry;
use crate::index::wide;

// === impl Registry ===

impl Registry {
    /// Brings a replica to the lists of those that any request may go to, or away from them.
    pub(super) fn list_up(&mut self, slot: u32) {
        let known = &mut self.replicas[wide(slot)];
        match (known.is_open(), known.up_at) {
            (true, None) => {
                known.up_at = Some(self.up.len());
                self.up.push(slot);
                self.open_book(slot);
            }
            (false, Some(_)) => self.unlist_up(slot),
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(super) fn unlist_up(&mut self, slot: u32) {
        let Some(at) = self.replicas[wide(slot)].up_at.take() else { return };
        self.up.swap_remove(at);
        if let Some(moved) = self.up.get(at) {
            self.replicas[wide(*moved)].up_at = Some(at);
        }
        self.close_book(slot);
    }

    /// Replaces the upgrade rules of a replica.
    pub(super) fn keep_rules(&mut self, slot: u32, rules: &Upgrades) {
        let book = self.rules.acquire(rules);
        self.close_book(slot);
        let known = &mut self.replicas[wide(slot)];
        let before = std::mem::replace(&mut known.book, book);
        if let Some(book) = before {
            self.rules.release(book);
        }
        if self.replicas[wide(slot)].up_at.is_some() {
            self.open_book(slot);
        }
    }

    fn open_book(&mut self, slot: u32) {
        let known = &mut self.replicas[wide(slot)];
        known.book_at = known.book.map(|book| self.rules.open(book, slot));
    }

    fn close_book(&mut self, slot: u32) {
        let known = &mut self.replicas[wide(slot)];
        let Some((book, at)) = known.book.zip(known.book_at.take()) else { return };
        if let Some(moved) = self.rules.close(book, at) {
            self.replicas[wide(moved)].book_at = Some(at);
        }
    }
}
