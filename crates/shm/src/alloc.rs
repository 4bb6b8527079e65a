//! Which bytes of the arena are taken: best fit, lowest address first, neighbours joined at once.
//!
//! Pure and outside of the memory that it divides, so that nobody who writes to the arena can confuse it.

use std::collections::{BTreeMap, BTreeSet};

/// Every block begins on such a boundary, in bytes: a cache line, and more than any datatype needs.
pub const ALIGNMENT: u64 = 64;

/// The free bytes of an arena, by address and by size.
#[derive(Debug)]
pub struct Allocator {
    capacity: u64,
    free: u64,
    /// Length of each free run, by its start. No two touch.
    by_start: BTreeMap<u64, u64>,
    /// The same runs as (length, start).
    by_len: BTreeSet<(u64, u64)>,
}

/// What `len` bytes take; `None` for more than can be counted.
pub(crate) fn rounded(len: u64) -> Option<u64> {
    len.max(1).checked_next_multiple_of(ALIGNMENT)
}

// === impl Allocator ===

impl Allocator {
    /// An empty arena of `capacity` bytes, rounded down to the alignment.
    pub fn new(capacity: u64) -> Self {
        let capacity = capacity - capacity % ALIGNMENT;
        let mut new = Self { capacity, free: 0, by_start: BTreeMap::new(), by_len: BTreeSet::new() };
        if capacity > 0 {
            new.insert(0, capacity);
        }
        new
    }

    /// Takes `len` bytes, rounded up to the alignment. Returns where they begin, or `None` if no free run is long enough.
    pub fn allocate(&mut self, len: u64) -> Option<u64> {
        let len = rounded(len)?;
        let &(run, start) = self.by_len.range((len, 0)..).next()?;
        self.remove(start, run);
        if run > len {
            self.insert(start + len, run - len);
        }
        Some(start)
    }

    /// Gives back what [`allocate`](Self::allocate) took: the same start, the same length or, after a
    /// [`shrink`](Self::shrink), the shorter one.
    pub fn release(&mut self, start: u64, len: u64) {
        let len = rounded(len).expect("it was rounded when it was taken");
        let (mut from, mut to) = (start, start + len);
        if let Some((&before, &run)) = self.by_start.range(..start).next_back()
            && before + run == start
        {
            self.remove(before, run);
            from = before;
        }
        if let Some(&run) = self.by_start.get(&to) {
            self.remove(to, run);
            to += run;
        }
        self.insert(from, to - from);
    }

    /// Gives back the end of a run that turned out to be too long.
    pub fn shrink(&mut self, start: u64, len: u64, wanted: u64) {
        let (Some(len), Some(wanted)) = (rounded(len), rounded(wanted)) else { return };
        if wanted < len {
            self.release(start + wanted, len - wanted);
        }
    }

    /// Bytes that are free, in however many runs.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        self.capacity - self.free
    }

    /// All bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The longest free run, in bytes.
    pub fn longest(&self) -> u64 {
        self.by_len.last().map_or(0, |(len, _)| *len)
    }

    fn insert(&mut self, start: u64, len: u64) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
        self.free += len;
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
        self.free -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_take_at_least_one_line() {
        let mut arena = Allocator::new(1000);
        assert_eq!(arena.capacity(), 960);
        assert_eq!((arena.allocate(0), arena.allocate(64), arena.allocate(65)), (Some(0), Some(64), Some(128)));
        assert_eq!(arena.used(), 256);
    }

    #[test]
    fn the_last_byte_can_be_taken_and_no_more() {
        let mut arena = Allocator::new(128);
        assert_eq!(arena.allocate(129), None);
        assert_eq!(arena.allocate(128), Some(0));
        assert_eq!(arena.allocate(1), None);
        arena.release(0, 128);
        assert_eq!((arena.allocate(u64::MAX), arena.longest()), (None, 128));
    }

    #[test]
    fn neighbours_are_joined_whichever_is_given_back_first() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut arena = Allocator::new(192);
            let starts = [(); 3].map(|()| arena.allocate(64).unwrap());
            for place in order {
                arena.release(starts[place], 64);
            }
            assert_eq!((arena.longest(), arena.by_start.len()), (192, 1), "{order:?}");
        }
    }

    #[test]
    fn the_end_of_a_block_comes_back() {
        let mut arena = Allocator::new(640);
        let start = arena.allocate(640).unwrap();
        arena.shrink(start, 640, 65);
        assert_eq!((arena.used(), arena.allocate(1)), (128, Some(128)));
        arena.shrink(start, 65, 128);
        arena.release(start, 65);
        assert_eq!(arena.used(), 64);
    }
}
