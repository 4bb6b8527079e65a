//! Which object is the newest under a key: a file per key.

use std::str::FromStr;

use anyserve_core::{Error, ObjRef};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use xxhash_rust::xxh3::xxh3_128;

use super::{KEYS, failed};

/// What a file says: a line of its own, a line with the reference, and the rest is the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) objref: ObjRef,
    pub(super) key: String,
}

/// A file that says no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoEntry;

const FIRST: &str = "anyserve-key 1";
/// Longest key, in bytes.
pub(super) const MAX_KEY: usize = 4096;
/// Longest file: both lines, and the key.
const MAX_FILE: u64 = 4096 + 128;

/// The file of a key.
pub(super) fn path(key: &str) -> Path {
    Path::from(format!("{KEYS}/{:032x}", xxh3_128(key.as_bytes())))
}

/// Reads a file; `None` if it is not there, or says nothing that could be used.
pub(super) async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Option<Entry>, Error> {
    let file = match store.get(path).await {
        Ok(file) => file,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(path, &error)),
    };
    if file.meta.size > MAX_FILE {
        return Ok(None);
    }
    let bytes = file.bytes().await.map_err(|error| failed(path, &error))?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()))
}

// === impl Entry ===

impl Entry {
    /// The entry that makes an object the newest under `key`.
    ///
    /// # Errors
    /// `INVALID_INPUT` if the key is too long.
    pub(super) fn try_new(key: &str, objref: ObjRef) -> Result<Self, Error> {
        if key.len() > MAX_KEY {
            return Err(Error::invalid(format!("the key has {} bytes, the limit is {MAX_KEY}", key.len())));
        }
        Ok(Self { objref, key: key.to_owned() })
    }

    pub(super) fn write(&self) -> String {
        format!("{FIRST}\n{}\n{}", self.objref, self.key)
    }
}

impl FromStr for Entry {
    type Err = NoEntry;

    fn from_str(text: &str) -> Result<Self, NoEntry> {
        let mut lines = text.splitn(3, '\n');
        let (Some(FIRST), Some(objref), Some(key)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoEntry);
        };
        let objref = objref.parse().map_err(|_| NoEntry)?;
        Self::try_new(key, objref).map_err(|_| NoEntry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::StoreId;
    use proptest::prelude::*;

    const IT: ObjRef = ObjRef { store: StoreId(1), index: 2, generation: 3 };

    #[test]
    fn a_key_may_be_as_long_as_the_limit_and_no_longer() {
        let entry = |len: usize| Entry::try_new(&"k".repeat(len), IT);
        assert!(entry(MAX_KEY - 1).is_ok() && entry(MAX_KEY).is_ok());
        let error = entry(MAX_KEY + 1).unwrap_err();
        assert_eq!(error.message, "the key has 4097 bytes, the limit is 4096");
        let longest = entry(MAX_KEY).unwrap();
        assert!(u64::try_from(longest.write().len()).unwrap() <= MAX_FILE);
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(key in "(.|\n){0,50}") {
            let entry = Entry::try_new(&key, IT).unwrap();
            prop_assert_eq!(entry.write().parse(), Ok(entry));
        }

        #[test]
        fn any_text_is_an_entry_or_none(text in "(anyserve-key 1\n)?(objref:[0-9a-f-]{42}\n)?(.|\n){0,20}") {
            if let Ok(entry) = text.parse::<Entry>() {
                prop_assert_eq!(entry.write(), text);
            }
        }
    }
}
