//! What stands before a durable object's bytes.
//!
//! ```text
//!  0       4         6          8       16         24          32              40
//!  | magic | version | reserved | length | checksum | expires at | own checksum | bytes …
//!    ASOB      u16        u16       u64       u64        u64           u64
//! ```
//!
//! Little-endian. `length` and `checksum` (XXH3, 64 bits, seed 0) are of the bytes that follow, `expires at` is in
//! milliseconds since 1970, and the own checksum, of the same kind, is of the 32 bytes before it.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a header.
pub(super) const HEADER: usize = 40;

const MAGIC: [u8; 4] = *b"ASOB";
const VERSION: u16 = 1;
/// Bytes of a header that its own checksum is of.
const CHECKED: usize = HEADER - 8;

/// The header of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: u64,
    pub(super) checksum: u64,
    pub(super) expires_ms: u64,
}

/// Bytes that are no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum HeaderError {
    #[error("it has {have} bytes, a header alone has {HEADER}")]
    Short { have: usize },
    #[error("it begins with {have:02x?}, not with {MAGIC:02x?}")]
    Magic { have: [u8; 4] },
    #[error("it has version {have}, this release reads {VERSION}")]
    Version { have: u16 },
    #[error("its header has the checksum {have:016x}, the bytes of it have {expected:016x}")]
    Checksum { have: u64, expected: u64 },
}

// === impl Header ===

impl Header {
    /// The header of these bytes, which are kept for `ttl` from `now_ms` on.
    pub(super) fn of(bytes: &[u8], now_ms: u64, ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self {
            len: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            checksum: xxh3_64(bytes),
            expires_ms: now_ms.saturating_add(ttl_ms),
        }
    }

    /// Whether the lease has ended.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms <= now_ms
    }

    /// What is left of the lease.
    pub(super) fn remaining(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.expires_ms.saturating_sub(now_ms))
    }

    pub(super) fn write(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.expires_ms.to_le_bytes());
        let own = xxh3_64(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// Reads the header at the beginning of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(HeaderError::Short { have: bytes.len() })?;
        let magic = part(header, 0);
        if magic != MAGIC {
            return Err(HeaderError::Magic { have: magic });
        }
        let version = u16::from_le_bytes(part(header, 4));
        if version != VERSION {
            return Err(HeaderError::Version { have: version });
        }
        let [len, checksum, expires_ms, have] = [8, 16, 24, CHECKED].map(|at| u64::from_le_bytes(part(header, at)));
        let expected = xxh3_64(&header[..CHECKED]);
        if have != expected {
            return Err(HeaderError::Checksum { have, expected });
        }
        Ok(Self { len, checksum, expires_ms })
    }
}

fn part<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    std::array::from_fn(|place| header[at + place])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lease_lasts_to_the_millisecond_before_its_end() {
        let header = Header::of(b"x", 1000, Duration::from_millis(10));
        assert!(!header.is_over(1009) && header.is_over(1010) && header.is_over(1011));
        assert_eq!([1009, 1010, 1011].map(|now| header.remaining(now).as_millis()), [1, 0, 0]);
        assert_eq!(Header::of(b"", u64::MAX, Duration::MAX).expires_ms, u64::MAX);
    }

    #[test]
    fn a_header_of_another_kind_is_named() {
        let good = Header::of(b"abc", 0, Duration::ZERO).write();
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Header::read(&bytes).unwrap_err()
        };
        assert_eq!(with(0, b'a'), HeaderError::Magic { have: *b"aSOB" });
        assert_eq!(with(4, 2), HeaderError::Version { have: 2 });
        assert_eq!(Header::read(&good[..HEADER - 1]), Err(HeaderError::Short { have: HEADER - 1 }));
        assert_eq!(Header::read(b""), Err(HeaderError::Short { have: 0 }));
        assert!(Header::read(&[&good[..], b"abc"].concat()).is_ok());
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(len: u64, checksum: u64, expires_ms: u64) {
            let header = Header { len, checksum, expires_ms };
            prop_assert_eq!(Header::read(&header.write()), Ok(header));
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(len: u64, checksum: u64, expires_ms: u64, bit in 0..HEADER * 8) {
            let mut bytes = Header { len, checksum, expires_ms }.write();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::read(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(header) = Header::read(&bytes) {
                prop_assert_eq!(&header.write()[..], &bytes[..HEADER]);
            }
        }

        #[test]
        fn so_are_those_that_begin_like_one(rest in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &rest].concat();
            if let Ok(header) = Header::read(&bytes) {
                prop_assert_eq!(&header.write()[..], &bytes[..HEADER]);
            }
        }
    }
}
