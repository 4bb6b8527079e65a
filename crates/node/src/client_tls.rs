//! TLS to others, by the files of options such as `--api-server-ca`, `--api-server-cert` and `--api-server-key`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use anyserve_client::{Tls, TlsError, TlsFile};

/// What was given for the three options of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

// === impl ClientFiles ===

impl ClientFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.ca.is_none() && self.certificate.is_none() && self.key.is_none()
    }

    /// Reads and checks them. The options are named after `prefix`, `--api-server` say.
    pub(crate) fn read(&self, prefix: &str) -> Result<Tls> {
        let identity = match (self.certificate.as_deref(), self.key.as_deref()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => bail!("{prefix}-cert needs {prefix}-key too"),
            (None, Some(_)) => bail!("{prefix}-key needs {prefix}-cert too"),
        };
        let read = Tls::read(self.ca.as_deref(), identity);
        read.map_err(|error| (options(prefix, &error), error))
            .map_or_else(|(options, error)| Err(error).context(options), Ok)
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
        assert!(files.read("--api-server").unwrap().identity.is_some() && !files.is_empty());
    }

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
    }
}
