//! What all handles on the plane share: the table under its lock, and the memory that its changes are shown in.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyserve_core::StoreId;
use parking_lot::Mutex;

use super::{PlaneError, STEP};
use crate::layout::{Layout, PAGE, monotonic_ns};
use crate::pins::PinTable;
use crate::protocol::{Cell, Found, Pin};
use crate::segment::Segment;
use crate::table::{Change, Pins, Table};
use crate::{Extent, Owner, Writer};

pub(super) struct Inner {
    pub(super) store: StoreId,
    pub(super) layout: Layout,
    pub(super) segment: Segment,
    pub(super) threshold: usize,
    /// Makes generations that cannot be guessed: a keyed hash of their number.
    pub(super) generations: RandomState,
    pub(super) next: AtomicU64,
    /// `parking_lot`: every hold is one event of the table, a microsecond as a rule.
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub(super) table: Table,
    pub(super) workers: Workers,
    /// Bytes of the arena whose pages are reserved, from its start.
    pub(super) reserved: u64,
}

#[derive(Default)]
pub(super) struct Workers(pub(super) BTreeMap<Owner, PinTable>);

// === impl Inner ===

impl Inner {
    /// One event of the table, and what it changes for workers.
    pub(super) fn event<R>(&self, event: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = Instant::now();
        let mut state = self.state.lock();
        let result = event(&mut state, now);
        self.carry_out(&mut state, now);
        result
    }

    pub(super) fn carry_out(&self, state: &mut State, now: Instant) {
        if !state.table.has_changes() {
            return;
        }
        for change in state.table.take_changes() {
            match change {
                Change::Publish(Extent { block, start, len }, expires) => {
                    let expires = expires.map_or(0, |at| monotonic_ns(at, now));
                    self.cell(block.index).publish(block.generation, Found { start, len, expires });
                }
                Change::Withdraw(index) => self.cell(index).withdraw(),
            }
        }
    }

    /// Makes something free that was not, for a writer who wants `len` bytes. False if there is nothing, or if it would not
    /// help.
    pub(super) fn make_room(&self, state: &mut State, (len, writer): (u64, Writer), now: Instant) -> bool {
        let before = state.table.usage().used;
        state.table.expire(now);
        self.carry_out(state, now);
        state.table.sweep(&state.workers, usize::MAX);
        if state.table.usage().used < before {
            return true;
        }
        let evicted = state.table.may_have(len, writer) && state.table.evict(&state.workers);
        self.carry_out(state, now);
        state.table.sweep(&state.workers, usize::MAX);
        evicted
    }

    /// Sees to it that a block has pages.
    pub(super) fn back(&self, state: &mut State, extent: Extent, writer: Writer) -> Result<Extent, PlaneError> {
        let end = (extent.start + extent.len).next_multiple_of(PAGE);
        if end <= state.reserved {
            return Ok(extent);
        }
        let wanted = [end.next_multiple_of(STEP).min(self.layout.capacity), end];
        let from = self.layout.directory_len() + state.reserved;
        let had = wanted.into_iter().find(|to| self.segment.reserve(from, to - state.reserved).is_ok());
        if let Some(to) = had {
            state.reserved = to;
            return Ok(extent);
        }
        state.table.discard(extent.block, writer);
        Err(PlaneError::FileSystem { len: end - state.reserved })
    }

    pub(super) fn generation(&self) -> u64 {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            match self.generations.hash_one(number) {
                0 => {}
                generation => return generation,
            }
        }
    }

    pub(super) fn arena(&self) -> *mut u8 {
        let directory = usize::try_from(self.layout.directory_len()).expect("the segment was mapped");
        self.segment.start().wrapping_add(directory)
    }

    #[allow(unsafe_code, clippy::cast_ptr_alignment)]
    fn cell(&self, index: u32) -> &Cell {
        assert!(index < self.layout.entries, "the table has as many places as the directory");
        let offset = usize::try_from(index).expect("an index fits in a usize") * size_of::<Cell>();
        // SAFETY: the directory begins at the segment's start, which is page-aligned, and has `entries` cells. Cells are
        // reached through atomics only, for which every bit pattern is a value, and live as long as the segment. Its
        // pages are reserved, and nobody truncates it: its file has no name.
        unsafe { &*self.segment.start().add(offset).cast::<Cell>() }
    }
}

// === impl Workers ===

impl Pins for Workers {
    fn is_pinned(&self, index: u32) -> bool {
        self.0.values().any(|pins| pins.pin(index).is_some_and(Pin::is_pinned))
    }

    fn last_used(&self, index: u32) -> Option<u32> {
        self.0.values().filter_map(|pins| pins.pin(index)).map(Pin::used).max()
    }
}
