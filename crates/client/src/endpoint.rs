//! Endpoints as users write them: `localhost:8000`, `http://host:8000`, `https://host`, `[::1]:8000`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

/// Where a server listens, and whether it speaks TLS there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    secure: bool,
}

/// A text that names no endpoint. The message holds the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is empty.
    #[error("the endpoint is empty: write host:port, for example localhost:8000")]
    Empty,
    /// A scheme other than `http` and `https`.
    #[error("endpoint '{text}' has the scheme '{scheme}': write host:port, http://host:port or https://host:port")]
    Scheme {
        /// What was given.
        text: String,
        /// Its scheme.
        scheme: String,
    },
    /// No port, and no scheme that has a default one.
    #[error("endpoint '{text}' has no port: write {text}:8000, with the port the server was started on")]
    NoPort {
        /// What was given.
        text: String,
    },
    /// A port that is no number from 1 to 65535.
    #[error("endpoint '{text}' has the port '{port}': a port is a number from 1 to 65535")]
    Port {
        /// What was given.
        text: String,
        /// Its port.
        port: String,
    },
    /// An IPv6 address without brackets.
    #[error("endpoint '{text}' looks like an IPv6 address: write it in brackets, for example [::1]:8000")]
    Brackets {
        /// What was given.
        text: String,
    },
    /// A path, a query or a fragment, which gRPC has no use for.
    #[error("endpoint '{text}' has a path: leave '{path}' out")]
    Path {
        /// What was given.
        text: String,
        /// What stands behind the port.
        path: String,
    },
    /// Anything else that is no host.
    #[error("endpoint '{text}' is not host:port: write for example localhost:8000")]
    Malformed {
        /// What was given.
        text: String,
    },
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether the connection is to be encrypted.
    pub fn secure(&self) -> bool {
        self.secure
    }

    /// The host: a name or an address, one of IPv6 without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The endpoint as the URI that a channel connects to.
    pub(crate) fn uri(&self) -> Uri {
        self.uri_with(if self.secure { "https" } else { "http" })
    }

    /// The same without encryption.
    pub(crate) fn plain_uri(&self) -> Uri {
        self.uri_with("http")
    }

    fn uri_with(&self, scheme: &str) -> Uri {
        let uri = Uri::builder().scheme(scheme).authority(format!("{}:{}", self.host, self.port)).path_and_query("/");
        uri.build().expect("host and port were parsed out of an authority")
    }

    fn from_authority(
        authority: &str,
        secure: bool,
        default_port: Option<u16>,
        text: &str,
    ) -> Result<Self, EndpointError> {
        let text = || text.to_owned();
        let (host, port) = split_port(authority).ok_or_else(|| EndpointError::Brackets { text: text() })?;
        if !is_host(host) {
            return Err(EndpointError::Malformed { text: text() });
        }
        let port = match (port, default_port) {
            (Some(port), _) => {
                parse_port(port).ok_or_else(|| EndpointError::Port { text: text(), port: port.to_owned() })?
            }
            (None, Some(port)) => port,
            (None, None) => return Err(EndpointError::NoPort { text: text() }),
        };
        Ok(Self { host: host.to_owned(), port, secure })
    }
}

/// A name, an address of IPv4, or one of IPv6 in its brackets.
fn is_host(host: &str) -> bool {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = inside.is_none_or(|inside| inside.parse::<Ipv6Addr>().is_ok());
    !host.is_empty() && is_address && Authority::from_str(host).is_ok_and(|authority| authority.host() == host)
}

/// Splits `host:port` and `[address]:port`; `None` for an IPv6 address without brackets.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']').map_or(authority.len(), |end| end + 1);
        let (host, rest) = authority.split_at(end);
        return Some(if rest.is_empty() {
            (host, None)
        } else {
            rest.strip_prefix(':').map_or((authority, None), |port| (host, Some(port)))
        });
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

fn parse_port(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port > 0)
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `host:port`, `[address]:port`, or either behind `http://` or `https://`, where the port may be left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        let (secure, default_port, rest) = match text.split_once("://") {
            None => (false, None, text),
            Some(("http", rest)) => (false, Some(80), rest),
            Some(("https", rest)) => (true, Some(443), rest),
            Some((scheme, _)) => {
                return Err(EndpointError::Scheme { text: text.to_owned(), scheme: scheme.to_owned() });
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(start) = rest.find(['/', '?', '#']) {
            return Err(EndpointError::Path { text: text.to_owned(), path: rest[start..].to_owned() });
        }
        Self::from_authority(rest, secure, default_port, text)
    }
}

impl fmt::Display for Endpoint {
    /// `localhost:8000`, and `https://localhost:8000` where the connection is encrypted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https://" } else { "" };
        write!(f, "{scheme}{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_that_users_write_is_read() {
        for (text, shown, uri) in [
            ("localhost:8000", "localhost:8000", "http://localhost:8000/"),
            (" 10.0.0.1:1 ", "10.0.0.1:1", "http://10.0.0.1:1/"),
            ("http://host:8000/", "host:8000", "http://host:8000/"),
            ("http://host", "host:80", "http://host:80/"),
            ("https://host", "https://host:443", "https://host:443/"),
            ("[::1]:8000", "[::1]:8000", "http://[::1]:8000/"),
            ("https://[::1]", "https://[::1]:443", "https://[::1]:443/"),
            ("a_b.svc:65535", "a_b.svc:65535", "http://a_b.svc:65535/"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(shown), "{text}");
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.uri().to_string(), uri);
            assert!(uri.replace(['[', ']'], "").ends_with(&format!("//{}:{}/", endpoint.host(), endpoint.port())));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_fix() {
        for (text, part) in [
            ("", "write host:port"),
            ("localhost", "write localhost:8000"),
            ("[::1]", "write [::1]:8000"),
            ("::1", "in brackets"),
            ("::1:8000", "in brackets"),
            ("grpc://host:1", "has the scheme 'grpc'"),
            ("host:0", "from 1 to 65535"),
            ("host:65536", "from 1 to 65535"),
            ("host:+80", "from 1 to 65535"),
            ("host:", "from 1 to 65535"),
            ("[::1]8000", "is not host:port"),
            ("http://host:8000/v2/models", "leave '/v2/models' out"),
            ("host:8000?x", "leave '?x' out"),
            ("me@host:8000", "is not host:port"),
            (":8000", "is not host:port"),
            ("a b:8000", "is not host:port"),
            ("[::1:8000", "is not host:port"),
            ("[]:8000", "is not host:port"),
            ("[a]:8000", "is not host:port"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(https?://)?[\\[\\]:a-z0-9./@ é-]{0,20}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                let _ = endpoint.uri();
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }
    }
}
