//! A worker's views on memory that clients share with the runtime.
//!
//! The runtime names a region by number, file and part; the first use maps it, further ones find it by its number until
//! the runtime says that it is not used any more. A view that is still held then stays good.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::region_map::{MapError, RegionMap};
use crate::regions::MAX_REGIONS;

/// A region, as the runtime names it to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionPlace<'a> {
    /// Its number; another region never has it.
    pub id: u64,
    /// File that it is a part of.
    pub path: &'a Path,
    /// Where it begins in the file.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
}

/// Memory of a region that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The part is not inside of the region.
    #[error("{len} bytes at {offset} are not inside of shared memory region {id} of {region} bytes")]
    Beyond {
        /// The region.
        id: u64,
        /// Where the part begins.
        offset: u64,
        /// Its bytes.
        len: u64,
        /// Bytes of the region.
        region: u64,
    },
    /// The region was another one before.
    #[error("shared memory region {id} is {is}, and was {was}")]
    Changed {
        /// The region.
        id: u64,
        /// What it is said to be.
        is: String,
        /// What it was mapped as.
        was: String,
    },
    /// As many regions are in use as there may be.
    #[error("{MAX_REGIONS} shared memory regions are in use, which is the limit")]
    Full,
    /// The region cannot be mapped.
    #[error("shared memory region {id}: {source}")]
    Map {
        /// The region.
        id: u64,
        /// Why.
        source: MapError,
    },
}

/// Bytes that were not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// They are more than there is room for.
    #[error("{len} bytes at {at} do not fit into {room} bytes of shared memory")]
    TooLarge {
        /// Where they were to begin.
        at: usize,
        /// How many they are.
        len: usize,
        /// Bytes of the room.
        room: usize,
    },
    /// The client has made its memory shorter.
    #[error("the shared memory region was truncated after it was registered")]
    Truncated,
}

/// The regions that a worker has mapped.
#[derive(Debug, Default)]
pub struct RegionViews {
    // Held while a file is opened and mapped, which waits for nobody.
    views: Mutex<HashMap<u64, View>>,
}

/// Room in a region for one output.
#[derive(Debug)]
pub struct RegionRoom {
    map: Arc<RegionMap>,
    range: Range<usize>,
}

#[derive(Debug)]
struct View {
    path: PathBuf,
    start: u64,
    len: u64,
    map: Arc<RegionMap>,
}

/// Bytes of a region, as their owner.
struct Part {
    map: Arc<RegionMap>,
    range: Range<usize>,
}

// === impl RegionViews ===

impl RegionViews {
    /// `len` bytes from `offset` on, where they lie. The client may change them at any time.
    pub fn view(&self, place: &RegionPlace<'_>, offset: u64, len: u64) -> Result<Bytes, ViewError> {
        let range = part(place, offset, len)?;
        let map = self.map(place)?;
        Ok(Bytes::from_owner(Part { map, range }))
    }

    /// Room for `len` bytes from `offset` on.
    pub fn room(&self, place: &RegionPlace<'_>, offset: u64, len: u64) -> Result<RegionRoom, ViewError> {
        let range = part(place, offset, len)?;
        let map = self.map(place)?;
        Ok(RegionRoom { map, range })
    }

    /// Whether some of the region is gone, so that what was read from it may be zeros. To be asked after reading. A region
    /// that is not mapped is not.
    pub fn is_broken(&self, id: u64) -> bool {
        self.views.lock().get(&id).is_some_and(|view| view.map.is_broken())
    }

    /// Forgets a region: it is unmapped once no bytes and no room of it are held.
    pub fn forget(&self, id: u64) {
        let forgotten = self.views.lock().remove(&id);
        drop(forgotten);
    }

    fn map(&self, place: &RegionPlace<'_>) -> Result<Arc<RegionMap>, ViewError> {
        let mut views = self.views.lock();
        if let Some(view) = views.get(&place.id) {
            view.check(place)?;
            return Ok(Arc::clone(&view.map));
        }
        if views.len() >= MAX_REGIONS {
            views.retain(|_, view| Arc::strong_count(&view.map) > 1);
        }
        if views.len() >= MAX_REGIONS {
            return Err(ViewError::Full);
        }
        let view = View::open(place).map_err(|source| ViewError::Map { id: place.id, source })?;
        let map = Arc::clone(&view.map);
        views.insert(place.id, view);
        Ok(map)
    }
}

