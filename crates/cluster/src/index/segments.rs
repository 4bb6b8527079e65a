//! A growing and shrinking set of capabilities, as a few prepared lists that never change.
//!
//! New ones go to the tail. A full tail becomes a segment together with segments that are not larger, as long as that
//! is not too much for one: each capability is prepared a few times in its life, and never many at once. In a segment
//! those that are gone are skipped; one that is half empty is given up, and what is left goes to the tail.
//!
//! Source: the logarithmic method, Bentley and Saxe, "Decomposable searching problems", 1980, with a bound.

use anyserve_core::{Index, Query};
use slab::Slab;

use super::{Best, Known, unmentioned, wide};

/// Capabilities that are compared one by one at most.
const TAIL: usize = 128;
/// Capabilities of one segment at most.
const SEGMENT: usize = 4096;
/// Stands for one that is gone.
const GONE: u32 = u32::MAX;

/// Capabilities by their numbers.
#[derive(Default)]
pub(super) struct Segments {
    tail: Vec<u32>,
    lists: Slab<Segment>,
    /// Where each number is.
    homes: Vec<Home>,
}

struct Segment {
    index: Index,
    numbers: Vec<u32>,
    living: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Nowhere,
    Tail,
    Segment { segment: usize, place: usize },
}

// === impl Segments ===

impl Segments {
    pub(super) fn insert(&mut self, number: u32, known: &Slab<Known>) {
        if self.homes.len() <= wide(number) {
            self.homes.resize(wide(number) + 1, Home::Nowhere);
        }
        self.push(number);
        self.seal_if_full(known);
    }

    pub(super) fn remove(&mut self, number: u32, known: &Slab<Known>) {
        match std::mem::replace(&mut self.homes[wide(number)], Home::Nowhere) {
            Home::Nowhere => {}
            Home::Tail => self.tail.retain(|other| *other != number),
            Home::Segment { segment, place } => {
                let one = &mut self.lists[segment];
                one.numbers[place] = GONE;
                one.living -= 1;
                if one.living * 2 < one.numbers.len() {
                    self.take(segment).into_iter().for_each(|number| self.push(number));
                    self.seal_if_full(known);
                }
            }
        }
    }

    /// The most specific matches among those that `keep` says yes to.
    pub(super) fn best(&self, query: &Query, known: &Slab<Known>, keep: &impl Fn(u32) -> bool) -> Best {
        let mut best = Best::default();
        let rank = |number: u32| unmentioned(query, known[wide(number)].capability());
        for number in &self.tail {
            if let Some(rank) = rank(*number).filter(|_| keep(*number)) {
                best.add(rank, *number);
            }
        }
        for (_, segment) in &self.lists {
            let found = segment.best(query, keep);
            let Some(rank) = found.first().and_then(|first| rank(*first)) else { continue };
            if best.numbers.is_empty() || rank < best.unmentioned {
                best = Best { unmentioned: rank, numbers: found };
            } else if rank == best.unmentioned {
                best.numbers.extend(found);
            }
        }
        best.numbers.sort_unstable();
        best
    }

    fn push(&mut self, number: u32) {
        self.homes[wide(number)] = Home::Tail;
        self.tail.push(number);
    }

    fn seal_if_full(&mut self, known: &Slab<Known>) {
        while self.tail.len() >= TAIL {
            let rest = self.tail.split_off(self.tail.len().min(SEGMENT));
            let mut numbers = std::mem::replace(&mut self.tail, rest);
            while let Some(segment) = self.small(numbers.len()) {
                numbers.extend(self.take(segment));
            }
            self.seal(numbers, known);
        }
    }

    /// A segment that is not larger than what it would be put together with.
    fn small(&self, len: usize) -> Option<usize> {
        let smallest = self.lists.iter().min_by_key(|(_, segment)| segment.living);
        smallest.filter(|(_, one)| one.living <= len && one.living + len <= SEGMENT).map(|(segment, _)| segment)
    }

    fn seal(&mut self, numbers: Vec<u32>, known: &Slab<Known>) {
        let index = Index::new(numbers.iter().map(|number| known[wide(*number)].capability()));
        let vacant = self.lists.vacant_entry();
        for (place, number) in numbers.iter().enumerate() {
            self.homes[wide(*number)] = Home::Segment { segment: vacant.key(), place };
        }
        vacant.insert(Segment { index, living: numbers.len(), numbers });
    }

    /// Gives a segment up. Those that live in it are returned, and have no home.
    fn take(&mut self, segment: usize) -> Vec<u32> {
        let mut numbers = self.lists.remove(segment).numbers;
        numbers.retain(|number| *number != GONE);
        numbers
    }
}

// === impl Segment ===

impl Segment {
    fn best(&self, query: &Query, keep: &impl Fn(u32) -> bool) -> Vec<u32> {
        let number = |place: u32| self.numbers[wide(place)];
        let kept = |place| number(place) != GONE && keep(number(place));
        self.index.best_where(query, kept).iter().map(|place| number(*place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CapabilityIndex;
    use anyserve_core::{Capability, Value};

    fn sized(number: i64) -> Capability {
        Capability::try_new([("size".to_owned(), Value::Int(number))]).unwrap()
    }

    fn lens(index: &CapabilityIndex) -> (usize, Vec<usize>) {
        let mut lens: Vec<_> = index.segments.lists.iter().map(|(_, one)| one.numbers.len()).collect();
        lens.sort_unstable();
        (index.segments.tail.len(), lens)
    }

    #[test]
    fn a_full_tail_becomes_a_segment_and_small_segments_become_larger_ones() {
        let mut index = CapabilityIndex::default();
        let mut add = |upto: i64| {
            (i64::try_from(index.len()).unwrap()..upto).for_each(|number| _ = index.acquire(&sized(number)));
            lens(&index)
        };
        assert_eq!(add(127), (127, vec![]));
        assert_eq!(add(128), (0, vec![128]));
        assert_eq!(add(256), (0, vec![256]));
        assert_eq!(add(385), (1, vec![128, 256]));
        assert_eq!(add(4_096), (0, vec![4_096]));
        assert_eq!(add(8_192), (0, vec![4_096, 4_096]));
    }

    #[test]
    fn a_segment_that_is_more_than_half_empty_is_given_up() {
        let mut index = CapabilityIndex::default();
        let numbers: Vec<_> = (0..128).map(|number| index.acquire(&sized(number))).collect();
        numbers[..64].iter().for_each(|number| assert!(index.release(*number)));
        assert_eq!(lens(&index), (0, vec![128]));
        assert!(index.release(numbers[64]));
        assert_eq!(lens(&index), (63, vec![]));
        assert_eq!(index.best(&Query::parse("size>=0").unwrap()).len(), 63);
        assert_eq!(index.len(), 63);
    }
}
