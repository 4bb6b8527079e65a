//! Shared-memory objects of tests, as a client would have them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// An object under a name that no other test has; it is gone at the test's end.
pub(crate) struct Object {
    key: String,
}

// === impl Object ===

impl Object {
    /// A name, and no object yet.
    pub(crate) fn unmade() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { key: format!("/test-regions-{}-{number}", std::process::id()) }
    }

    /// An object with these bytes.
    pub(crate) fn with(bytes: &[u8]) -> Self {
        let object = Self::unmade();
        std::fs::write(object.path(), bytes).unwrap();
        object
    }

    /// An object of zeros.
    pub(crate) fn of(len: u64) -> Self {
        let object = Self::with(&[]);
        object.truncate(len);
        object
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm{}", self.key))
    }

    pub(crate) fn truncate(&self, len: u64) {
        self.file().set_len(len).unwrap();
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.file().write_all_at(bytes, at).unwrap();
    }

    fn file(&self) -> File {
        OpenOptions::new().write(true).open(self.path()).unwrap()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(self.path());
    }
}
