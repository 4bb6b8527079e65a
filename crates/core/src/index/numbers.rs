//! The capabilities whose value of one key is a number, in the order of the numbers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use roaring::RoaringBitmap;

use crate::Value;

/// Places that a comparison removes at most from a set that is kept.
const STEP: u64 = 512;

/// Below this many, places are removed one by one faster than as a set.
const FEW: u64 = 16;

/// From here on two whole numbers may be one float.
const WIDE: u64 = 1 << 53;

/// Who has which number.
pub(super) struct Numbers {
    all: RoaringBitmap,
    /// Every number once, as the float that comparisons take it for, with who has it; in order.
    values: Vec<(f64, RoaringBitmap)>,
    /// How many of `values` are in a set that is kept, and that set; in order, the first empty.
    kept: Vec<(usize, RoaringBitmap)>,
    /// Who has which whole number that its float does not tell from its neighbours.
    wide: HashMap<i64, RoaringBitmap>,
    all_wide: RoaringBitmap,
}

// === impl Numbers ===

impl Numbers {
    /// Of one key's values with the places of their capabilities. What is no number is left out.
    pub(super) fn new(values: &[(u32, &Value)]) -> Self {
        let mut wide: HashMap<i64, RoaringBitmap> = HashMap::new();
        for (place, value) in values {
            if let Value::Int(whole) = value
                && is_wide(*whole)
            {
                wide.entry(*whole).or_default().insert(*place);
            }
        }
        let all_wide = wide.values().fold(RoaringBitmap::new(), |all, some| all | some);
        let values = grouped(values.iter().filter_map(|(place, value)| Some((value.as_number()?, *place))));
        let (kept, all) = running(&values);
        Self { all, values, kept, wide, all_wide }
    }

    /// Who has the number that a text spells; `None` if nobody has.
    pub(super) fn spelled(&self, text: &str) -> Option<Cow<'_, RoaringBitmap>> {
        let number: f64 = text.parse().ok()?;
        let place = self.values.binary_search_by(|(own, _)| own.total_cmp(&(number + 0.0))).ok()?;
        let alike = &self.values[place].1;
        match text.parse() {
            Ok(whole) if is_wide(whole) => Some(Cow::Owned(self.exactly(whole, alike))),
            _ => Some(Cow::Borrowed(alike)),
        }
    }

    /// Of those with the same float, who has this whole number, or was given as a float.
    fn exactly(&self, whole: i64, alike: &RoaringBitmap) -> RoaringBitmap {
        let floats = alike - &self.all_wide;
        self.wide.get(&whole).map_or_else(|| floats.clone(), |whole| &floats | whole)
    }

    /// Keeps of a set who has a number below this.
    pub(super) fn keep_below(&self, bound: f64, set: &mut RoaringBitmap) {
        self.keep_first(self.values.partition_point(|(own, _)| *own < bound), set);
    }

    /// Keeps of a set who has a number not above this.
    pub(super) fn keep_up_to(&self, bound: f64, set: &mut RoaringBitmap) {
        self.keep_first(self.values.partition_point(|(own, _)| *own <= bound), set);
    }

    /// Keeps of a set who has a number above this.
    pub(super) fn keep_above(&self, bound: f64, set: &mut RoaringBitmap) {
        self.keep_after(self.values.partition_point(|(own, _)| *own <= bound), bound, set);
    }

    /// Keeps of a set who has a number not below this.
    pub(super) fn keep_from(&self, bound: f64, set: &mut RoaringBitmap) {
        self.keep_after(self.values.partition_point(|(own, _)| *own < bound), bound, set);
    }

    /// Keeps of a set who has one of the first so many numbers.
    fn keep_first(&self, len: usize, set: &mut RoaringBitmap) {
        let (kept, first) = &self.kept[self.kept.partition_point(|(kept, _)| *kept < len)];
        *set &= first;
        self.remove(len..*kept, set);
    }

    /// Keeps of a set who has a number, but none of the first so many. None is above what is not a number.
    fn keep_after(&self, len: usize, bound: f64, set: &mut RoaringBitmap) {
        if bound.is_nan() {
            set.clear();
            return;
        }
        let (kept, first) = &self.kept[self.kept.partition_point(|(kept, _)| *kept <= len) - 1];
        *set &= &self.all;
        *set -= first;
        self.remove(*kept..len, set);
    }

    fn remove(&self, numbers: Range<usize>, set: &mut RoaringBitmap) {
        for (_, some) in &self.values[numbers] {
            if some.len() < FEW {
                some.iter().for_each(|place| _ = set.remove(place));
            } else {
                *set -= some;
            }
        }
    }
}

fn is_wide(whole: i64) -> bool {
    whole.unsigned_abs() >= WIDE
}

/// Every number once, in order, with who has it. The two zeros are one number.
fn grouped(numbers: impl Iterator<Item = (f64, u32)>) -> Vec<(f64, RoaringBitmap)> {
    let mut numbers: Vec<_> = numbers.map(|(number, place)| (number + 0.0, place)).collect();
    numbers.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let groups = numbers.chunk_by(|(one, _), (other, _)| one.total_cmp(other).is_eq());
    groups.map(|group| (group[0].0, group.iter().map(|(_, place)| *place).collect())).collect()
}

/// The sets to keep, and the set of all, which is the last of them.
fn running(values: &[(f64, RoaringBitmap)]) -> (Vec<(usize, RoaringBitmap)>, RoaringBitmap) {
    let (mut all, mut since) = (RoaringBitmap::new(), 0);
    let mut kept = vec![(0, RoaringBitmap::new())];
    for (place, (_, some)) in values.iter().enumerate() {
        all |= some;
        since += some.len();
        if since >= STEP || place + 1 == values.len() {
            kept.push((place + 1, all.clone()));
            since = 0;
        }
    }
    (kept, all)
}
