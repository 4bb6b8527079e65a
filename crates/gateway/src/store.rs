//! What several API servers share: each writes what it hears, and reads what the others write.
//!
//! No request ever waits for it. What is heard is noted and written later; a store that is gone is tried again.

use std::fmt;

use anyserve_cluster::{Announce, Heartbeat};

/// What a replica said here, and the registry wrote down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Said<'a> {
    /// Who it is and what it serves.
    Announced(&'a Announce),
    /// That it is there, and how busy it is.
    Beat(&'a Heartbeat),
    /// That it goes.
    Left {
        /// Its name.
        id: &'a str,
        /// The start of it that goes.
        epoch: u64,
    },
}

/// Whether others see what is heard here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// There are no others.
    Memory,
    /// They do.
    Connected,
    /// Not now.
    Disconnected,
}

/// Where API servers share what they hear.
pub trait Store: fmt::Debug + Send + Sync {
    /// A replica said something here. It returns at once.
    fn heard(&self, said: Said<'_>);

    /// Whether others see it.
    fn state(&self) -> StoreState;
}

/// No store: this is the only API server.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

// === impl StoreState ===

impl StoreState {
    /// As pages spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

// === impl Memory ===

impl Store for Memory {
    fn heard(&self, _: Said<'_>) {}

    fn state(&self) -> StoreState {
        StoreState::Memory
    }
}
