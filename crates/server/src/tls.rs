//! TLS and mTLS from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier};
use tokio_rustls::TlsAcceptor;

use crate::TlsFiles;

/// Files that make no TLS server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing, unreadable, or has nothing of what it should have.
    #[error("{}: no {what} in PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// A certificate of the authorities' file cannot be used as one.
    #[error("{}: not usable as authorities of clients", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificate and key don't belong together, or cannot be used.
    #[error("certificate {} and key {} cannot be used", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// The server's end of TLS, which is what its files say.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    /// What handshakes use that begin now.
    config: ArcSwap<rustls::ServerConfig>,
}

// === impl ServerTls ===

impl ServerTls {
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), config: ArcSwap::new(config(files)?) })
    }

    /// Reads the files anew. Handshakes that begin from now on use what they say, and so does whoever comes back: no session
    /// of before is resumed. Connections that there are stay as they are.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used; then all is as before.
    pub fn renew(&self) -> Result<(), TlsError> {
        self.config.store(config(&self.files)?);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

/// Reads the files and makes the server's end of TLS, with HTTP/2 before HTTP/1.1.
fn config(files: &TlsFiles) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key, "private key"))?;
    let pair = |source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
    let builder = match &files.client_ca {
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(
    path: &Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|source| authorities(path, source))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.build().map_err(|source: VerifierBuilderError| authorities(path, source))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) });
    found.map_err(unreadable(path, "certificate"))
}

fn unreadable(path: &Path, what: &'static str) -> impl FnOnce(pem::Error) -> TlsError {
    move |source| TlsError::File { path: path.to_owned(), what, source }
}

fn authorities(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> TlsError {
    TlsError::Authorities { path: path.to_owned(), source: Box::new(source) }
}
