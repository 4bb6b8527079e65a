//! Numbers that look random and are the same in every process and release.

use xxhash_rust::xxh3::xxh3_64;

/// Scatters a number over all of `u64`. It has an inverse, so different numbers stay different.
///
/// Source: the finalizer of `SplitMix64`, Steele, Lea and Flood, 2014.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash of some bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A place in `0..len` that a number stands for, every place as often as another. `len` is not 0.
pub(crate) fn place(number: u64, len: usize) -> usize {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    let scaled = (u128::from(mix(number)) * u128::from(len)) >> 64;
    usize::try_from(scaled).expect("it is below a length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_within_the_length_and_all_are_taken() {
        for len in [1, 2, 3, 7] {
            let mut taken = vec![0_u32; len];
            (0..1_000).for_each(|number| taken[place(number, len)] += 1);
            let fair = 1_000 / u32::try_from(len).unwrap();
            assert!(taken.iter().all(|count| *count > fair / 2), "{taken:?}");
        }
    }
}
