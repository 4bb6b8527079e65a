//! The capabilities whose value of one key is a number, in the order of the numbers.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;

use super::bits::Bits;
use super::set::Set;
use crate::Value;

/// From here on two whole numbers may be one float.
const WIDE: u64 = 1 << 53;

/// Shorter runs of numbers are taken one by one.
const SHORT: usize = 64;

/// Who has which number.
///
/// A run of numbers comes to a set: who has one of the first so many, without who has one of the first so many less.
pub(super) struct Numbers {
    /// Every number, as the float that comparisons take it for, with its place; by number, and then by place.
    sorted: Vec<(f64, u32)>,
    /// Who has one of the first none, of the first `step`, of the first `2 * step` numbers, and so on.
    kept: Vec<Bits>,
    /// As many as a set of bits has words: then what is not kept takes about as long to set as a set takes to copy.
    step: usize,
    /// Who has which whole number that its float does not tell from its neighbours, and who has any such number.
    wide: HashMap<i64, Set>,
    all_wide: Set,
    of: u32,
}

// === impl Numbers ===

impl Numbers {
    /// Of one key's values with their places, which are in order and below `of`. What is no number is left out.
    pub(super) fn new(values: &[(u32, &Value)], of: u32) -> Self {
        let number = |(place, value): &(u32, &Value)| Some((value.as_number()?, *place));
        let mut sorted: Vec<(f64, u32)> = values.iter().filter_map(number).collect();
        sorted.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let step = Bits::words(of).max(SHORT);
        let wide = wide(values, of);
        let mut all_wide = Set::default();
        for some in wide.values() {
            all_wide.add(some);
        }
        Self { kept: running(&sorted, step, of), sorted, step, wide, all_wide, of }
    }

    /// Who has the number that a text spells.
    pub(super) fn spelled(&self, text: &str) -> Option<Set> {
        let number: f64 = text.parse().ok()?;
        let run = self.rank(|own| own < number)..self.rank(|own| own <= number);
        let alike = (!run.is_empty()).then(|| self.set(run))?;
        match text.parse() {
            Ok(whole) if is_wide(whole) => Some(self.exactly(whole, alike)),
            _ => Some(alike),
        }
    }

    /// Of those with the same float, who has this whole number, or was given as a float.
    fn exactly(&self, whole: i64, mut alike: Set) -> Set {
        alike.remove(&self.all_wide);
        self.wide.get(&whole).into_iter().for_each(|own| alike.add(own));
        alike
    }

    /// Who has a number below this. Nothing is below, above or equal to what is not a number.
    pub(super) fn below(&self, bound: f64) -> Set {
        self.set(0..self.rank(|own| own < bound))
    }

    /// Who has a number not above this.
    pub(super) fn up_to(&self, bound: f64) -> Set {
        self.set(0..self.rank(|own| own <= bound))
    }

    /// Who has a number above this.
    pub(super) fn above(&self, bound: f64) -> Set {
        self.set(self.rank(|own| own.partial_cmp(&bound).is_none_or(Ordering::is_le))..self.sorted.len())
    }

    /// Who has a number not below this.
    pub(super) fn from(&self, bound: f64) -> Set {
        self.set(self.rank(|own| own.partial_cmp(&bound).is_none_or(Ordering::is_lt))..self.sorted.len())
    }

    /// How many numbers there are before the first that `before` does not hold for.
    fn rank(&self, before: impl Fn(f64) -> bool) -> usize {
        self.sorted.partition_point(|(own, _)| before(*own))
    }

    /// Who has a number of this run.
    fn set(&self, run: Range<usize>) -> Set {
        if run.len() < SHORT {
            let mut places: Vec<u32> = self.sorted[run].iter().map(|(_, place)| *place).collect();
            places.sort_unstable();
            return Set::new(&places, self.of);
        }
        let (start, rest_of_start) = self.first(run.start);
        let (end, rest_of_end) = self.first(run.end);
        let mut bits = end.clone();
        for (_, place) in rest_of_end {
            bits.set(*place);
        }
        bits.remove(start);
        for (_, place) in rest_of_start {
            bits.clear(*place);
        }
        Set::Many(bits)
    }

    /// The first so many numbers: the set that is kept of most of them, and the rest.
    fn first(&self, len: usize) -> (&Bits, &[(f64, u32)]) {
        let most = len / self.step;
        (&self.kept[most], &self.sorted[most * self.step..len])
    }
}

fn is_wide(whole: i64) -> bool {
    whole.unsigned_abs() >= WIDE
}

fn wide(values: &[(u32, &Value)], of: u32) -> HashMap<i64, Set> {
    let mut places: HashMap<i64, Vec<u32>> = HashMap::new();
    for (place, value) in values {
        if let Value::Int(whole) = value
            && is_wide(*whole)
        {
            places.entry(*whole).or_default().push(*place);
        }
    }
    places.into_iter().map(|(whole, places)| (whole, Set::new(&places, of))).collect()
}

fn running(sorted: &[(f64, u32)], step: usize, of: u32) -> Vec<Bits> {
    let mut kept = vec![Bits::none(of)];
    for numbers in sorted.chunks_exact(step) {
        let mut next = kept[kept.len() - 1].clone();
        for (_, place) in numbers {
            next.set(*place);
        }
        kept.push(next);
    }
    kept
}
