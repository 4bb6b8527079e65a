//! TLS to replicas: whom to believe.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// A file of authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaTlsError {
    /// It is missing, unreadable, or has no certificate.
    #[error("{}: no certificate in PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// One of its certificates cannot be used as an authority, or TLS cannot be set up.
    #[error("{}: not usable as authorities of replicas", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// The client's end of TLS, set up from a file at once, or from the system when the first replica needs it.
#[derive(Debug)]
pub(crate) struct Connectors(OnceLock<Result<Made, String>>);

#[derive(Clone)]
struct Made(TlsConnector);

// === impl Connectors ===

impl Connectors {
    pub(crate) fn try_new(ca: Option<&Path>) -> Result<Self, ReplicaTlsError> {
        let made = OnceLock::new();
        if let Some(path) = ca {
            let authorities = |source| ReplicaTlsError::Authorities { path: path.to_owned(), source };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(authorities)?;
            }
            let connector = connector(roots).map_err(authorities)?;
            made.get_or_init(|| Ok(Made(connector)));
        }
        Ok(Self(made))
    }

    /// What connects. The error says why nothing can.
    pub(crate) fn get(&self) -> Result<TlsConnector, String> {
        let made = self.0.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            connector(roots).map(Made).map_err(|error| format!("TLS: {error}"))
        });
        made.clone().map(|made| made.0)
    }
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector(..)")
    }
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ReplicaTlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) });
    found.map_err(|source| ReplicaTlsError::File { path: path.to_owned(), source })
}
