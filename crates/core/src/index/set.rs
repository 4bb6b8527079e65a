//! A set of places, kept in the way that suits how many there are.

use std::ops::Range;

use roaring::RoaringBitmap;

use super::bits::Bits;

/// Many places have a bit for each that could be in the set, so that an operation goes through words, 64 places at a
/// time. Few, fewer than there would be words, are a list. All sets of an index are of places below the same number.
#[derive(Clone)]
pub(super) enum Set {
    Few(RoaringBitmap),
    Many(Bits),
}

// === impl Set ===

impl Set {
    /// These places, which are in order and below `of`.
    pub(super) fn new(places: &[u32], of: u32) -> Self {
        if places.len() >= Bits::words(of) {
            return Self::Many(Bits::new(places.iter().copied(), of));
        }
        let few = RoaringBitmap::from_sorted_iter(places.iter().copied()).expect("they are in order");
        // A clone has no spare capacity, which an index of many small sets would mostly consist of.
        Self::Few(few.clone())
    }

    /// How many there are, if they are few.
    pub(super) fn few(&self) -> Option<u64> {
        match self {
            Self::Few(few) => Some(few.len()),
            Self::Many(_) => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.min().is_none()
    }

    /// The lowest place.
    pub(super) fn min(&self) -> Option<u32> {
        match self {
            Self::Few(few) => few.min(),
            Self::Many(many) => many.min(),
        }
    }

    /// Keeps what is in the other set too.
    pub(super) fn keep(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Few(own), Self::Few(other)) => *own &= other,
            (Self::Few(own), Self::Many(other)) => own.retain(|place| other.has(place)),
            (Self::Many(own), Self::Few(other)) => {
                *self = Self::Few(other.iter().filter(|place| own.has(*place)).collect());
            }
            (Self::Many(own), Self::Many(other)) => own.keep(other),
        }
    }

    /// Removes what is in the other set.
    pub(super) fn remove(&mut self, other: &Self) {
        match (self, other) {
            (Self::Few(own), Self::Few(other)) => *own -= other,
            (Self::Few(own), Self::Many(other)) => own.retain(|place| !other.has(place)),
            (Self::Many(own), Self::Few(other)) => other.iter().for_each(|place| own.clear(place)),
            (Self::Many(own), Self::Many(other)) => own.remove(other),
        }
    }

    /// Adds what is in the other set.
    pub(super) fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Few(own), Self::Few(other)) => *own |= other,
            (Self::Few(own), Self::Many(other)) => {
                let mut all = other.clone();
                own.iter().for_each(|place| all.set(place));
                *self = Self::Many(all);
            }
            (Self::Many(own), Self::Few(other)) => other.iter().for_each(|place| own.set(place)),
            (Self::Many(own), Self::Many(other)) => own.add(other),
        }
    }

    /// Keeps what `keep` says yes to.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        match self {
            Self::Few(few) => few.retain(keep),
            Self::Many(many) => many.retain(keep),
        }
    }

    /// Appends the places in a range to a list, in order.
    pub(super) fn append_to(&self, list: &mut Vec<u32>, range: Range<u32>) {
        match self {
            Self::Few(few) => list.extend(few.range(range)),
            Self::Many(many) => list.extend(many.range(range)),
        }
    }
}

impl Default for Set {
    /// The empty set.
    fn default() -> Self {
        Self::Few(RoaringBitmap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 640 places, for which there are 10 words.
    const OF: u32 = 640;

    fn places(set: &Set) -> Vec<u32> {
        let mut list = Vec::new();
        set.append_to(&mut list, 0..OF);
        list
    }

    fn after(operation: fn(&mut Set, &Set), own: &[u32], other: &[u32]) -> Vec<u32> {
        let mut set = Set::new(own, OF);
        operation(&mut set, &Set::new(other, OF));
        assert_eq!(set.min(), places(&set).first().copied());
        places(&set)
    }

    #[test]
    fn few_places_are_a_list_and_many_are_bits() {
        let all: Vec<u32> = (0..OF).collect();
        assert_eq!(Set::new(&all[..9], OF).few(), Some(9));
        assert_eq!(Set::new(&all[..10], OF).few(), None);
        assert!(Set::default().is_empty() && Set::new(&[], OF).is_empty() && Set::new(&[], 0).is_empty());
    }

    #[test]
    fn few_and_many_are_kept_removed_and_added_alike() {
        let some = |from: u32, step: u32| (from..OF).step_by(usize::try_from(step).unwrap()).collect::<Vec<_>>();
        let lists = [vec![], vec![0, 63, 64, 639], some(0, 100), some(0, 3), some(1, 2), some(0, 1)];
        for own in &lists {
            for other in &lists {
                let kept: Vec<u32> = own.iter().copied().filter(|place| other.contains(place)).collect();
                let left: Vec<u32> = own.iter().copied().filter(|place| !other.contains(place)).collect();
                let mut all = [&left[..], other].concat();
                all.sort_unstable();
                assert_eq!(after(Set::keep, own, other), kept);
                assert_eq!(after(Set::remove, own, other), left);
                assert_eq!(after(Set::add, own, other), all);
            }
        }
    }
}
