//! Room that is asked for before it is needed, so that who writes much of the same size waits for nobody.
//!
//! ```text
//! room(len) ──► as the last one? ──yes──► take what was asked for ahead ──► written ──► ask ahead for the next
//!                     └──no──► give back what was asked for, ask, wait
//! ```

use super::asks::Ask;

/// The largest room that is asked for ahead, in bytes: above, copying takes far longer than asking.
const MOST: u64 = 16 << 20;

/// What was asked for, and how large the last room was.
#[derive(Default)]
pub(super) struct Ahead {
    last: u64,
    asked: Option<(Ask, u64)>,
}

// === impl Ahead ===

impl Ahead {
    /// What was asked for ahead, if it has room for `len` bytes and not far more. What does not fit is given up.
    pub(super) fn take(&mut self, len: u64) -> Option<Ask> {
        let (ask, room) = self.asked.take()?;
        (room >= len && room / 2 <= len).then_some(ask)
    }

    /// The size to ask for ahead after a room of `len` bytes, if it is worth it: the one before was alike.
    pub(super) fn next(&mut self, len: u64) -> Option<u64> {
        let alike = len.abs_diff(self.last) <= len / 4;
        self.last = len;
        (alike && self.asked.is_none() && (1..=MOST).contains(&len)).then_some(len)
    }

    /// It was asked for.
    pub(super) fn asked(&mut self, ask: Ask, len: u64) {
        self.asked = Some((ask, len));
    }
}
