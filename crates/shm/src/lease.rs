//! Bounds of leases.

use std::time::Duration;

use anyserve_core::Lease;

/// The longest lease.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;

/// The lease within its bounds: at least a millisecond and at most [`MAX_TTL`].
pub(crate) fn bounded(mut lease: Lease) -> Lease {
    lease.ttl = lease.ttl.clamp(Duration::from_millis(1), MAX_TTL);
    lease
}
