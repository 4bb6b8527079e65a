//! Who may administrate: whoever knows the token or, where there is none, whoever is on this machine.

use std::net::IpAddr;

use anyserve_core::{Code, Error};
use http::header::{AUTHORIZATION, ORIGIN};
use http::{Extensions, HeaderMap};

use crate::AdminToken;

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Lets a request of an administrator pass.
///
/// A web page is none, wherever it is open: browsers say where a page is from, and send what any page asks for.
///
/// # Errors
/// `FORBIDDEN` or `UNAUTHENTICATED`, with what to do about it.
pub(crate) fn check(token: Option<&AdminToken>, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Error> {
    if headers.contains_key(ORIGIN) {
        return Err(Error::new(
            Code::Forbidden,
            "a request with an Origin header is from a web page; no page may do this",
        ));
    }
    match token {
        Some(token) => check_token(token, headers),
        None => check_peer(extensions.get::<Peer>().copied()),
    }
}

fn check_token(token: &AdminToken, headers: &HeaderMap) -> Result<(), Error> {
    let given = headers.get(AUTHORIZATION).map(|value| bearer(value.as_bytes()));
    let message = match given {
        Some(Some(given)) if token.is(given) => return Ok(()),
        Some(Some(_)) => "this is not the admin token",
        Some(None) => "the Authorization header has another form than 'Bearer TOKEN'",
        None => "the admin token is missing: send the header 'Authorization: Bearer TOKEN'",
    };
    Err(Error::new(Code::Unauthenticated, message))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn check_peer(peer: Option<Peer>) -> Result<(), Error> {
    // An IPv4 client of an IPv6 listener has a mapped address.
    let address = peer.map(|peer| peer.0.to_canonical());
    if address.is_some_and(|address| address.is_loopback()) {
        return Ok(());
    }
    let from = address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
    let message = format!("without --admin-token only this machine may do this, and the request is from {from}");
    Err(Error::new(Code::Forbidden, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(token: Option<&str>, pairs: &[(&'static str, &'static str)], peer: &str) -> Option<Code> {
        let token = token.map(|token| AdminToken::from(token.to_owned()));
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        check(token.as_ref(), &headers, &extensions).err().map(|error| error.code)
    }

    #[test]
    fn without_a_token_only_loopback_may() {
        for peer in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(refusal(None, &[], peer), None, "{peer}");
        }
        for peer in ["10.0.0.1", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1"] {
            assert_eq!(refusal(None, &[("authorization", "Bearer x")], peer), Some(Code::Forbidden), "{peer}");
        }
        let nobody = check(None, &HeaderMap::new(), &Extensions::new());
        assert_eq!(nobody.unwrap_err().code, Code::Forbidden);
    }

    #[test]
    fn with_a_token_it_is_needed_from_everywhere() {
        let of = |value, peer| refusal(Some("secret"), &[("authorization", value)], peer);
        for peer in ["127.0.0.1", "10.0.0.1"] {
            assert_eq!(refusal(Some("secret"), &[], peer), Some(Code::Unauthenticated));
            for value in ["Bearer secret", "bearer  secret "] {
                assert_eq!(of(value, peer), None, "{value}");
            }
            for value in ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "secret"] {
                assert_eq!(of(value, peer), Some(Code::Unauthenticated), "{value}");
            }
        }
    }

    #[test]
    fn a_web_page_may_not_even_with_the_token() {
        assert_eq!(refusal(None, &[("origin", "http://localhost")], "127.0.0.1"), Some(Code::Forbidden));
        let pairs = [("origin", "null"), ("authorization", "Bearer secret")];
        assert_eq!(refusal(Some("secret"), &pairs, "127.0.0.1"), Some(Code::Forbidden));
    }
}
