//! What stands in the log already: a store that says the same wrong thing a million times is complained about once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::mirror::Id;

/// What is complained about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Complaint {
    /// An entry cannot be read.
    Unread,
    /// A replica says more than an entry may have.
    TooLong,
    /// The store does not take an entry.
    Refused,
}

/// The newest complaints, each with the replica that it is about.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<HashMap<(Complaint, Id), Instant>>);

/// Time after which the same is complained about again.
const AGAIN: Duration = Duration::from_mins(10);

/// Complaints in that time at most, of all kinds together.
const MAX: usize = 16;

// === impl Complaints ===

impl Complaints {
    /// Whether this is to be said: it was not for a while, and not too much else was.
    pub(super) fn is_new(&self, what: Complaint, id: &str) -> bool {
        self.is_new_at(what, id, Instant::now())
    }

    fn is_new_at(&self, what: Complaint, id: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        let key = (what, Id::from(id));
        if said.get(&key).is_some_and(|at| now < *at + AGAIN) {
            return false;
        }
        if said.len() >= MAX {
            said.retain(|_, at| now < *at + AGAIN);
        }
        let room = said.len() < MAX;
        if room {
            said.insert(key, now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while_and_not_too_much_of_everything() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        let says = |what, id: &str, at| complaints.is_new_at(what, id, at);
        assert!(says(Complaint::Unread, "a", now) && says(Complaint::Refused, "a", now));
        let before = AGAIN.checked_sub(Duration::from_nanos(1)).unwrap();
        assert!(!says(Complaint::Unread, "a", now) && !says(Complaint::Unread, "a", now + before));
        let said = (0..1000).filter(|number| says(Complaint::Unread, &format!("r{number}"), now)).count();
        assert_eq!(said, MAX - 2);
        assert!(says(Complaint::Unread, "a", now + AGAIN) && says(Complaint::Unread, "new", now + AGAIN));
        assert_eq!(complaints.0.lock().len(), 2, "what was said long ago is forgotten");
    }
}
