//! Requests that are refused because they killed workers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What two requests share that do the same: a keyed hash of handler, inputs and parameters.
///
/// The key is this process's own, so that nobody outside can make two requests share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// A fingerprint that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Which.
    pub fingerprint: Fingerprint,
    /// The model that the requests were for.
    pub model: String,
    /// Workers that died while they ran it.
    pub deaths: u32,
    /// Requests that were refused for it.
    pub refused: u64,
    /// Time until it is released by itself.
    pub remaining: Duration,
}

/// A text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no fingerprint: it has 16 hexadecimal digits")]
pub struct FingerprintError {
    /// The text.
    pub text: String,
}

// === impl Fingerprint ===

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| FingerprintError { text: text.chars().take(64).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_as_it_is_shown_and_nothing_else_does() {
        let fingerprint = Fingerprint(0x00ab_cdef);
        assert_eq!(fingerprint.to_string(), "0000000000abcdef");
        assert_eq!("0000000000abcdef".parse(), Ok(fingerprint));
        for text in ["", "abc", "+000000000abcdef", "0000000000abcdeg", "00000000000abcdef"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
