//! Where in the segment is what, and the clock that all of its processes read.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::protocol::{Cell, Pin};

/// What both ends must agree on about a segment: the directory, then the arena, each on a page of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Cells of the directory.
    pub entries: u32,
    /// Bytes of the arena, a multiple of the page size.
    pub capacity: u64,
    /// The instant that uses are counted from, in nanoseconds of the monotonic clock.
    pub epoch_ns: u64,
}

/// The size that every part is a multiple of. The largest page there is on the machines that this runs on.
pub(crate) const PAGE: u64 = 64 << 10;
/// An arena has one cell for so many bytes, on average.
const BYTES_PER_ENTRY: u64 = 4 << 10;
const LEAST_ENTRIES: u64 = 1 << 10;
const MOST_ENTRIES: u64 = 1 << 20;

// === impl Layout ===

impl Layout {
    /// A layout for an arena of at least `capacity` bytes.
    pub(crate) fn of(capacity: u64, now: Instant) -> Option<Self> {
        let capacity = capacity.checked_next_multiple_of(PAGE)?;
        let entries = (capacity / BYTES_PER_ENTRY).clamp(LEAST_ENTRIES, MOST_ENTRIES);
        let entries = u32::try_from(entries).ok()?;
        Some(Self { entries, capacity, epoch_ns: monotonic_ns(now, now) })
    }

    /// Bytes of the directory, and where the arena begins.
    pub(crate) fn directory_len(&self) -> u64 {
        pages(u64::from(self.entries) * size_of::<Cell>() as u64)
    }

    /// Bytes of one worker's pins.
    pub(crate) fn pins_len(&self) -> u64 {
        pages(u64::from(self.entries) * size_of::<Pin>() as u64)
    }

    /// Bytes of the segment.
    pub(crate) fn segment_len(&self) -> u64 {
        self.directory_len() + self.capacity
    }
}

fn pages(len: u64) -> u64 {
    len.next_multiple_of(PAGE)
}

/// What the monotonic clock shows now, in nanoseconds.
pub(crate) fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// What the monotonic clock shows at an instant, given an instant that has just been.
pub(crate) fn monotonic_ns(at: Instant, now: Instant) -> u64 {
    let later = at.saturating_duration_since(now);
    clock_ns().saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX))
}

/// Steps of time since the epoch, as the table counts them.
pub(crate) fn stamp(epoch_ns: u64) -> u32 {
    let since = Duration::from_nanos(clock_ns().saturating_sub(epoch_ns));
    u32::try_from(since.as_millis() / crate::table::TICK.as_millis()).unwrap_or(u32::MAX)
}
