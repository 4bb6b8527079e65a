//! Writing a durable object: at once if it is short, in parts if it is not.

use anyserve_core::Error;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};

use super::failed;
use super::header::{HEADER, Header};

/// Bytes of one part: one request of a minute's timeout even on a slow line, and a thousand of them are 16 GiB.
const PART: usize = 16 << 20;
/// Parts that S3 takes at most; longer objects have longer parts.
const MAX_PARTS: usize = 10_000;
/// Parts that are sent at the same time.
const SENT_AT_ONCE: usize = 4;

/// Writes an object's file. It is there as a whole or not at all.
pub(super) async fn object(store: &dyn ObjectStore, path: &Path, header: &Header, bytes: Bytes) -> Result<(), Error> {
    let file = File { header: Bytes::copy_from_slice(&header.write()), bytes };
    let written = if file.len() <= PART {
        store.put(path, file.part(0, file.len())).await.map(drop)
    } else {
        in_parts(store, path, &file).await
    };
    written.map_err(|error| failed(path, &error))
}

async fn in_parts(store: &dyn ObjectStore, path: &Path, file: &File) -> Result<(), object_store::Error> {
    let mut upload = store.put_multipart(path).await?;
    match send(&mut *upload, file).await {
        Ok(()) => upload.complete().await.map(drop),
        Err(error) => {
            // The first error says what is wrong; that the parts could not be removed either follows from it.
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

async fn send(upload: &mut dyn MultipartUpload, file: &File) -> Result<(), object_store::Error> {
    let part = part_len(file.len());
    let parts: Vec<_> = (0..file.len()).step_by(part).map(|at| upload.put_part(file.part(at, part))).collect();
    stream::iter(parts).buffer_unordered(SENT_AT_ONCE).try_collect::<()>().await
}

/// How long the parts of a file are: all the same but the last.
fn part_len(len: usize) -> usize {
    PART.max(len.div_ceil(MAX_PARTS))
}

/// A file before it is one: nothing of the object is copied.
struct File {
    header: Bytes,
    bytes: Bytes,
}

// === impl File ===

impl File {
    fn len(&self) -> usize {
        HEADER + self.bytes.len()
    }

    /// At most `len` bytes from `at` on.
    fn part(&self, at: usize, len: usize) -> PutPayload {
        let end = self.len().min(at.saturating_add(len));
        let header = self.header.slice(at.min(HEADER)..end.min(HEADER));
        let bytes = self.bytes.slice(at.saturating_sub(HEADER)..end.saturating_sub(HEADER));
        [header, bytes].into_iter().filter(|piece| !piece.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_file_has_more_parts_than_there_may_be() {
        for len in [1, PART, PART + 1, PART * MAX_PARTS, PART * MAX_PARTS + 1, PART * MAX_PARTS * 3] {
            assert!(len.div_ceil(part_len(len)) <= MAX_PARTS, "{len}");
            assert!(part_len(len) >= PART);
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_a_file_are_the_file(bytes in proptest::collection::vec(any::<u8>(), 0..200), part in 1..100_usize) {
            let file = File { header: Bytes::from(vec![7; HEADER]), bytes: bytes.clone().into() };
            let parts = (0..file.len()).step_by(part).flat_map(|at| file.part(at, part)).flatten();
            prop_assert_eq!(parts.collect::<Vec<u8>>(), [vec![7; HEADER], bytes].concat());
        }
    }
}
