//! What is wrong with an API server, in the words of whoever can do something about it.

use anyserve_client::{Endpoint, Tls, TlsFault, unsent};
use anyserve_core::Code;
use tonic::Status;

/// What is told of an API server that has gone.
pub(crate) const AWAY: &str = "the API server is away; requests are served all the same";
/// What is told of one that does not take what it is told.
const REFUSES: &str = "the API server refuses what this replica says of itself";
/// Most likely it is a replica.
const NO_REGISTRY: &str = "what --api-server names is no API server; `anyserve api-server` starts one";
/// An API server that wants a certificate may end the connection before it is heard to say so.
const AWAY_OR_WANTS: &str = "the API server is away, or asks for a client's certificate: then give one with \
                             --api-server-cert and --api-server-key; requests are served all the same";

/// What is to be told of one that answered, and refused.
pub(crate) fn refuses(code: Code) -> &'static str {
    if code == Code::Unsupported { NO_REGISTRY } else { REFUSES }
}

/// What is to be told of a connection that failed with this status.
pub(crate) fn away(status: &Status, endpoint: &Endpoint, tls: &Tls) -> &'static str {
    match TlsFault::of(status) {
        Some(fault) => of_tls(fault),
        None if endpoint.secure() && !tls.has_identity() && !unsent(status) => AWAY_OR_WANTS,
        None => AWAY,
    }
}

fn of_tls(fault: TlsFault) -> &'static str {
    match fault {
        TlsFault::Untrusted => {
            "nobody who is trusted here has signed the API server's certificate: give its authority with --api-server-ca"
        }
        TlsFault::Name => {
            "the API server's certificate is of another name than --api-server: use the name that it is for"
        }
        TlsFault::Invalid => "the API server's certificate is not valid: look at its --tls-cert, and at the clocks",
        TlsFault::Wanted => {
            "the API server asks for a client's certificate: give one with --api-server-cert and --api-server-key"
        }
        TlsFault::Refused => {
            "the API server does not trust this replica's certificate: its --tls-client-ca has to be the authority of \
             --api-server-cert"
        }
        TlsFault::Other => "no TLS with the API server: if it speaks none, --api-server is to be http://",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_client::TlsPem;
    use std::io;
    use std::sync::Arc;

    fn told(error: Option<io::Error>, endpoint: &str, tls: &Tls) -> &'static str {
        let mut status = Status::unavailable("as the test wants it");
        if let Some(error) = error {
            status.set_source(Arc::new(error));
        }
        away(&status, &endpoint.parse().unwrap(), tls)
    }

    #[test]
    fn who_has_no_registry_is_told_to_be_no_api_server() {
        assert!(refuses(Code::Unsupported).contains("is no API server"));
        assert!(refuses(Code::Unauthenticated).contains("refuses"));
    }

    #[test]
    fn every_fault_names_what_to_set() {
        for (alert, option) in
            [("CertificateRequired", "--api-server-cert"), ("UnknownCA", "--tls-client-ca"), ("X", "http://")]
        {
            let error = io::Error::other(format!("received fatal alert: {alert}"));
            let said = told(Some(error), "https://a", &Tls::default());
            assert!(said.contains(option), "{alert}: {said}");
        }
        assert!(of_tls(TlsFault::Untrusted).contains("--api-server-ca"));
    }

    #[test]
    fn a_connection_that_breaks_may_be_one_without_a_certificate_that_is_wanted() {
        let known = Tls::from(TlsPem { ca: None, identity: Some((vec![], vec![])) });
        let reset = || Some(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(told(reset(), "https://a", &Tls::default()), AWAY_OR_WANTS);
        assert_eq!(told(reset(), "https://a", &known), AWAY);
        assert_eq!(told(reset(), "http://a", &Tls::default()), AWAY);
    }
}