fn part(place: &RegionPlace<'_>, offset: u64, len: u64) -> Result<Range<usize>, ViewError> {
    let end = offset.checked_add(len).filter(|end| *end <= place.len);
    let range = end.and_then(|end| Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
    range.ok_or(ViewError::Beyond { id: place.id, offset, len, region: place.len })
}

// === impl View ===

impl View {
    fn open(place: &RegionPlace<'_>) -> Result<Self, MapError> {
        // A file that is waited for when it is opened, such as a pipe, is not one that a region can be.
        let wait_for_nobody = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).write(true).custom_flags(wait_for_nobody).open(place.path)?;
        let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let len = usize::try_from(place.len).map_err(too_large)?;
        let map = Arc::new(RegionMap::try_new(file, place.start, len)?);
        Ok(Self { path: place.path.to_owned(), start: place.start, len: place.len, map })
    }

    fn check(&self, place: &RegionPlace<'_>) -> Result<(), ViewError> {
        if (place.path, place.start, place.len) == (&*self.path, self.start, self.len) {
            return Ok(());
        }
        let is = format!("{} bytes at {} of {}", place.len, place.start, place.path.display());
        let was = format!("{} bytes at {} of {}", self.len, self.start, self.path.display());
        Err(ViewError::Changed { id: place.id, is, was })
    }
}

// === impl Part ===

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &(*self.map).as_ref()[self.range.clone()]
    }
}

// === impl RegionRoom ===

impl RegionRoom {
    /// Bytes of the room.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is no room.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Writes bytes from `at` on. They may lie in the same region.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), RoomError> {
        let (len, room) = (bytes.len(), self.len());
        if at.checked_add(len).is_none_or(|end| end > room) {
            return Err(RoomError::TooLarge { at, len, room });
        }
        self.map.write(self.range.start + at, bytes);
        if self.map.is_broken() { Err(RoomError::Truncated) } else { Ok(()) }
    }
}

// === impl ViewError ===

impl From<ViewError> for io::Error {
    fn from(error: ViewError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region_testing::Object;
    use crate::{Located, Regions};
    use proptest::prelude::*;

    fn place(id: u64, path: &Path, start: u64, len: u64) -> RegionPlace<'_> {
        RegionPlace { id, path, start, len }
    }

