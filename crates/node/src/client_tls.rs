//! TLS to others, by the files of options such as `--api-server-ca`, `--api-server-cert` and `--api-server-key`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use anyserve_client::{Tls, TlsError, TlsFile, TlsPem};

use crate::certificates::contents;
use crate::renewal::Contents;

/// What was given for the three options of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// What was read of them, and what it takes to read them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientTls {
    prefix: &'static str,
    files: ClientFiles,
    /// What was in the files before they were read.
    first: Contents,
    tls: Tls,
}

// === impl ClientFiles ===

impl ClientFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.certificate.is_none() && self.key.is_none()
    }

    /// Those that there are.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        [&self.ca, &self.certificate, &self.key].into_iter().flatten().cloned().collect()
    }

    /// Reads and checks them. The options are named after `prefix`, `--api-server` say.
    pub(crate) fn read(&self, prefix: &'static str) -> Result<ClientTls> {
        let first = contents(&self.all());
        Ok(ClientTls { prefix, files: self.clone(), first, tls: self.pem(prefix)?.into() })
    }

    fn pem(&self, prefix: &str) -> Result<TlsPem> {
        let identity = match (self.certificate.as_deref(), self.key.as_deref()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => bail!("{prefix}-cert needs {prefix}-key too"),
            (None, Some(_)) => bail!("{prefix}-key needs {prefix}-cert too"),
        };
        let read = TlsPem::read(self.ca.as_deref(), identity);
        read.map_err(|error| (options(prefix, &error), error))
            .map_or_else(|(options, error)| Err(error).context(options), Ok)
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// How this side talks TLS; it changes when the files are read again.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    pub(crate) fn files(&self) -> &ClientFiles {
        &self.files
    }

    /// What was in the files before they were read for the first time.
    pub(crate) fn first(&self) -> Contents {
        self.first
    }

    /// The options that name the files.
    pub(crate) fn options(&self) -> String {
        let prefix = self.prefix;
        format!("{prefix}-ca, {prefix}-cert and {prefix}-key")
    }

    /// Reads the files again. If they cannot be used, all is as before.
    pub(crate) fn renew(&self) -> Result<()> {
        self.tls.renew(self.files.pem(self.prefix)?);
        Ok(())
    }
}

/// The options that named the files that are to blame.
fn options(prefix: &str, error: &TlsError) -> String {
    let option = |file: &TlsFile| match file {
        TlsFile::Authorities => format!("{prefix}-ca"),
        TlsFile::Certificate => format!("{prefix}-cert"),
        TlsFile::Key => format!("{prefix}-key"),
    };
    error.files().iter().map(option).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(ca: Option<&str>, certificate: Option<&str>, key: Option<&str>) -> String {
        let path = |text: Option<&str>| text.map(PathBuf::from);
        let files = ClientFiles { ca: path(ca), certificate: path(certificate), key: path(key) };
        format!("{:#}", files.read("--api-server").unwrap_err())
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_option_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (own, other) = (made(), made());
        let (certificate, nothing) = (write("cert", own.cert.pem()), write("nothing", String::new()));
        let (key, others) =
            (write("key", own.signing_key.serialize_pem()), write("other", other.signing_key.serialize_pem()));
        let message = refused(Some("none"), None, None);
        assert!(message.starts_with("--api-server-ca: none cannot be read: "), "{message}");
        let message = refused(Some(&nothing), None, None);
        assert!(message.starts_with(&format!("--api-server-ca: {nothing}: no certificate in PEM")), "{message}");
        let message = refused(None, Some(&nothing), Some(&key));
        assert!(message.starts_with(&format!("--api-server-cert: {nothing}: no certificate in PEM")), "{message}");
        let message = refused(None, Some(&certificate), Some(&certificate));
        assert!(message.starts_with(&format!("--api-server-key: {certificate}: no private key in PEM")), "{message}");
        let message = refused(None, Some(&certificate), Some(&others));
        let pair = format!(
            "--api-server-cert and --api-server-key: certificate {certificate} and key {others} cannot be used"
        );
        assert!(message.starts_with(&pair) && message.contains("KeyMismatch"), "{message}");
        assert_eq!(refused(None, Some(&certificate), None), "--api-server-cert needs --api-server-key too");
        assert_eq!(refused(None, None, Some(&key)), "--api-server-key needs --api-server-cert too");
        let files = ClientFiles { ca: None, certificate: Some(certificate.into()), key: Some(key.into()) };
        assert!(files.read("--api-server").unwrap().tls().has_identity() && !files.is_empty());
    }

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
    }
}
