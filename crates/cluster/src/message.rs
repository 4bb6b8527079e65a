//! What replicas tell a registry, what it answers, and what it refuses to read.

use std::time::Duration;

use anyserve_core::{Capability, Upgrades, Value};

use crate::RegistryLimits;

/// A replica says who it is and what it serves. It does so when it starts, when what it serves changes, and whenever it
/// is told to.
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// Its name, which it keeps when it starts anew.
    pub id: String,
    /// Grows with every start.
    pub epoch: u64,
    /// Grows with every message of one epoch.
    pub seq: u64,
    /// Where it takes requests: `http://…` or `https://…`.
    pub endpoint: String,
    /// It takes no more requests.
    pub draining: bool,
    /// What it serves.
    pub offers: Vec<Offer>,
    /// What it makes of a query that it does not serve. It decides that itself; this is what it is likely to do.
    pub upgrades: Upgrades,
}

/// A capability of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// What it serves.
    pub capability: Capability,
    /// A request may be sent again although it may have begun.
    pub idempotent: bool,
    /// Requests that run at once; 0 counts as 1.
    pub slots: u32,
    /// How busy it is.
    pub load: Load,
}

/// How busy a replica is with one capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A worker can take a request. Otherwise one may be started for it.
    pub ready: bool,
    /// Its queue is full.
    pub saturated: bool,
    /// Requests that wait or run.
    pub pending: u32,
    /// How long one more request would wait.
    pub wait: Duration,
    /// How long a request runs.
    pub service: Duration,
}

/// A replica says that it is still there, and how busy it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub id: String,
    /// As it announced.
    pub epoch: u64,
    /// Grows with every message of one epoch.
    pub seq: u64,
    /// The `seq` of the announcement whose offers the loads belong to.
    pub announced: u64,
    /// It takes no more requests.
    pub draining: bool,
    /// One for each of the offers, in their order.
    pub loads: Vec<Load>,
}

/// What a registry says to a message that it could read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is written down, and the lease begins anew.
    Accepted,
    /// The registry does not know enough of the replica: it is to announce itself.
    AnnounceAgain,
    /// A later start of this replica is known, or it has left: this one is to stop.
    StaleEpoch {
        /// The newest epoch.
        latest: u64,
    },
    /// A later message of the same epoch was there before; this one made no difference.
    Outdated {
        /// The `seq` of that message.
        latest: u64,
    },
}

/// A message that breaks the rules. It made no difference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// There is no room for another replica.
    #[error("the registry has {max} replicas, which is all it takes; raise the limit or let some leave")]
    Full {
        /// The limit.
        max: usize,
    },
    /// The replica's id is empty or has something that is no visible ASCII character.
    #[error("the id of a replica must be 1 or more visible ASCII characters; the one given has {len} bytes")]
    Id {
        /// Its length in bytes.
        len: usize,
    },
    /// The endpoint is no address of a server.
    #[error("the endpoint of replica '{id}' must be http://… or https://… in visible ASCII characters")]
    Endpoint {
        /// The replica.
        id: String,
    },
    /// A text is too long.
    #[error("{what} has {len} bytes, at most {max} are allowed; shorten it")]
    TextTooLong {
        /// What it is: `an id`, `an endpoint`, `a key`, `a value` or `an upgrade rule`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A replica has too many capabilities.
    #[error("replica '{id}' has {count} capabilities, at most {max} are allowed; split it")]
    TooManyCapabilities {
        /// The replica.
        id: String,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A capability has too many keys.
    #[error("capability {place} of replica '{id}' has {count} keys, at most {max} are allowed")]
    TooManyKeys {
        /// The replica.
        id: String,
        /// The place of the capability among its offers, from 0.
        place: usize,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A replica has too many upgrade rules.
    #[error("replica '{id}' has {count} upgrade rules, at most {max} are allowed")]
    TooManyUpgrades {
        /// The replica.
        id: String,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A heartbeat does not fit its announcement.
    #[error("a heartbeat of replica '{id}' has {count} loads for {expected} capabilities")]
    Loads {
        /// The replica.
        id: String,
        /// How many came.
        count: usize,
        /// How many capabilities it announced.
        expected: usize,
    },
}

// === impl Announce ===

impl Announce {
    pub(crate) fn check(&self, limits: &RegistryLimits) -> Result<(), MessageError> {
        check_id(&self.id, limits)?;
        check_text("an endpoint", &self.endpoint, limits)?;
        if !is_endpoint(&self.endpoint) {
            return Err(MessageError::Endpoint { id: self.id.clone() });
        }
        let (count, max) = (self.offers.len(), limits.max_capabilities);
        if count > max {
            return Err(MessageError::TooManyCapabilities { id: self.id.clone(), count, max });
        }
        self.offers.iter().enumerate().try_for_each(|(place, offer)| self.check_offer(place, offer, limits))?;
        check_upgrades(&self.id, self.upgrades.iter().map(ToString::to_string), limits)
    }

    fn check_offer(&self, place: usize, offer: &Offer, limits: &RegistryLimits) -> Result<(), MessageError> {
        let (count, max) = (offer.capability.len(), limits.max_keys);
        if count > max {
            return Err(MessageError::TooManyKeys { id: self.id.clone(), place, count, max });
        }
        for (key, value) in offer.capability.iter() {
            check_text("a key", key, limits)?;
            if let Value::Text(text) = value {
                check_text("a value", text, limits)?;
            }
        }
        Ok(())
    }
}

fn check_text(what: &'static str, text: &str, limits: &RegistryLimits) -> Result<(), MessageError> {
    check_len(what, text, limits.max_text)
}

fn check_len(what: &'static str, text: &str, max: usize) -> Result<(), MessageError> {
    let len = text.len();
    if len > max { Err(MessageError::TextTooLong { what, len, max }) } else { Ok(()) }
}

/// Checks the number of upgrade rules and the length of each, as texts, before anything is made of them.
///
/// # Errors
/// [`MessageError`] with both numbers.
pub fn check_upgrades<T: AsRef<str>>(
    id: &str,
    mut rules: impl ExactSizeIterator<Item = T>,
    limits: &RegistryLimits,
) -> Result<(), MessageError> {
    let (count, max) = (rules.len(), limits.max_upgrades);
    if count > max {
        return Err(MessageError::TooManyUpgrades { id: id.to_owned(), count, max });
    }
    rules.try_for_each(|rule| check_len("an upgrade rule", rule.as_ref(), limits.max_upgrade))
}

/// An id stands in headers and logs, so it is visible and short.
pub(crate) fn check_id(id: &str, limits: &RegistryLimits) -> Result<(), MessageError> {
    check_text("an id", id, limits)?;
    let visible = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
    if visible { Ok(()) } else { Err(MessageError::Id { len: id.len() }) }
}

fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}
