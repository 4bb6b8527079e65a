//! What a replica must be told to be part of a fleet.

use std::fmt;

use anyserve_client::{Endpoint, Tls};

/// Who the replica is, and whom it tells.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The API servers; at least one. Each of them is told.
    pub api_servers: Vec<Endpoint>,
    /// The replica's name, which it keeps when it starts anew: 1 to 256 visible ASCII characters.
    pub id: String,
    /// Grows with every start: the time of the start in milliseconds since the Unix epoch.
    pub epoch: u64,
    /// Where others reach it: `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// What API servers that are not on this machine ask for.
    pub token: Option<Token>,
    /// How to talk TLS with API servers and replicas.
    pub tls: Tls,
}

/// The cluster's token. It is shown nowhere: its `Debug` is three dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

// === impl Token ===

impl Token {
    /// The value of the header that carries it; `None` if no header can.
    pub(crate) fn header(&self) -> Option<tonic::metadata::AsciiMetadataValue> {
        let mut value: tonic::metadata::AsciiMetadataValue = format!("Bearer {}", self.0).parse().ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_nowhere() {
        let token = Token::from("secret".to_owned());
        assert_eq!(token.header().unwrap().to_str().unwrap(), "Bearer secret");
        assert!(!format!("{token:?}{:?}", token.header()).contains("secret"));
        assert_eq!(Token::from("a\nb".to_owned()).header(), None);
    }
}
