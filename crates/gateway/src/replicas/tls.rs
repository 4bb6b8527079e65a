//! TLS to replicas: whom to believe, who to say one is, and what to say where it fails.

use std::collections::HashMap;
use std::error::Error as StdError;

use anyserve_client::{Tls, TlsFault};
use parking_lot::Mutex;
use tokio_rustls::TlsConnector;

/// TLS to replicas cannot be set up like this.
#[derive(Debug, thiserror::Error)]
#[error("TLS to replicas cannot be set up")]
pub struct ReplicaTlsError(#[source] rustls::Error);

/// The client's end of TLS, set up at once or, where the system says whom to believe, when the first replica needs it.
#[derive(Debug)]
pub(crate) struct Connectors(Tls);

/// Endpoints at which TLS failed, and on what: each is told once.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<HashMap<String, TlsFault>>);

/// Endpoints that are remembered at most. When there are more, all are forgotten and told anew.
const MAX_FAULTS: usize = 1024;

// === impl Connectors ===

impl Connectors {
    pub(crate) fn try_new(tls: Tls) -> Result<Self, ReplicaTlsError> {
        if tls.has_authorities() {
            tls.config().map_err(ReplicaTlsError)?;
        }
        Ok(Self(tls))
    }

    /// What connects, as TLS is to be talked now. The error says why nothing can.
    pub(crate) fn get(&self) -> Result<TlsConnector, String> {
        self.0.config().map(TlsConnector::from).map_err(|error| format!("TLS: {error}"))
    }
}

// === impl Faults ===

impl Faults {
    /// A connection to an endpoint failed. Says so in the log if it is TLS that did, and that is news. Returns whether it
    /// is TLS.
    pub(crate) fn note(&self, endpoint: &str, error: &(dyn StdError + 'static)) -> bool {
        let Some(fault) = TlsFault::of(error) else { return false };
        if self.is_news(endpoint, fault) {
            tracing::warn!(endpoint, %error, "no TLS with a replica: {}; {}", fault.says(), advice(fault));
        }
        true
    }

    /// A connection to an endpoint ended well: the next failure is news.
    pub(crate) fn forget(&self, endpoint: &str) {
        self.0.lock().remove(endpoint);
    }

    fn is_news(&self, endpoint: &str, fault: TlsFault) -> bool {
        let mut known = self.0.lock();
        if known.len() >= MAX_FAULTS && !known.contains_key(endpoint) {
            known.clear();
        }
        known.insert(endpoint.to_owned(), fault) != Some(fault)
    }
}

/// What an operator can do about it.
fn advice(fault: TlsFault) -> &'static str {
    match fault {
        TlsFault::Untrusted => "give its authority with --replica-ca",
        TlsFault::Name => "the replica is to --advertise a name that its --tls-cert is for",
        TlsFault::Invalid => "look at the replica's --tls-cert",
        TlsFault::Wanted => "give one with --replica-cert and --replica-key",
        TlsFault::Refused => "the replica's --tls-client-ca has to be the authority of --replica-cert",
        TlsFault::Other => "the replica is to --advertise http:// if nothing there speaks TLS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_news_once_until_the_endpoint_was_well_or_very_many_others_had_one() {
        let faults = Faults::default();
        assert!(faults.is_news("a", TlsFault::Wanted) && !faults.is_news("a", TlsFault::Wanted));
        assert!(faults.is_news("a", TlsFault::Refused) && faults.is_news("b", TlsFault::Refused));
        faults.forget("a");
        assert!(faults.is_news("a", TlsFault::Refused) && !faults.is_news("b", TlsFault::Refused));
        for (others, forgotten) in [(MAX_FAULTS - 1, false), (MAX_FAULTS, true)] {
            let faults = Faults::default();
            faults.is_news("a", TlsFault::Other);
            (0..others).for_each(|number| _ = faults.is_news(&number.to_string(), TlsFault::Other));
            assert_eq!(faults.is_news("a", TlsFault::Other), forgotten, "{others}");
            assert!(faults.0.lock().len() <= MAX_FAULTS);
        }
    }

    #[test]
    fn only_faults_of_tls_are_noted() {
        let faults = Faults::default();
        let wanted = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        assert!(faults.note("a", &wanted) && !faults.note("a", &std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
    }
}
