//! From what the operator wrote to a store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

/// A text that names no store for durable objects. The message holds the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpillError {
    /// The text is empty.
    #[error("the store for durable objects is empty: write a folder, or s3://bucket/prefix")]
    Empty,
    /// A scheme that there is not.
    #[error("'{place}' has the scheme '{scheme}': write a folder, file:///folder, or s3://bucket/prefix")]
    Scheme {
        /// What was given.
        place: String,
        /// Its scheme.
        scheme: String,
    },
    /// `file://` and a path that is not absolute.
    #[error("'{place}' has no absolute path: write file:///folder, with three slashes")]
    Relative {
        /// What was given.
        place: String,
    },
    /// `memory://` with something behind it.
    #[error("'{place}' names something in memory: write memory:///")]
    Memory {
        /// What was given.
        place: String,
    },
    /// A folder that can be neither used nor made.
    #[error("the folder {} cannot be made", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `s3://` without a bucket.
    #[error("'{place}' names no bucket: write s3://bucket/prefix")]
    Bucket {
        /// What was given.
        place: String,
    },
    /// S3 without what it takes.
    #[error("'{place}' is a bucket, and this build has no S3 in it")]
    NoS3 {
        /// What was given.
        place: String,
    },
    /// Options of the store that do not fit, such as the variables for S3.
    #[error("'{place}' cannot be used")]
    Options {
        /// What was given.
        place: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
}

pub(super) fn open(place: &str) -> Result<Arc<dyn ObjectStore>, SpillError> {
    let owned = || place.to_owned();
    match place.split_once("://") {
        None if place.is_empty() => Err(SpillError::Empty),
        None => folder(place),
        Some(("file", path)) if path.starts_with('/') => folder(path),
        Some(("file", _)) => Err(SpillError::Relative { place: owned() }),
        Some(("memory", "" | "/")) => Ok(Arc::new(InMemory::new())),
        Some(("memory", _)) => Err(SpillError::Memory { place: owned() }),
        Some(("s3", rest)) => bucket(place, rest),
        Some((scheme, _)) => Err(SpillError::Scheme { place: owned(), scheme: scheme.to_owned() }),
    }
}

/// A folder, which is made if it is not there. What is written there is on the disk when it is told to be kept.
fn folder(path: &str) -> Result<Arc<dyn ObjectStore>, SpillError> {
    std::fs::create_dir_all(path).map_err(|source| SpillError::Folder { path: path.into(), source })?;
    let store = LocalFileSystem::new_with_prefix(path)
        .map_err(|source| SpillError::Options { place: path.to_owned(), source })?;
    Ok(Arc::new(store.with_fsync(true)))
}

#[cfg(not(feature = "s3"))]
fn bucket(place: &str, _: &str) -> Result<Arc<dyn ObjectStore>, SpillError> {
    Err(SpillError::NoS3 { place: place.to_owned() })
}

#[cfg(feature = "s3")]
use s3::bucket;

#[cfg(feature = "s3")]
mod s3 {
    //! S3 and what speaks its protocol, by the usual variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    //! `AWS_REGION`, `AWS_ENDPOINT` and the rest.

    use std::sync::Arc;
    use std::time::Duration;

    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::prefix::PrefixStore;
    use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

    use super::SpillError;

    /// How long the store may say nothing, and how often and long a request is made again. Requests end after that; as a
    /// whole one may take as long as its bytes do.
    const SILENCE: Duration = Duration::from_secs(30);
    const CONNECT: Duration = Duration::from_secs(5);
    const RETRIES: usize = 3;
    const RETRYING: Duration = Duration::from_secs(30);

    pub(super) fn bucket(place: &str, rest: &str) -> Result<Arc<dyn ObjectStore>, SpillError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(SpillError::Bucket { place: place.to_owned() });
        }
        // The HTTP client takes the process's; that there is one already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = |source| SpillError::Options { place: place.to_owned(), source };
        let store = builder().with_bucket_name(bucket).build().map_err(options)?;
        let prefix = object_store::path::Path::parse(prefix.trim_end_matches('/'));
        let prefix = prefix.map_err(|error| options(error.into()))?;
        Ok(Arc::new(PrefixStore::new(store, prefix)))
    }

    fn builder() -> AmazonS3Builder {
        let builder = AmazonS3Builder::from_env();
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        // Who writes http:// means it.
        let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            .with_connect_timeout(CONNECT)
            .with_allow_http(plain);
        let retries = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRYING };
        builder.with_client_options(client).with_retry(retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(place: &str) -> String {
        open(place).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn every_kind_of_place_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new folder").join("below");
        assert!(open(path.to_str().unwrap()).is_ok() && path.is_dir());
        assert!(open(&format!("file://{}", path.display())).is_ok());
        assert!(open("memory:///").is_ok() && open("memory://").is_ok());
        #[cfg(feature = "s3")]
        for place in ["s3://bucket", "s3://bucket/", "s3://bucket/some/prefix", "s3://bucket/some/prefix/"] {
            open(place).unwrap();
        }
    }

    #[test]
    fn every_other_text_is_refused_with_the_fix() {
        for (place, part) in [
            ("", "write a folder"),
            ("gs://bucket", "has the scheme 'gs'"),
            ("file://relative", "with three slashes"),
            ("memory:///x", "write memory:///"),
            ("/dev/null/x", "cannot be made"),
        ] {
            assert!(refused(place).contains(part), "{place}");
        }
        #[cfg(feature = "s3")]
        assert!(refused("s3:///prefix").contains("names no bucket"));
    }
}
