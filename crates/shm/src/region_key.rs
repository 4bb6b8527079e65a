//! Names of POSIX shared-memory objects, as clients may give them.

use std::ffi::CString;
use std::fs::File;
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::shm;

/// Longest name of an object, without the slash.
const MAX_KEY: usize = 200;

/// What the names of our own objects begin with.
const OWN: &str = "anyserve-";

/// Characters of a key that an error repeats.
const SHOWN: usize = 64;

/// A key that names no object which may be shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is no name of an object.
    #[error(
        "key '{key}' is no name of a shared memory object: one has 1 to {MAX_KEY} letters, digits, '.', '_' and '-', after a '/' or without one"
    )]
    Malformed {
        /// The key, shortened to what an error message takes.
        key: String,
    },
    /// Objects of that name are the server's own.
    #[error("key '{key}' begins with '{OWN}': such shared memory is the server's own")]
    Reserved {
        /// The key, shortened to what an error message takes.
        key: String,
    },
}

/// The name of an object: nothing that leads to another place, and nothing of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key<'a>(&'a str);

// === impl Key ===

impl<'a> Key<'a> {
    /// Checks a key as a client gave it.
    pub(crate) fn parse(text: &'a str) -> Result<Self, KeyError> {
        let shown = || text.chars().take(SHOWN).collect();
        let name = text.strip_prefix('/').unwrap_or(text);
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !plain || !(1..=MAX_KEY).contains(&name.len()) || name == "." || name == ".." {
            return Err(KeyError::Malformed { key: shown() });
        }
        if name.starts_with(OWN) {
            return Err(KeyError::Reserved { key: shown() });
        }
        Ok(Self(name))
    }

    /// Opens the object for reading and writing. It is not made, no link is followed, and nothing is waited for.
    pub(crate) fn open(&self) -> io::Result<File> {
        let name = CString::new(self.0)?;
        let careful = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
        let flags = shm::OFlags::RDWR | shm::OFlags::from_bits_retain(careful);
        Ok(shm::open(name.as_c_str(), flags, Mode::empty())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn malformed(key: &str) -> bool {
        matches!(Key::parse(key), Err(KeyError::Malformed { .. }))
    }

    #[test]
    fn names_with_and_without_a_slash_are_taken() {
        for key in ["/input_simple", "input_simple", "a", "/a.b-c_D9", "..a", "...", "-"] {
            assert_eq!(Key::parse(key).unwrap().0, key.trim_start_matches('/'));
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for key in ["", "/", ".", "..", "/.", "/..", "//a", "a/b", "/a/../b", "a\0b", "a b", "é", "a\n", "\\", "~"] {
            assert!(malformed(key), "{key:?}");
        }
    }

    #[test]
    fn a_key_goes_to_its_longest_and_no_further() {
        let of = |len: usize| format!("/{}", "k".repeat(len));
        assert!(Key::parse(&of(MAX_KEY - 1)).is_ok() && Key::parse(&of(MAX_KEY)).is_ok());
        assert!(malformed(&of(MAX_KEY + 1)));
        let Err(KeyError::Malformed { key }) = Key::parse(&"é".repeat(1000)) else { panic!("it was taken") };
        assert_eq!(key.chars().count(), SHOWN);
    }

    #[test]
    fn the_servers_own_objects_cannot_be_named() {
        for key in ["anyserve-", "/anyserve-0123", "anyserve-x"] {
            assert!(matches!(Key::parse(key), Err(KeyError::Reserved { .. })), "{key}");
        }
        assert!(Key::parse("/anyserve").is_ok() && Key::parse("my-anyserve-x").is_ok());
    }

    proptest! {
        #[test]
        fn any_key_is_a_plain_name_or_refused(key in ".{0,220}") {
            if let Ok(Key(name)) = Key::parse(&key) {
                prop_assert!(!name.contains('/') && !name.contains('\0') && name != "." && name != "..");
            }
        }
    }
}
