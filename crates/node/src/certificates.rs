//! Certificates and keys that are renewed in their files while the process runs.
//!
//! ```text
//! every second: files ─► Contents ─► Renewal ─ try ─► renew ─┬─ good ───► new handshakes use them
//!                                                            └─ broken ─► the log, once; the old ones go on
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result};
use anyserve_client::expiry;
use anyserve_server::{CertificateDates, ServerTls, TlsFiles};

use crate::client_tls::ClientTls;
use crate::renewal::{Contents, Renewal};

/// How often files are looked at: a few KiB are read.
const PERIOD: Duration = Duration::from_secs(1);

/// Files of certificates, and who uses them.
pub(crate) struct Watched {
    /// The options that named them.
    options: String,
    files: Vec<PathBuf>,
    renew: Box<dyn Fn() -> Result<()> + Send>,
    renewal: Renewal,
}

/// The files of a server as they are before they are read for the first time.
pub(crate) struct BeforeServer(Option<(TlsFiles, Contents)>);

// === impl Watched ===

impl Watched {
    /// The files of one side that connects.
    pub(crate) fn of_client(tls: &ClientTls) -> Option<Self> {
        let (files, tls) = (tls.files().all(), tls.clone());
        let (options, renewal) = (tls.options(), Renewal::new(tls.first()));
        (!files.is_empty()).then(|| Self { options, files, renew: Box::new(move || tls.renew()), renewal })
    }

    /// Looks at the files, and has them used if they were renewed. Returns whether they were.
    fn look(&mut self) -> bool {
        if !self.renewal.found(contents(&self.files)) {
            return false;
        }
        let renewed = (self.renew)();
        let good = renewed.is_ok();
        self.renewal.tried(good);
        let (options, files) = (&self.options, &self.files);
        match renewed {
            Ok(()) => tracing::info!(?files, "the files of {options} are new: connections use them from now on"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "the files of {options} are new and cannot be used: the old ones go on");
            }
        }
        good
    }

    /// Tells when what is in the files expires. Keys never do.
    fn tell(&self, dates: &CertificateDates) {
        for file in &self.files {
            dates.put(file, std::fs::read(file).ok().and_then(|pem| expiry(&pem)));
        }
    }
}

// === impl BeforeServer ===

impl BeforeServer {
    pub(crate) fn of(files: Option<&TlsFiles>) -> Self {
        Self(files.map(|files| (files.clone(), contents(&all(files)))))
    }

    /// The files that are used now.
    pub(crate) fn watch(self, tls: Option<Arc<ServerTls>>) -> Option<Watched> {
        let ((files, used), tls) = self.0.zip(tls)?;
        Some(Watched {
            options: "--tls-cert, --tls-key and --tls-client-ca".to_owned(),
            files: all(&files),
            renew: Box::new(move || tls.renew().map_err(Error::new)),
            renewal: Renewal::new(used),
        })
    }
}

fn all(files: &TlsFiles) -> Vec<PathBuf> {
    [&files.certificate, &files.key].into_iter().chain(&files.client_ca).cloned().collect()
}

/// Looks at files for the life of the process, and tells when what they have expires.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn keep_new(mut all: Vec<Watched>, dates: CertificateDates) {
    for watched in &all {
        watched.tell(&dates);
    }
    while !all.is_empty() {
        tokio::time::sleep(PERIOD).await;
        let told = dates.clone();
        let looked = tokio::task::spawn_blocking(move || {
            for watched in &mut all {
                if watched.look() {
                    watched.tell(&told);
                }
            }
            all
        });
        match looked.await {
            Ok(back) => all = back,
            Err(error) => {
                tracing::error!(%error, "certificates are not looked at any more");
                break;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// What is in these files. A file that cannot be read is a content of its own.
pub(crate) fn contents(files: &[PathBuf]) -> Contents {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    Contents(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_tls::ClientFiles;
    use std::path::Path;

    fn write(folder: &Path, made: &rcgen::CertifiedKey<rcgen::KeyPair>) {
        std::fs::write(folder.join("cert"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key"), made.signing_key.serialize_pem()).unwrap();
    }

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
    }

    #[test]
    fn renewed_files_are_used_and_a_half_written_pair_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        let (first, second) = (made(), made());
        write(folder.path(), &first);
        let files = ClientFiles { ca: path("cert"), certificate: path("cert"), key: path("key") };
        let tls = files.read("--replica").unwrap();
        let mut watched = Watched::of_client(&tls).unwrap();
        let before = tls.tls().config().unwrap();
        let mut same = |count: usize| {
            (0..count).for_each(|_| _ = watched.look());
            Arc::ptr_eq(&before, &tls.tls().config().unwrap())
        };
        assert!(same(3));
        std::fs::write(folder.path().join("cert"), second.cert.pem()).unwrap();
        assert!(same(3), "the key is still the old one");
        write(folder.path(), &second);
        assert!(same(1) && !same(1));
    }

    #[test]
    fn without_files_there_is_nothing_to_look_at() {
        assert!(Watched::of_client(&ClientFiles::default().read("--replica").unwrap()).is_none());
        assert!(BeforeServer::of(None).watch(None).is_none());
        assert_ne!(contents(&["nothing".into()]), contents(&[]));
    }
}