    #[test]
    fn a_worker_sees_what_the_runtime_located_and_writes_what_the_client_sees() {
        let object = Object::with(&(0..100).collect::<Vec<u8>>());
        let regions = Regions::default();
        regions.register("r", object.key(), 10, 90).unwrap();
        let bytes = regions.slice("r", 5, 20).unwrap();
        // The client makes another object of the same name meanwhile.
        std::fs::remove_file(object.path()).unwrap();
        std::fs::write(object.path(), [0; 100]).unwrap();
        let Located { id, path, start, len, offset } = regions.locate(&bytes).unwrap();
        let (views, path) = (RegionViews::default(), PathBuf::from(path));
        let here = place(id, &path, start, len);
        assert_eq!(views.view(&here, offset, 20).unwrap(), bytes);
        let room = views.room(&here, offset, 20).unwrap();
        room.write(0, &[200]).unwrap();
        room.write(18, &[201, 202]).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[18], bytes[19]), (200, 16, 201, 202));
    }

    #[test]
    fn a_room_takes_what_fits_and_not_a_byte_more() {
        let object = Object::of(64);
        let (views, path) = (RegionViews::default(), object.path());
        let room = views.room(&place(1, &path, 0, 64), 32, 16).unwrap();
        assert_eq!((room.len(), room.is_empty()), (16, false));
        assert!(room.write(0, &[1; 15]).is_ok() && room.write(0, &[1; 16]).is_ok() && room.write(16, &[]).is_ok());
        assert_eq!(room.write(0, &[1; 17]), Err(RoomError::TooLarge { at: 0, len: 17, room: 16 }));
        assert!(room.write(1, &[1; 16]).is_err() && room.write(usize::MAX, &[1]).is_err());
        assert_eq!(std::fs::read(&path).unwrap()[31..49].iter().position(|byte| *byte == 0), Some(0));
    }

    #[test]
    fn an_output_may_be_a_view_on_the_same_region() {
        let object = Object::with(&[1, 2, 3, 4, 5, 6]);
        let (views, path) = (RegionViews::default(), object.path());
        let here = place(1, &path, 0, 6);
        let input = views.view(&here, 0, 4).unwrap();
        views.room(&here, 2, 4).unwrap().write(0, &input).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [1, 2, 1, 2, 3, 4]);
    }

    #[test]
    fn a_number_means_one_region_until_it_is_forgotten_and_views_outlive_that() {
        let (first, second) = (Object::with(&[1; 8]), Object::with(&[2; 8]));
        let (views, one, other) = (RegionViews::default(), first.path(), second.path());
        let kept = views.view(&place(1, &one, 0, 8), 0, 8).unwrap();
        for changed in [place(1, &other, 0, 8), place(1, &one, 1, 8), place(1, &one, 0, 7)] {
            assert!(matches!(views.view(&changed, 0, 1), Err(ViewError::Changed { id: 1, .. })));
        }
        views.forget(1);
        assert_eq!(views.view(&place(1, &other, 0, 8), 0, 1).unwrap()[0], 2);
        assert_eq!(kept[7], 1);
    }

    #[test]
    fn a_truncated_region_is_broken_in_the_worker_too() {
        let object = Object::of(8192);
        let (views, path) = (RegionViews::default(), object.path());
        let here = place(1, &path, 0, 8192);
        let (bytes, room) = (views.view(&here, 4096, 4096).unwrap(), views.room(&here, 0, 4096).unwrap());
        assert!(!views.is_broken(1) && !views.is_broken(2));
        object.truncate(0);
        assert_eq!(bytes[100], 0);
        assert!(views.is_broken(1));
        assert_eq!(room.write(0, &[1]), Err(RoomError::Truncated));
    }

    #[test]
    fn what_is_no_such_file_cannot_be_viewed() {
        let object = Object::of(8);
        let (views, path) = (RegionViews::default(), object.path());
        let view = |path: &Path, start, len| views.view(&place(1, path, start, len), 0, 1);
        let short = view(&path, 1, 8).unwrap_err().to_string();
        assert_eq!(short, "shared memory region 1: it has 8 bytes, 9 are needed");
        assert!(view(&path, u64::MAX, 8).is_err() && view(&path, 0, u64::MAX).is_err());
        assert!(view(Path::new("/dev/null"), 0, 1).is_err() && view(Path::new("/proc/self/fd/9999"), 0, 1).is_err());
    }

    #[test]
    fn regions_out_of_use_make_way_and_those_in_use_do_not() {
        let object = Object::of(1);
        let (views, path) = (RegionViews::default(), object.path());
        let view = |id: usize| views.view(&place(u64::try_from(id).unwrap(), &path, 0, 1), 0, 1);
        let held: Vec<_> = (1..MAX_REGIONS).map(|id| view(id).unwrap()).collect();
        assert!(view(MAX_REGIONS).is_ok() && view(MAX_REGIONS + 1).is_ok());
        let last = view(MAX_REGIONS + 2).unwrap();
        assert!(matches!(view(MAX_REGIONS + 3), Err(ViewError::Full)));
        drop((held, last));
        assert!(view(MAX_REGIONS + 3).is_ok());
    }

    proptest! {
        #[test]
        fn any_part_is_inside_or_refused(
            offset in prop_oneof![0..20_u64, any::<u64>()],
            len in prop_oneof![0..20_u64, any::<u64>()],
        ) {
            let object = Object::of(16);
            let (views, path) = (RegionViews::default(), object.path());
            let inside = offset.checked_add(len).is_some_and(|end| end <= 16);
            prop_assert_eq!(views.view(&place(1, &path, 0, 16), offset, len).is_ok(), inside);
            prop_assert_eq!(views.room(&place(1, &path, 0, 16), offset, len).is_ok(), inside);
        }
    }
}
