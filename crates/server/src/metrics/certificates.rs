//! When the certificates expire that a process uses.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::gauges;

/// Files of certificates that are in use, and when the first certificate in each of them expires. Clones are one and the
/// same.
#[derive(Clone, Debug, Default)]
pub struct CertificateDates(Arc<Mutex<BTreeMap<String, u64>>>);

// === impl CertificateDates ===

impl CertificateDates {
    /// From now on this is used of a file: certificates of which the first one expires then, in Unix time, or none.
    pub fn put(&self, file: &Path, expiry: Option<u64>) {
        let (mut all, file) = (self.0.lock(), file.display().to_string());
        match expiry {
            Some(expiry) => all.insert(file, expiry),
            None => all.remove(&file),
        };
    }

    /// Writes them for a scrape; nothing where there are none.
    ///
    /// # Errors
    /// As of the encoder.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.lock();
        if all.is_empty() {
            return Ok(());
        }
        let help = "When the first certificate in a file that is in use expires, in Unix time";
        let rows = all.iter().map(|(file, expiry)| (vec![("file", file.as_str())], *expiry));
        gauges(encoder, "tls_certificate_expiry_timestamp_seconds", help, rows)
    }
}
