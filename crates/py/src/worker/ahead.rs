//! Room that is asked for before it is needed, so that who writes much of the same size waits for nobody.
//!
//! ```text
//! room(len) ──► as the last one? ──yes──► take what was asked for ahead ──► written ──► ask ahead for the next
//!                     └──no──► give back what was asked for, ask, wait
//! ```

use std::collections::VecDeque;

use super::asks::Ask;

/// The largest room that is asked for ahead, in bytes: above, copying takes far longer than asking.
const MOST: u64 = 16 << 20;
/// Rooms that are asked for ahead: while one is written to, the answer for the next is on its way.
const DEPTH: usize = 2;

/// What was asked for, and how large the last room was.
#[derive(Default)]
pub(super) struct Ahead {
    last: u64,
    asked: VecDeque<(Ask, u64)>,
}

// === impl Ahead ===

impl Ahead {
    /// What was asked for ahead, if it has room for `len` bytes and not far more. What does not fit is given up.
    pub(super) fn take(&mut self, len: u64) -> Option<Ask> {
        self.asked.retain(|(_, room)| *room >= len && room / 2 <= len);
        self.asked.pop_front().map(|(ask, _)| ask)
    }

    /// How many rooms of `len` bytes to ask for, after one of that size. None before the second of about one size.
    pub(super) fn wanted(&mut self, len: u64) -> usize {
        let alike = len.abs_diff(self.last) <= len / 4;
        self.last = len;
        if alike && (1..=MOST).contains(&len) { DEPTH - self.asked.len().min(DEPTH) } else { 0 }
    }

    /// One was asked for.
    pub(super) fn asked(&mut self, ask: Ask, len: u64) {
        self.asked.push_back((ask, len));
    }
}
