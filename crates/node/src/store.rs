//! The object store's size: as it was given, or what is fit for this machine.

use anyhow::{Context, Error, Result, bail};
use anyserve_shm::{Plane, PlaneConfig, PlaneError};

/// How large the object store is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreSize {
    /// As much as is fit.
    Fit,
    /// So many bytes.
    Bytes(u64),
    /// There is to be none.
    None,
}

/// The largest size that is taken where none is given, in bytes.
const MOST: u64 = 1 << 30;
/// Part of the memory that it has then at most, in hundredths.
const PERCENT: u64 = 30;
/// The smallest store that there can be, in bytes.
const LEAST: u64 = 1 << 20;
/// Size in bytes from which on a tensor goes through the arena, where none is given. Below, a copy through the socket costs
/// less than what an allocation does; benchmarks/objects.py measures where they meet.
const THRESHOLD: u64 = 64 << 10;

/// What is wanted of the object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreOptions {
    pub(crate) size: StoreSize,
    pub(crate) threshold: usize,
}

/// Reads `--object-store` and `--object-threshold`.
pub(crate) fn parse(size: Option<&str>, threshold: Option<&str>) -> Result<StoreOptions> {
    let threshold = threshold.map(|text| bytes("--object-threshold", text)).transpose()?.unwrap_or(THRESHOLD);
    let size = match size.map(|text| bytes("--object-store", text)).transpose()? {
        None => StoreSize::Fit,
        Some(0) => StoreSize::None,
        Some(len) if len < LEAST => bail!("--object-store is {len} bytes, it takes at least 1MiB, or 0 for none"),
        Some(len) => StoreSize::Bytes(len),
    };
    Ok(StoreOptions { size, threshold: usize::try_from(threshold)? })
}

/// A number of bytes as a person writes it: `1GiB`, `512MiB`, `65536`.
fn bytes(flag: &str, text: &str) -> Result<u64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" | "kb" => 1 << 10,
        "m" | "mib" | "mb" => 1 << 20,
        "g" | "gib" | "gb" => 1 << 30,
        "t" | "tib" | "tb" => 1_u64 << 40,
        _ => 0,
    };
    let len = number.trim().parse::<u64>().ok().filter(|_| factor > 0).and_then(|len| len.checked_mul(factor));
    len.with_context(|| format!("{flag} is '{text}', it takes a size such as 512MiB or 2GiB"))
}

/// Makes the object store.
///
/// # Errors
/// There is no room for it; the message says how to make some.
pub(crate) fn open(options: StoreOptions) -> Result<Option<Plane>> {
    let StoreOptions { size, threshold } = options;
    let open = |capacity| Plane::open(PlaneConfig { capacity, threshold });
    let opened = match size {
        StoreSize::None => return Ok(None),
        StoreSize::Bytes(len) => open(len),
        StoreSize::Fit => match open(MOST.min(memory() / 100 * PERCENT)) {
            // A container has 64 MiB as a rule: less is better than no start, where nobody said how much it is to be.
            Err(PlaneError::Left { left, .. }) if left / 2 >= LEAST => {
                tracing::warn!(
                    bytes = left / 2,
                    "/dev/shm is small, and so is the object store; --object-store sets it"
                );
                open(left / 2)
            }
            opened => opened,
        },
    };
    opened.map(Some).map_err(Error::new).context("the object store cannot be made")
}

/// Bytes of memory that this process may use.
fn memory() -> u64 {
    let system = rustix::system::sysinfo();
    let machine = u64::from(system.mem_unit) * system.totalram;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    group.and_then(|text| text.trim().parse().ok()).map_or(machine, |group: u64| group.min(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in
            [("0", 0), ("65536", 65536), ("64k", 65536), ("8MiB", 8 << 20), ("2GB", 2 << 30), ("1 TiB", 1 << 40)]
        {
            assert_eq!(bytes("--object-store", text).unwrap(), expected, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1XiB", "99999999TiB", "1 2"] {
            let message = bytes("--object-store", text).unwrap_err().to_string();
            assert!(message.contains("--object-store is '") && message.contains("512MiB"), "{message}");
        }
    }

    #[test]
    fn a_store_has_at_least_a_mebibyte_or_is_none() {
        assert_eq!(parse(Some("1MiB"), None).unwrap().size, StoreSize::Bytes(1 << 20));
        assert_eq!(parse(Some("0"), None).unwrap().size, StoreSize::None);
        assert!(parse(Some("1048575"), None).unwrap_err().to_string().contains("at least 1MiB"));
        let nothing = StoreOptions { size: StoreSize::Fit, threshold: 64 << 10 };
        assert_eq!(parse(None, None).unwrap(), nothing);
        assert_eq!(parse(None, Some("1MiB")).unwrap().threshold, 1 << 20);
    }

    #[test]
    fn more_than_there_is_is_an_error_that_says_what_to_do() {
        let options = StoreOptions { size: StoreSize::Bytes(1 << 50), threshold: 1 };
        let message = format!("{:#}", open(options).unwrap_err());
        assert!(message.contains("/dev/shm has") && message.contains("--object-store"), "{message}");
        assert!(open(StoreOptions { size: StoreSize::None, threshold: 1 }).unwrap().is_none());
    }
}
