//! What a name that nobody knows was meant to be: the known one that differs from it by the fewest slips.

/// Bytes of a name beyond which it is near to nothing.
pub(crate) const MAX_LEN: usize = 64;

/// A row of distances: to every beginning of a name.
type Row = [u8; MAX_LEN + 1];

/// The name that comes nearest to what was asked for, if one is near: the fewest letters that are missing, too many,
/// wrong or swapped, and no more than one in four, three at most; capitals count as small letters, and what is not
/// ASCII as several. The first of several; never what was asked for itself.
///
/// A name that is far off costs a look at its letters; one that may be near, at most 64 steps of a few letters each.
pub(crate) fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if !fits(asked) {
        return None;
    }
    let (len, letters) = (asked.len(), letters(asked));
    let mut most = len.div_ceil(4).min(3).min(len - 1);
    let mut best = None;
    for name in known {
        let far = name.len().abs_diff(len) > most || !fits(name) || *name == *asked;
        // One slip changes by two at most which letters there are.
        if far || (letters ^ self::letters(name)).count_ones() > 2 * u32::try_from(most).unwrap_or_default() {
            continue;
        }
        match slips(asked.as_bytes(), name.as_bytes(), most) {
            None => {}
            Some(0 | 1) => return Some(name),
            Some(count) => (best, most) = (Some(name), count - 1),
        }
    }
    best
}

fn fits(name: &str) -> bool {
    (1..=MAX_LEN).contains(&name.len())
}

/// Which letters a name has.
fn letters(name: &str) -> u64 {
    name.bytes().fold(0, |set, letter| set | 1 << (letter.to_ascii_lowercase() % 64))
}

/// How many letters are missing, too many, wrong, or swapped with the next one; `None` if more than `most`.
///
/// Source: the "optimal string alignment" distance, on the diagonal band that `most` leaves.
fn slips(one: &[u8], other: &[u8], most: usize) -> Option<usize> {
    let far = u8::try_from(most + 1).unwrap_or(u8::MAX);
    let is = |left: u8, right: u8| left.eq_ignore_ascii_case(&right);
    let first: Row = std::array::from_fn(|at| u8::try_from(at).map_or(far, |at| at.min(far)));
    let (mut before, mut above) = ([far; MAX_LEN + 1], first);
    for (row, letter) in one.iter().enumerate() {
        let mut current: Row = [far; MAX_LEN + 1];
        current[0] = first[row + 1];
        let (start, end) = (row.saturating_sub(most), (row + most + 1).min(other.len()));
        for at in start..end {
            let wrong = above[at] + u8::from(!is(*letter, other[at]));
            let swapped = row > 0 && at > 0 && is(*letter, other[at - 1]) && is(one[row - 1], other[at]);
            let swapped = if swapped { before[at - 1] + 1 } else { far };
            current[at + 1] = wrong.min(above[at + 1] + 1).min(current[at] + 1).min(swapped).min(far);
        }
        (before, above) = (above, current);
    }
    Some(usize::from(above[other.len()])).filter(|count| *count <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_with_the_fewest_slips_is_meant() {
        let known = ["chat", "echo", "embed", "embed-large"];
        for (asked, meant) in [
            ("ech", Some("echo")),
            ("ehco", Some("echo")),
            ("ecco", Some("echo")),
            ("Echo", Some("echo")),
            ("embde", Some("embed")),
            ("embed-lrage", Some("embed-large")),
            ("embeding-large", Some("embed-large")),
            ("summarize", None),
            ("emb", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(asked, known), meant, "{asked}");
        }
        assert_eq!(nearest("modle-10", ["model-12", "model-10"]), Some("model-10"));
    }

    #[test]
    fn what_was_asked_for_itself_is_not_what_was_meant() {
        assert_eq!(nearest("echo", ["echo"]), None);
        assert_eq!(nearest("echo", ["echo", "echo2"]), Some("echo2"));
    }

    #[test]
    fn names_are_compared_up_to_a_length_and_no_further() {
        for (len, near) in [(MAX_LEN - 2, true), (MAX_LEN - 1, true), (MAX_LEN, false)] {
            let (asked, known) = ("a".repeat(len), "a".repeat(len + 1));
            assert_eq!(nearest(&asked, [&*known]).is_some(), near, "{len}");
        }
    }

    #[test]
    fn slips_are_counted_up_to_the_most_that_are_allowed() {
        let count = |one: &str, other: &str, most| slips(one.as_bytes(), other.as_bytes(), most);
        for (one, other, expected) in
            [("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "abxc", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((count(one, other, 3), count(other, one, 3)), (Some(expected), Some(expected)), "{one} {other}");
            assert_eq!(count(one, other, expected), Some(expected));
        }
        assert_eq!(count("kitten", "sitting", 2), None);
        assert_eq!(count("abcdef", "ghijkl", 3), None);
    }
}
