//! Files that cannot be used for TLS, and what they are for.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;

/// What a file of TLS is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// Whom to believe.
    Authorities,
    /// The own certificate, with those between it and the authority.
    Certificate,
    /// The own certificate's private key.
    Key,
}

/// Files that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is missing, or may not be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// What it is for.
        file: TlsFile,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file has nothing of what it should have, or something broken.
    #[error("{}: no {file} in PEM", path.display())]
    Nothing {
        /// What it is for.
        file: TlsFile,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// One of its certificates cannot be used as an authority, or TLS cannot be set up.
    #[error("{}: not usable as authorities", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key don't belong together, or cannot be used.
    #[error("certificate {} and key {} cannot be used together", certificate.display(), key.display())]
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

// === impl TlsFile ===

impl fmt::Display for TlsFile {
    /// What the file should have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorities | Self::Certificate => "certificate",
            Self::Key => "private key",
        })
    }
}

// === impl TlsError ===

impl TlsError {
    /// The files that are to blame.
    pub fn files(&self) -> &'static [TlsFile] {
        match self {
            Self::Authorities { .. } => &[TlsFile::Authorities],
            Self::Pair { .. } => &[TlsFile::Certificate, TlsFile::Key],
            Self::Unreadable { file, .. } | Self::Nothing { file, .. } => match file {
                TlsFile::Authorities => &[TlsFile::Authorities],
                TlsFile::Certificate => &[TlsFile::Certificate],
                TlsFile::Key => &[TlsFile::Key],
            },
        }
    }
}
