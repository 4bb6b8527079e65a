//! TLS of whoever connects: whom to believe, and who to say one is.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::{TlsError, TlsFile};

/// How to talk TLS; only looked at for `https://` endpoints. Clones are one and the same: what is renewed in one of them,
/// connections that are made from then on by any of them use.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<Current>>);

/// What connections use that are made now.
struct Current {
    pem: TlsPem,
    /// Made when it is needed first.
    made: OnceLock<Result<Arc<ClientConfig>, rustls::Error>>,
}

/// What it is made of.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsPem {
    /// Certificates, PEM, of those who may have signed the server's; `None` trusts what the system trusts.
    pub ca: Option<Vec<u8>>,
    /// Own certificate and key, both PEM, for servers that ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// HTTP/2 as TLS calls it.
pub(crate) const HTTP2: &[u8] = b"h2";

// === impl Tls ===

impl Tls {
    /// Reads and checks files, as [`TlsPem::read`].
    ///
    /// # Errors
    /// [`TlsError`] with the file that cannot be used.
    pub fn read(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        TlsPem::read(ca, identity).map(Self::from)
    }

    /// Has connections that are made from now on use this. Those that there are stay as they are.
    pub fn renew(&self, pem: TlsPem) {
        self.0.store(Arc::new(pem.into()));
    }

    /// Whether it is said who may have signed a server's certificate.
    pub fn has_authorities(&self) -> bool {
        self.0.load().pem.ca.is_some()
    }

    /// Whether there is a certificate of this side.
    pub fn has_identity(&self) -> bool {
        self.0.load().pem.identity.is_some()
    }

    /// The client's end of TLS, for HTTP/2 above it. Where nobody is named who is to be believed, the system's authorities
    /// are looked up the first time.
    ///
    /// # Errors
    /// If something of it cannot be used.
    pub fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let current = self.0.load();
        current.made.get_or_init(|| current.pem.config().map(Arc::new)).clone()
    }
}

impl Default for Tls {
    /// Believes what the system believes, and shows nothing.
    fn default() -> Self {
        TlsPem::default().into()
    }
}

impl From<TlsPem> for Tls {
    fn from(pem: TlsPem) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(pem.into())))
    }
}

impl From<TlsPem> for Current {
    fn from(pem: TlsPem) -> Self {
        Self { pem, made: OnceLock::new() }
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.0.load().pem == other.0.load().pem
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    /// The key is shown nowhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ca, identity) = (self.has_authorities(), self.has_identity());
        f.debug_struct("Tls").field("ca", &ca).field("identity", &identity).finish()
    }
}

// === impl TlsPem ===

impl TlsPem {
    /// Reads and checks files: authorities, and certificate and key of this side.
    ///
    /// # Errors
    /// [`TlsError`] with the file that cannot be used.
    pub fn read(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let mut tls = Self::default();
        if let Some(path) = ca {
            let pem = read(TlsFile::Authorities, path)?;
            let found = certificates(&pem).map_err(nothing(TlsFile::Authorities, path))?;
            trusted(found).map_err(|source| TlsError::Authorities { path: path.to_owned(), source })?;
            tls.ca = Some(pem);
        }
        if let Some((certificate, key)) = identity {
            let (chain, secret) = (read(TlsFile::Certificate, certificate)?, read(TlsFile::Key, key)?);
            certificates(&chain).map_err(nothing(TlsFile::Certificate, certificate))?;
            PrivateKeyDer::from_pem_slice(&secret).map_err(nothing(TlsFile::Key, key))?;
            let own = Self { ca: None, identity: Some((chain, secret)) };
            let pair = |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
            own.config_with(RootCertStore::empty()).map_err(pair)?;
            tls.identity = own.identity;
        }
        Ok(tls)
    }

    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let roots = match &self.ca {
            Some(pem) => trusted(certificates(pem).map_err(|error| unusable(&error))?)?,
            None => of_the_system(),
        };
        self.config_with(roots)
    }

    fn config_with(&self, roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &self.identity {
            Some((certificate, key)) => {
                let chain = certificates(certificate).map_err(|error| unusable(&error))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&error))?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(config)
    }
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { file, path: path.to_owned(), source })
}

fn nothing(file: TlsFile, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    move |source| TlsError::Nothing { file, path: path.to_owned(), source }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) }
}

fn trusted(authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    authorities.into_iter().try_for_each(|one| roots.add(one))?;
    Ok(roots)
}

fn of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn unusable(error: &pem::Error) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a certificate and its key, another key, and a file of nothing.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        write("cert.pem", own.cert.pem());
        write("key.pem", own.signing_key.serialize_pem());
        write("other.key", other.signing_key.serialize_pem());
        write("nothing.pem", "nothing".to_owned());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        write("broken.pem", broken.to_owned());
        folder
    }

    #[test]
    fn files_that_can_be_used_are_read_and_the_key_is_shown_nowhere() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let tls = Tls::read(Some(&path("cert.pem")), Some((&path("cert.pem"), &path("key.pem")))).unwrap();
        assert!(tls.config().is_ok() && tls.has_authorities() && tls.has_identity());
        assert_eq!(format!("{tls:?}"), "Tls { ca: true, identity: true }");
        assert_eq!(Tls::read(None, None).unwrap(), Tls::default());
    }

    #[test]
    fn what_is_renewed_in_one_is_used_by_all_its_clones() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let (one, clone) = (Tls::default(), Tls::default().clone());
        let shared = one.clone();
        one.renew(TlsPem::read(Some(&path("cert.pem")), Some((&path("cert.pem"), &path("key.pem")))).unwrap());
        assert!(shared.has_identity() && shared == one && !clone.has_identity());
        let before = shared.config().unwrap();
        assert!(Arc::ptr_eq(&before, &one.config().unwrap()));
        one.renew(TlsPem::read(Some(&path("cert.pem")), None).unwrap());
        assert!(!Arc::ptr_eq(&before, &shared.config().unwrap()));
        one.renew(TlsPem { ca: Some(b"nothing".to_vec()), identity: None });
        assert!(shared.config().is_err());
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_they_should_have() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let refused = |ca: Option<&str>, identity: Option<(&str, &str)>| {
            let identity = identity.map(|(certificate, key)| (path(certificate), path(key)));
            let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            let error = Tls::read(ca.map(path).as_deref(), identity).unwrap_err();
            (error.files(), error.to_string().replace(&format!("{}/", folder.path().display()), ""))
        };
        for (ca, identity, files, message) in [
            (Some("none"), None, &[TlsFile::Authorities][..], "none cannot be read"),
            (Some("nothing.pem"), None, &[TlsFile::Authorities], "nothing.pem: no certificate in PEM"),
            (Some("key.pem"), None, &[TlsFile::Authorities], "key.pem: no certificate in PEM"),
            (Some("broken.pem"), None, &[TlsFile::Authorities], "broken.pem: not usable as authorities"),
            (None, Some(("none", "key.pem")), &[TlsFile::Certificate], "none cannot be read"),
            (None, Some(("nothing.pem", "key.pem")), &[TlsFile::Certificate], "nothing.pem: no certificate in PEM"),
            (None, Some(("cert.pem", "none")), &[TlsFile::Key], "none cannot be read"),
            (None, Some(("cert.pem", "cert.pem")), &[TlsFile::Key], "cert.pem: no private key in PEM"),
            (
                None,
                Some(("cert.pem", "other.key")),
                &[TlsFile::Certificate, TlsFile::Key],
                "certificate cert.pem and key other.key cannot be used together",
            ),
        ] {
            assert_eq!(refused(ca, identity), (files, message.to_owned()));
        }
    }
}
