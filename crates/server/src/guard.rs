//! Who may administrate: whoever knows the token or, where there is none, whoever is on this machine. And who may be a
//! replica of an API server: whoever is on this machine, or knows the token of the cluster.

use std::net::IpAddr;

use anyserve_core::{Code, Error};
use http::header::{AUTHORIZATION, ORIGIN};
use http::{Extensions, HeaderMap};

use crate::AdminToken;

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The two kinds of those who may do more than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Admin,
    Cluster,
}

/// Lets a request of an administrator pass.
///
/// A web page is none, wherever it is open: browsers say where a page is from, and send what any page asks for.
///
/// # Errors
/// `FORBIDDEN` or `UNAUTHENTICATED`, with what to do about it.
pub(crate) fn check(token: Option<&AdminToken>, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Error> {
    check_page(headers)?;
    match token {
        Some(token) => check_token(Kind::Admin, token, headers),
        None => check_peer(Kind::Admin, extensions),
    }
}

/// Lets a replica's request to an API server pass: from this machine, or from elsewhere with the token of the cluster.
/// A wrong token is refused from everywhere.
///
/// # Errors
/// `FORBIDDEN` or `UNAUTHENTICATED`, with what to do about it.
pub fn check_cluster(token: Option<&AdminToken>, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Error> {
    check_page(headers)?;
    match token {
        Some(token) if headers.contains_key(AUTHORIZATION) => check_token(Kind::Cluster, token, headers),
        Some(token) => check_peer(Kind::Cluster, extensions).or_else(|_| check_token(Kind::Cluster, token, headers)),
        None => check_peer(Kind::Cluster, extensions),
    }
}

fn check_page(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(ORIGIN) {
        return Err(Error::new(
            Code::Forbidden,
            "a request with an Origin header is from a web page; no page may do this",
        ));
    }
    Ok(())
}

fn check_token(kind: Kind, token: &AdminToken, headers: &HeaderMap) -> Result<(), Error> {
    let given = headers.get(AUTHORIZATION).map(|value| bearer(value.as_bytes()));
    let name = kind.name();
    let message = match given {
        Some(Some(given)) if token.is(given) => return Ok(()),
        Some(Some(_)) => format!("this is not the {name} token"),
        Some(None) => "the Authorization header has another form than 'Bearer TOKEN'".to_owned(),
        None => format!("the {name} token is missing: send the header 'Authorization: Bearer TOKEN'"),
    };
    Err(Error::new(Code::Unauthenticated, message))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn check_peer(kind: Kind, extensions: &Extensions) -> Result<(), Error> {
    let peer = extensions.get::<Peer>().copied();
    // An IPv4 client of an IPv6 listener has a mapped address.
    let address = peer.map(|peer| peer.0.to_canonical());
    if address.is_some_and(|address| address.is_loopback()) {
        return Ok(());
    }
    let from = address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
    let message =
        format!("without --{}-token only this machine may do this, and the request is from {from}", kind.name());
    Err(Error::new(Code::Forbidden, message))
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Cluster => "cluster",
        }
    }
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
    fn replicas_are_on_this_machine_or_know_the_token_and_a_wrong_one_is_refused_everywhere() {
        let refusal = |token: Option<&str>, given: Option<&'static str>, peer: &str| {
            let token = token.map(|token| AdminToken::from(token.to_owned()));
            let headers = given.map(|value| (AUTHORIZATION, value.parse().unwrap())).into_iter().collect();
            let mut extensions = Extensions::new();
            extensions.insert(Peer(peer.parse().unwrap()));
            check_cluster(token.as_ref(), &headers, &extensions).err().map(|error| error.code)
        };
        let (here, there) = ("127.0.0.1", "10.0.0.1");
        assert_eq!([here, there].map(|peer| refusal(None, None, peer)), [None, Some(Code::Forbidden)]);
        let of = |given| [here, there].map(|peer| refusal(Some("secret"), given, peer));
        assert_eq!(of(None), [None, Some(Code::Unauthenticated)]);
        assert_eq!(of(Some("Bearer secret")), [None, None]);
        assert_eq!(of(Some("Bearer other")), [Some(Code::Unauthenticated); 2]);
        let pages = [("origin", "null"), ("authorization", "Bearer secret")];
        let pages = pages.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let token = AdminToken::from("secret".to_owned());
        let error = check_cluster(Some(&token), &pages.into_iter().collect(), &Extensions::new()).unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
    }

    #[test]
    fn a_web_page_may_not_even_with_the_token() {
        assert_eq!(refusal(None, &[("origin", "http://localhost")], "127.0.0.1"), Some(Code::Forbidden));
        let pairs = [("origin", "null"), ("authorization", "Bearer secret")];
        assert_eq!(refusal(Some("secret"), &pairs, "127.0.0.1"), Some(Code::Forbidden));
    }
}
