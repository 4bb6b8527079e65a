//! How long an object is kept, and for whom.

use std::time::Duration;

/// What an object was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How long it lives from now.
    pub ttl: Duration,
    /// Under which name it can be looked up. A newer object under the same name takes its place for new readers.
    pub key: Option<String>,
    /// It may be evicted when room is needed.
    pub cacheable: bool,
    /// It outlives this replica.
    pub durable: bool,
}

/// The lease of objects whose maker says nothing else.
pub const DEFAULT_TTL: Duration = Duration::from_mins(10);
/// The longest lease.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;

// === impl Lease ===

impl Default for Lease {
    /// Ten minutes, without a name, neither evicted nor kept.
    fn default() -> Self {
        Self { ttl: DEFAULT_TTL, key: None, cacheable: false, durable: false }
    }
}

impl Lease {
    /// The lease within its bounds: at least a millisecond and at most [`MAX_TTL`].
    pub(crate) fn bounded(mut self) -> Self {
        self.ttl = self.ttl.clamp(Duration::from_millis(1), MAX_TTL);
        self
    }
}
