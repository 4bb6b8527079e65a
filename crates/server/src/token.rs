//! The token that lets somebody administrate the replica.

use std::fmt;

use subtle::ConstantTimeEq;

/// A token. It is shown nowhere: its `Debug` is three dots.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

/// A text that can be no token, because no client could send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is one word of printable ASCII, and this one is {what}")]
pub struct AdminTokenError {
    /// What it is instead.
    what: &'static str,
}

// === impl AdminToken ===

impl AdminToken {
    /// Whether a client can send it.
    ///
    /// # Errors
    /// [`AdminTokenError`], which does not show the token.
    pub fn check(&self) -> Result<(), AdminTokenError> {
        if self.0.is_empty() {
            return Err(AdminTokenError { what: "empty" });
        }
        let fits = self.0.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(()) } else { Err(AdminTokenError { what: "not" }) }
    }

    /// The token itself, for who has to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a client that sent this knows it. How long that takes tells nothing but its length.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        !given.is_empty() && bool::from(self.0.as_bytes().ct_eq(given))
    }
}

impl From<String> for AdminToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> AdminToken {
        text.to_owned().into()
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let own = token("abc");
        assert!(own.is(b"abc"));
        for other in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!own.is(other.as_bytes()), "{other}");
        }
        assert!(!token("").is(b""));
    }

    #[test]
    fn what_no_client_can_send_is_refused_and_no_token_is_shown() {
        assert_eq!(token("a-Z.9~+/=").check(), Ok(()));
        for text in ["", "a b", "é", "a\n"] {
            let error = token(text).check().unwrap_err();
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
        assert_eq!(format!("{:?}", token("secret")), "...");
    }
}
