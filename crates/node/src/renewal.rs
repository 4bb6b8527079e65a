//! Whether files that were renewed in place are to be used, by what is found in them from time to time.
//!
//! ```text
//! used ── others ──► changing ── the same again ──► tried ── good ──► used
//!   ▲                 ▲    │ ▲                        │
//!   │                 │    └─┘ others                 └─ broken ──► refused ── others ──► changing
//!   └── as before ────┘
//! ```
//!
//! Files that belong together are written one after the other: they are tried once they are as they were the time before.
//! Contents that were refused are not tried again, so that they are told once.

/// What was found in all files of a set together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents(pub(crate) u64);

/// What is known of one set of files.
#[derive(Debug)]
pub(crate) struct Renewal {
    used: Contents,
    refused: Option<Contents>,
    last: Contents,
}

// === impl Renewal ===

impl Renewal {
    /// These contents are used.
    pub(crate) fn new(used: Contents) -> Self {
        Self { used, refused: None, last: used }
    }

    /// This was found now. Returns whether it is to be tried.
    pub(crate) fn found(&mut self, now: Contents) -> bool {
        let settled = now == self.last;
        self.last = now;
        settled && now != self.used && Some(now) != self.refused
    }

    /// What was found last has been tried. It is used if it was good; else what was used before still is.
    pub(crate) fn tried(&mut self, good: bool) {
        if good {
            (self.used, self.refused) = (self.last, None);
        } else {
            self.refused = Some(self.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Contents = Contents(0);
    const NEW: Contents = Contents(1);
    const BROKEN: Contents = Contents(2);

    #[test]
    fn what_has_not_changed_is_never_tried() {
        let mut renewal = Renewal::new(OLD);
        assert!((0..9).all(|_| !renewal.found(OLD)));
    }

    #[test]
    fn new_contents_are_tried_once_they_are_found_twice_and_then_used() {
        let mut renewal = Renewal::new(OLD);
        assert!(!renewal.found(NEW) && renewal.found(NEW));
        renewal.tried(true);
        assert!(!renewal.found(NEW) && !renewal.found(NEW));
        // The old ones are new ones now.
        assert!(!renewal.found(OLD) && renewal.found(OLD));
    }

    #[test]
    fn files_that_are_still_written_are_waited_for() {
        let mut renewal = Renewal::new(OLD);
        assert!((3..30).all(|half| !renewal.found(Contents(half))));
        assert!(!renewal.found(NEW) && renewal.found(NEW));
    }

    #[test]
    fn broken_contents_are_tried_once_and_good_ones_after_them_are_used() {
        let mut renewal = Renewal::new(OLD);
        assert!(!renewal.found(BROKEN) && renewal.found(BROKEN));
        renewal.tried(false);
        assert!((0..9).all(|_| !renewal.found(BROKEN)));
        assert!(!renewal.found(NEW) && renewal.found(NEW));
        renewal.tried(true);
        // What was refused before may be good by now.
        assert!(!renewal.found(BROKEN) && renewal.found(BROKEN));
    }

    #[test]
    fn files_that_are_as_before_again_are_used_already() {
        let mut renewal = Renewal::new(OLD);
        assert!(!renewal.found(NEW) && !renewal.found(OLD) && !renewal.found(OLD));
        assert!(!renewal.found(BROKEN) && renewal.found(BROKEN));
        renewal.tried(false);
        assert!(!renewal.found(OLD) && !renewal.found(OLD) && !renewal.found(BROKEN) && !renewal.found(BROKEN));
    }
}
