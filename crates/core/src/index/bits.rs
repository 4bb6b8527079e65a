//! A set of places with a bit for each that could be in it.

use std::ops::Range;

/// Bit `n % 64` of word `n / 64` says whether place `n` is in the set.
#[derive(Clone)]
pub(super) struct Bits(Box<[u64]>);

// === impl Bits ===

impl Bits {
    /// Words that a set of places below `of` takes.
    pub(super) fn words(of: u32) -> usize {
        usize::try_from(of.div_ceil(64)).expect("a u32 fits")
    }

    /// The empty set of places below `of`.
    pub(super) fn none(of: u32) -> Self {
        Self(vec![0; Self::words(of)].into())
    }

    /// These places below `of`, in any order.
    pub(super) fn new(places: impl IntoIterator<Item = u32>, of: u32) -> Self {
        let mut bits = Self::none(of);
        places.into_iter().for_each(|place| bits.set(place));
        bits
    }

    pub(super) fn set(&mut self, place: u32) {
        let (word, bit) = at(place);
        self.0[word] |= bit;
    }

    pub(super) fn clear(&mut self, place: u32) {
        let (word, bit) = at(place);
        self.0[word] &= !bit;
    }

    pub(super) fn has(&self, place: u32) -> bool {
        let (word, bit) = at(place);
        self.0[word] & bit != 0
    }

    /// Keeps what is in the other set too.
    pub(super) fn keep(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own &= other);
    }

    /// Removes what is in the other set.
    pub(super) fn remove(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own &= !other);
    }

    /// Adds what is in the other set.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    /// Keeps what `keep` says yes to.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for (word, bits) in self.0.iter_mut().enumerate() {
            let dropped = ones(word, *bits).filter(|place| !keep(*place));
            *bits = dropped.fold(*bits, |bits, place| bits & !at(place).1);
        }
    }

    /// The lowest place.
    pub(super) fn min(&self) -> Option<u32> {
        let word = self.0.iter().position(|word| *word != 0)?;
        Some(place(word, self.0[word]))
    }

    /// The places in a range, in order.
    pub(super) fn range(&self, range: Range<u32>) -> impl Iterator<Item = u32> {
        let (first, _) = at(range.start);
        let words = self.0.iter().enumerate().take(Self::words(range.end)).skip(first);
        words.flat_map(|(word, bits)| ones(word, *bits)).filter(move |place| range.contains(place))
    }
}

fn at(place: u32) -> (usize, u64) {
    (usize::try_from(place / 64).expect("a u32 fits"), 1 << (place % 64))
}

/// The place of the lowest bit of a word that has one.
fn place(word: usize, bits: u64) -> u32 {
    u32::try_from(word).expect("there are fewer words than places") * 64 + bits.trailing_zeros()
}

fn ones(word: usize, mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| place(word, bits));
        bits &= bits.wrapping_sub(1);
        lowest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_places_that_were_set_and_not_cleared() {
        let mut bits = Bits::new([0, 63, 64, 129], 130);
        assert!(bits.has(64) && !bits.has(65) && bits.min() == Some(0));
        bits.clear(0);
        assert_eq!(bits.min(), Some(63));
        assert_eq!(Bits::none(130).min(), None);
        assert_eq!(Bits::none(0).min(), None);
    }

    #[test]
    fn a_range_ends_within_a_word_as_well_as_at_its_edge() {
        let bits = Bits::new(0..200, 200);
        for range in [0..0, 0..1, 0..64, 1..63, 63..65, 64..128, 70..71, 128..200, 199..200, 200..200] {
            assert!(bits.range(range.clone()).eq(range.clone()), "{range:?}");
        }
    }
}
