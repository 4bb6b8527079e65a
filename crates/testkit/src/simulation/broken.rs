//! A check that did not hold.

use std::fmt;

/// Which check, and what was seen instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The promise, as a sentence.
    pub promise: &'static str,
    /// What was seen.
    pub seen: String,
}

/// What a check says.
pub(super) type Checked = Result<(), Broken>;

/// Holds the world to a promise.
pub(super) fn hold(promise: &'static str, holds: bool, seen: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Broken { promise, seen: seen() }) }
}

// === impl Broken ===

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' does not hold: {}", self.promise, self.seen)
    }
}
