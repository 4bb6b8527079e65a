//! Deletes durable objects whose lease has ended, and keys whose object is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyserve_core::Error;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::{KEYS, OBJECTS, Spill, failed, key, now_ms, object_path, read};

/// Time between two sweeps.
const INTERVAL: Duration = Duration::from_mins(10);
/// Objects, and as many keys, that one sweep looks at. The next goes on behind them.
const MAX_LOOKS: usize = 1000;

/// Where a sweep ended, and what it deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) deleted: usize,
    /// The last object and the last key that it looked at, if there were more.
    objects: Option<Path>,
    keys: Option<Path>,
}

/// Sweeps for ever. A sweep that fails is told in the log, and made again.
pub(crate) async fn janitor(spill: Spill) {
    let mut last = Swept::default();
    loop {
        match spill.sweep(&last, MAX_LOOKS).await {
            Ok(swept) => {
                tracing::debug!(deleted = swept.deleted, "swept durable objects");
                last = swept;
            }
            Err(error) => tracing::warn!(%error, "durable objects cannot be swept"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

// === impl Spill ===

impl Spill {
    /// Goes on behind the last sweep, or begins again after one that came to the end.
    pub(super) async fn sweep(&self, last: &Swept, max: usize) -> Result<Swept, Error> {
        let (mut swept, objects) = (Swept::default(), page(&*self.store, OBJECTS, last.objects.as_ref(), max).await?);
        for path in &objects {
            // What cannot be read may be of a later release, or of somebody else, and is left alone.
            let header = read::header(&*self.store, path).await?;
            if header.is_some_and(|header| header.is_over(now_ms())) {
                self.remove(path).await?;
                swept.deleted += 1;
            }
        }
        let keys = page(&*self.store, KEYS, last.keys.as_ref(), max).await?;
        for path in &keys {
            if self.leads_nowhere(path).await? {
                self.remove(path).await?;
                swept.deleted += 1;
            }
        }
        swept.objects = objects.last().filter(|_| objects.len() == max).cloned();
        swept.keys = keys.last().filter(|_| keys.len() == max).cloned();
        Ok(swept)
    }

    /// Whether a key's object is gone. The key is read again after that: it may have a new object by then. Should it get
    /// one between this and its deletion, it is not found until it is written again; its object is, by its reference.
    async fn leads_nowhere(&self, path: &Path) -> Result<bool, Error> {
        let Some(entry) = key::read(&*self.store, path).await? else { return Ok(false) };
        if read::header(&*self.store, &object_path(entry.objref)).await?.is_some() {
            return Ok(false);
        }
        Ok(key::read(&*self.store, path).await? == Some(entry))
    }
}

/// The first `max` files of a folder behind `after`, in order. Not every store lists in order.
async fn page(store: &dyn ObjectStore, folder: &str, after: Option<&Path>, max: usize) -> Result<Vec<Path>, Error> {
    let folder = Path::from(folder);
    let mut listed = match after {
        Some(after) => store.list_with_offset(Some(&folder), after),
        None => store.list(Some(&folder)),
    };
    let mut first = BTreeSet::new();
    while let Some(file) = listed.try_next().await.map_err(|error| failed(&folder, &error))? {
        first.insert(file.location);
        if first.len() > max {
            first.pop_last();
        }
    }
    Ok(first.into_iter().collect())
}
