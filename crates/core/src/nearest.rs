//! What a name that nobody knows was meant to be: the known one that differs from it by the fewest slips.

/// Bytes of a name beyond which it is near to nothing.
pub(crate) const MAX_LEN: usize = 64;

/// The name that comes nearest to what was asked for, if one is near: the fewest letters that are missing, too many,
/// wrong or swapped, and no more than one in four, three at most; capitals count as small letters. The first of several;
/// never what was asked for itself.
///
/// A name that is far off costs a look at its letters; one that may be near, at most 64 steps of a few letters each.
pub(crate) fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = Letters::of(asked)?;
    let len = letters.text.len();
    let mut most = len.div_ceil(4).min(3).min(len - 1);
    let mut best = None;
    for name in known {
        let Some(other) = Letters::of(name).filter(|other| *name != *asked && letters.may_be_near(other, most)) else {
            continue;
        };
        match slips(&letters.text, &other.text, most) {
            None => {}
            Some(0 | 1) => return Some(name),
            Some(count) => (best, most) = (Some(name), count - 1),
        }
    }
    best
}

/// A name in lower case, and which letters it has.
struct Letters {
    text: Vec<char>,
    set: u64,
}

// === impl Letters ===

impl Letters {
    /// `None` for a name that is empty or too long.
    fn of(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > MAX_LEN {
            return None;
        }
        let text: Vec<_> = name.chars().map(|letter| letter.to_ascii_lowercase()).collect();
        let set = text.iter().fold(0, |set, letter| set | 1 << (u32::from(*letter) % 64));
        Some(Self { text, set })
    }

    /// Whether so many slips could be enough: each changes the length by one at most, and which letters there are by
    /// two.
    fn may_be_near(&self, other: &Self, most: usize) -> bool {
        let changed = usize::try_from((self.set ^ other.set).count_ones()).unwrap_or(usize::MAX);
        self.text.len().abs_diff(other.text.len()) <= most && changed <= 2 * most
    }
}

/// How many letters are missing, too many, wrong, or swapped with the next one; `None` if more than `most`.
///
/// Source: the "optimal string alignment" distance, on the diagonal band that `most` leaves.
fn slips(one: &[char], other: &[char], most: usize) -> Option<usize> {
    let far = most + 1;
    let width = other.len() + 1;
    let mut before = vec![far; width];
    let mut above: Vec<_> = (0..width).map(|at| at.min(far)).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut current = vec![far; width];
        if row < most {
            current[0] = row + 1;
        }
        let (first, last) = (row.saturating_sub(most), (row + most + 1).min(other.len()));
        for at in first..last {
            let wrong = above[at] + usize::from(*letter != other[at]);
            let swapped = row > 0 && at > 0 && *letter == other[at - 1] && one[row - 1] == other[at];
            let swapped = if swapped { before[at - 1] + 1 } else { far };
            current[at + 1] = wrong.min(above[at + 1] + 1).min(current[at] + 1).min(swapped).min(far);
        }
        (before, above) = (above, current);
    }
    Some(above[other.len()]).filter(|count| *count <= most)
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
        let count = |one: &str, other: &str, most| {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            slips(&letters(one), &letters(other), most)
        };
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
