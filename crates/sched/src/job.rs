//! A request as the dispatcher needs to know it.

use std::time::Instant;

use anyserve_core::{Fingerprint, Priority, SequenceCall};

use crate::GroupId;

/// What is asked of the dispatcher.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The group that serves it.
    pub group: GroupId,
    /// Its handler's place in the group's table.
    pub handler: usize,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
    /// Bytes that it holds while it waits.
    pub bytes: usize,
    /// Its level; a lower number goes first.
    pub priority: Priority,
    /// Whose it is; tenants of one level share its turns. Empty is a tenant like any other.
    pub tenant: &'a str,
    /// Its place in a sequence, if its handler keeps sequences.
    pub sequence: Option<&'a SequenceCall>,
    /// What it shares with requests that may be in one batch with it, if its handler takes batches.
    pub batch: Option<u64>,
    /// Its fingerprint; needed only while [`crate::Dispatcher::wants_fingerprints`].
    pub fingerprint: Option<Fingerprint>,
}

/// What the dispatcher asks the shell's half of a request.
pub trait Payload {
    /// What requests that do the same share. Asked for only when a worker died with it.
    fn fingerprint(&self) -> Fingerprint;

    /// Whether its caller has been given a part of the answer.
    fn has_emitted(&self) -> bool;
}

// === impl Job ===

impl Job<'_> {
    /// A job without wishes.
    pub fn new(group: GroupId, handler: usize) -> Self {
        Self {
            group,
            handler,
            deadline: None,
            bytes: 0,
            priority: Priority::MIDDLE,
            tenant: "",
            sequence: None,
            batch: None,
            fingerprint: None,
        }
    }
}
