//! Which regions there are: by their names, and by their addresses as long as anybody uses their memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{MAX_REGIONS, RegionError, RegisterError};
use crate::region::{Region, Whole};

/// What is told of a region that nobody uses any more.
pub(super) type Told = Box<dyn Fn(u64) + Send + Sync>;

/// What regions themselves have to reach at their end.
#[derive(Default)]
pub(crate) struct Books {
    /// Never held while a region is dropped, which takes it too.
    pub(super) pages: RwLock<Pages>,
    pub(super) told: OnceLock<Told>,
}

/// Names and addresses.
#[derive(Default)]
pub(super) struct Pages {
    pub(super) names: BTreeMap<String, Registered>,
    /// Every region that lives, registered or not, by its address.
    pub(super) living: BTreeMap<usize, Weak<Region>>,
}

/// A region that has a name.
pub(super) struct Registered {
    pub(super) region: Arc<Region>,
    /// All its bytes, from which parts are cut without another allocation.
    pub(super) whole: Bytes,
}

// === impl Books ===

impl Books {
    /// A region's memory is about to go.
    pub(crate) fn released(&self, region: &Region) {
        // A region that was refused at the last moment was never in.
        let was_in = self.pages.write().living.remove(&region.address()).is_some();
        if let (true, Some(told)) = (was_in, self.told.get()) {
            told(region.id());
        }
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.pages.read();
        f.debug_struct("Books")
            .field("names", &pages.names.len())
            .field("living", &pages.living.len())
            .finish_non_exhaustive()
    }
}

// === impl Pages ===

impl Pages {
    /// The region of a name.
    pub(super) fn find(&self, name: &str) -> Result<&Registered, RegionError> {
        self.names.get(name).ok_or_else(|| RegionError::Unknown { name: name.to_owned() })
    }

    /// Whether there is room for a region of this name.
    pub(super) fn check_free(&self, name: &str) -> Result<(), RegisterError> {
        if self.names.contains_key(name) {
            return Err(RegisterError::Already { name: name.to_owned() });
        }
        if self.names.len() >= MAX_REGIONS {
            return Err(RegisterError::Full { name: name.to_owned() });
        }
        Ok(())
    }

    /// Enters a region; the caller keeps it alive until the lock is free again.
    pub(super) fn enter(&mut self, region: &Arc<Region>) -> Result<(), RegisterError> {
        let name = &region.status().name;
        self.check_free(name)?;
        if let Entry::Vacant(place) = self.names.entry(name.clone()) {
            let whole = Bytes::from_owner(Whole(Arc::clone(region)));
            place.insert(Registered { region: Arc::clone(region), whole });
            self.living.insert(region.address(), Arc::downgrade(region));
        }
        Ok(())
    }
}
