//! A worker group as its app declares it, and what a replica has for its workers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Handler;

/// Workers with the same handlers, each a process of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// Its name: that of its class or function, or [`DEFAULT_GROUP`].
    pub name: String,
    /// What each of its workers serves.
    pub handlers: Vec<Handler>,
    /// What each of its workers needs.
    pub needs: Needs,
    /// The fewest and the most workers, the most at least 1; `None` leaves it to the replica.
    pub workers: Option<(u32, u32)>,
    /// Time without work after which a worker beyond the fewest is put to sleep or stopped; `None` keeps it.
    pub idle_timeout: Option<Duration>,
    /// Its workers can give their resources back and stay alive.
    pub sleeps: bool,
    /// Variables of its workers' processes, beside the runtime's own.
    pub environment: Vec<(String, String)>,
    /// The Python interpreter of its workers; `None` takes the replica's.
    pub python: Option<PathBuf>,
    /// Time that a worker has to become ready; `None` takes the replica's.
    pub start_timeout: Option<Duration>,
    /// What a query may become where nothing serves it as it is, as [`Upgrade::parse`](crate::Upgrade::parse) reads it.
    pub upgrades: Vec<String>,
}

/// What one worker needs while it is awake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whole GPUs.
    pub gpus: u32,
    /// Tokens by their names.
    pub tokens: BTreeMap<String, u32>,
}

/// What a replica has, or what one worker was given of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// GPUs by the names that `CUDA_VISIBLE_DEVICES` knows them by.
    pub gpus: Vec<String>,
    /// Tokens by their names.
    pub tokens: BTreeMap<String, u32>,
}

/// Name of the group of the functions that ask for nothing of their own.
pub const DEFAULT_GROUP: &str = "default";

// === impl GroupSpec ===

impl GroupSpec {
    /// A group that asks for nothing of its own.
    pub fn new(name: impl Into<String>, handlers: Vec<Handler>) -> Self {
        Self {
            name: name.into(),
            handlers,
            needs: Needs::default(),
            workers: None,
            idle_timeout: None,
            sleeps: false,
            environment: Vec::new(),
            python: None,
            start_timeout: None,
            upgrades: Vec::new(),
        }
    }
}

// === impl Needs ===

impl Needs {
    /// Whether a worker can be started whatever others have.
    pub fn is_nothing(&self) -> bool {
        self.gpus == 0 && self.tokens.values().all(|amount| *amount == 0)
    }
}

impl fmt::Display for Needs {
    /// `2 gpu, 1 token`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpus = (self.gpus > 0).then(|| format!("{} gpu", self.gpus));
        let tokens = self.tokens.iter().filter(|(_, amount)| **amount > 0);
        let list: Vec<_> = gpus.into_iter().chain(tokens.map(|(name, amount)| format!("{amount} {name}"))).collect();
        f.write_str(if list.is_empty() { "nothing" } else { "" })?;
        f.write_str(&list.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_shown_with_their_numbers() {
        assert_eq!((Needs::default().to_string(), Needs::default().is_nothing()), ("nothing".to_owned(), true));
        let tokens = BTreeMap::from([("token".to_owned(), 1), ("none".to_owned(), 0)]);
        let needs = Needs { gpus: 2, tokens };
        assert_eq!((needs.to_string(), needs.is_nothing()), ("2 gpu, 1 token".to_owned(), false));
    }
}
