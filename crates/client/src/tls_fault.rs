//! What is wrong with TLS where a connection failed, read from the causes of the failure.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// What TLS came to grief on, as whoever connects sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// Nobody who is believed here has signed the server's certificate.
    Untrusted,
    /// The server's certificate is of another name than the endpoint's.
    Name,
    /// The server's certificate is not valid for another reason; it may have expired.
    Invalid,
    /// The server asks for a certificate, and none was given.
    Wanted,
    /// The server does not believe the certificate that it was given.
    Refused,
    /// Something else; it may be no TLS server.
    Other,
}

type Cause<'a> = &'a (dyn StdError + 'static);

/// How the error of an alert begins. A connection of HTTP/2 keeps no more of an error than its text.
const ALERT: &str = "received fatal alert: ";

// === impl TlsFault ===

impl TlsFault {
    /// What an error or one of its causes says about TLS; `None` if nothing.
    pub fn of(error: Cause<'_>) -> Option<Self> {
        std::iter::successors(Some(error), |error| (*error).source()).find_map(of_one)
    }

    /// The fault in a few words.
    pub fn says(self) -> &'static str {
        match self {
            Self::Untrusted => "nobody who is trusted here has signed its certificate",
            Self::Name => "its certificate is of another name",
            Self::Invalid => "its certificate is not valid",
            Self::Wanted => "it asks for a client's certificate, and none was given",
            Self::Refused => "it does not trust the client's certificate",
            Self::Other => "TLS failed; check that it speaks TLS",
        }
    }
}

fn of_one(cause: Cause<'_>) -> Option<TlsFault> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(of_tls(error));
    }
    let io =
        cause.downcast_ref::<io::Error>().or_else(|| cause.downcast_ref::<h2::Error>().and_then(h2::Error::get_io));
    let inner = io?.get_ref()?;
    match inner.downcast_ref::<rustls::Error>() {
        Some(error) => Some(of_tls(error)),
        None => of_text(&inner.to_string()),
    }
}

fn of_tls(error: &rustls::Error) -> TlsFault {
    use CertificateError::{BadSignature, NotValidForName, NotValidForNameContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => TlsFault::Untrusted,
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => TlsFault::Name,
        rustls::Error::InvalidCertificate(_) => TlsFault::Invalid,
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        _ => TlsFault::Other,
    }
}

fn of_alert(alert: AlertDescription) -> TlsFault {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => TlsFault::Wanted,
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError => TlsFault::Refused,
        _ => TlsFault::Other,
    }
}

fn of_text(text: &str) -> Option<TlsFault> {
    let named = text.strip_prefix(ALERT)?;
    // Every alert of RFC 8446, section 6, is a byte.
    let alert = (0..=u8::MAX).map(AlertDescription::from).find(|alert| format!("{alert:?}") == named);
    Some(alert.map_or(TlsFault::Other, of_alert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn every_fault_is_read_as_an_error_and_alerts_as_texts_too() {
        for (alert, fault) in [
            (AlertDescription::CertificateRequired, TlsFault::Wanted),
            (AlertDescription::UnknownCA, TlsFault::Refused),
            (AlertDescription::HandshakeFailure, TlsFault::Other),
        ] {
            let error = rustls::Error::AlertReceived(alert);
            let text = io::Error::other(error.to_string());
            assert_eq!((TlsFault::of(&error), TlsFault::of(&text)), (Some(fault), Some(fault)), "{alert:?}");
            assert_eq!(TlsFault::of(&carried(error)), Some(fault));
        }
        for (error, fault) in [
            (CertificateError::UnknownIssuer, TlsFault::Untrusted),
            (CertificateError::NotValidForName, TlsFault::Name),
            (CertificateError::Expired, TlsFault::Invalid),
        ] {
            assert_eq!(TlsFault::of(&carried(rustls::Error::InvalidCertificate(error))), Some(fault));
        }
        let strange = io::Error::other("received fatal alert: SomethingNew");
        assert_eq!(TlsFault::of(&strange), Some(TlsFault::Other));
    }

    #[test]
    fn other_errors_say_nothing_about_tls() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(TlsFault::of(&reset), None);
        assert_eq!(TlsFault::of(&io::Error::other("fatal alert")), None);
    }
}
