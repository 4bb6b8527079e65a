//! What an object of the object plane is called.

use std::fmt;
use std::str::FromStr;

/// The object store of one replica, for the life of its process. Drawn at random, so that two never share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub u64);

/// A reference to an object: which store it was made in, its place there, and its generation.
///
/// As text it is `objref:<store>-<index>-<generation>`, hexadecimal of 16, 8 and 16 digits: 49 characters, the same
/// length always. A place is used again, a generation never is, and cannot be guessed: who was not given a reference has
/// none, and one whose object is gone never means another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjRef {
    /// The store that it was made in.
    pub store: StoreId,
    /// Its place in the store's table.
    pub index: u32,
    /// What no other object at that place has, had, or will have.
    pub generation: u64,
}

/// A text that is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no object reference: one reads objref:0123456789abcdef-01234567-0123456789abcdef")]
pub struct ObjRefError {
    /// The text, shortened to what an error message takes.
    pub text: String,
}

const SCHEME: &str = "objref:";
/// Characters of a text that an error repeats.
const SHOWN: usize = 64;

// === impl StoreId ===

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

// === impl ObjRef ===

impl fmt::Display for ObjRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}-{:08x}-{:016x}", self.store, self.index, self.generation)
    }
}

impl FromStr for ObjRef {
    type Err = ObjRefError;

    fn from_str(text: &str) -> Result<Self, ObjRefError> {
        parse(text).ok_or_else(|| ObjRefError { text: text.chars().take(SHOWN).collect() })
    }
}

fn parse(text: &str) -> Option<ObjRef> {
    let mut parts = text.strip_prefix(SCHEME)?.split('-');
    let (store, index, generation) = (parts.next()?, parts.next()?, parts.next()?);
    let objref = ObjRef {
        store: StoreId(hex(store, 16)?),
        index: u32::try_from(hex(index, 8)?).ok()?,
        generation: hex(generation, 16)?,
    };
    parts.next().is_none().then_some(objref)
}

/// Exactly so many lower-case digits: a reference has one spelling.
fn hex(digits: &str, len: usize) -> Option<u64> {
    let plain = digits.len() == len && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_nearly_a_reference_is_none() {
        let good = "objref:0123456789abcdef-01234567-0123456789abcdef";
        assert!(good.parse::<ObjRef>().is_ok());
        for bad in [
            "",
            "objref:",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}0"),
            &format!("{good}-"),
            &good.to_uppercase(),
            &good.replace("01234567-", "+1234567-"),
            &good.replace('-', "_"),
        ] {
            assert!(bad.parse::<ObjRef>().is_err(), "{bad}");
        }
        let long = "x".repeat(1000).parse::<ObjRef>().unwrap_err();
        assert_eq!(long.text.len(), SHOWN);
    }

    proptest! {
        #[test]
        fn a_reference_is_read_as_it_was_written(store: u64, index: u32, generation: u64) {
            let objref = ObjRef { store: StoreId(store), index, generation };
            let text = objref.to_string();
            prop_assert_eq!(text.len(), 49);
            prop_assert_eq!(text.parse(), Ok(objref));
        }

        #[test]
        fn any_text_is_a_reference_or_an_error(text in ".{0,60}") {
            if let Ok(objref) = text.parse::<ObjRef>() {
                prop_assert_eq!(objref.to_string(), text);
            }
        }
    }
}
