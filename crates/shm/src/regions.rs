//! The registry of memory that clients share with the runtime: Triton's system shared memory.
//!
//! ```text
//! register(name, key, offset, byte_size) ─► opened, checked, mapped ─► registered ─ unregister ─► the name is free at once
//!                                                                          │                       │
//!                                         slice(name, offset, byte_size) ─► Bytes on the memory ─ last one dropped ─► unmapped, told
//! ```
//!
//! A region is opened once, by the name of its object, and is that object from then on, whatever the name means later.
//! Others reach it by the descriptor that is held here ([`Located::path`]).

mod books;
mod error;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::region::{Region, RegionStatus};
use crate::region_key::Key;
use crate::region_map::RegionMap;

pub(crate) use books::Books;
use books::Registered;
pub use error::{RegionError, RegisterError};

/// Regions that can be registered at the same time.
pub const MAX_REGIONS: usize = 512;

/// Longest name of a region in bytes.
pub const MAX_REGION_NAME: usize = 256;

/// Where bytes lie, for a process that is to map the same memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The region's number. Another region never has it, even under the same name.
    pub id: u64,
    /// A file that is the object, as long as bytes of the region are held here. Afterwards it may be another.
    pub path: String,
    /// Where the region begins in the file.
    pub start: u64,
    /// Bytes of the region.
    pub len: u64,
    /// Where the bytes begin in the region.
    pub offset: u64,
}

/// The registry. It never holds a lock while it waits for anything but the system's answer about one file.
#[derive(Debug)]
pub struct Regions {
    books: Arc<Books>,
    next: AtomicU64,
}

// === impl Regions ===

impl Default for Regions {
    fn default() -> Self {
        Self { books: Arc::default(), next: AtomicU64::new(1) }
    }
}

impl Regions {
    /// Registers a part of a shared-memory object.
    ///
    /// The object is there already, belongs to the user that we run as, and has at least `offset + byte_size` bytes.
    pub fn register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<(), RegisterError> {
        check_name(name)?;
        self.books.pages.read().check_free(name)?;
        let status = RegionStatus { name: name.to_owned(), key: key.to_owned(), offset, byte_size };
        let map = open(&status)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let region = Arc::new(Region::new(id, status, map, Arc::downgrade(&self.books)));
        self.books.pages.write().enter(&region)
    }

    /// Takes a region out of the registry. Its name is free at once, its memory once the last bytes on it are dropped.
    /// False if there is none of that name.
    pub fn unregister(&self, name: &str) -> bool {
        let removed = self.books.pages.write().names.remove(name);
        removed.is_some()
    }

    /// Takes every region out of the registry; returns how many there were.
    pub fn unregister_all(&self) -> usize {
        let removed = std::mem::take(&mut self.books.pages.write().names);
        removed.len()
    }

    /// The region of a name, or all of them in the order of their names.
    ///
    /// # Errors
    /// [`RegionError::Unknown`] if there is none of that name.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<RegionStatus>, RegionError> {
        let pages = self.books.pages.read();
        match name {
            Some(name) => pages.find(name).map(|found| vec![found.region.status().clone()]),
            None => Ok(pages.names.values().map(|found| found.region.status().clone()).collect()),
        }
    }

    /// The bytes of a part of a region, where they lie. They may be a place as well as a value.
    ///
    /// The client may change them at any time: what has to be valid is copied before it is checked.
    ///
    /// # Errors
    /// [`RegionError`] if there is no such region, the part is not inside of it, or some of the region is gone.
    pub fn slice(&self, name: &str, offset: u64, byte_size: u64) -> Result<Bytes, RegionError> {
        let pages = self.books.pages.read();
        let Registered { region, whole } = pages.find(name)?;
        let range = (usize::try_from(offset).ok())
            .zip(usize::try_from(byte_size).ok())
            .and_then(|(start, len)| Some(start..start.checked_add(len)?))
            .filter(|range| range.end <= whole.len());
        let len = region.status().byte_size;
        let range = range.ok_or_else(|| RegionError::Beyond { name: name.to_owned(), offset, byte_size, len })?;
        region.check()?;
        Ok(whole.slice(range))
    }

    /// Where bytes lie, if they lie in a region, registered or not any more. No bytes lie nowhere.
    pub fn locate(&self, bytes: &[u8]) -> Option<Located> {
        self.owner(bytes)?.locate(bytes.as_ptr().addr(), bytes.len())
    }

    /// Whether what was read from these bytes, or written to them, is good: all of their region is still there. Bytes
    /// that lie in no region are.
    ///
    /// # Errors
    /// [`RegionError::Truncated`] that names the region.
    pub fn check(&self, bytes: &[u8]) -> Result<(), RegionError> {
        self.owner(bytes).map_or(Ok(()), |region| region.check())
    }

    /// Has the numbers of regions told that are neither registered nor used any more, from whichever thread that
    /// happens on; it must not block. There is one such function, the first.
    pub fn on_released(&self, told: impl Fn(u64) + Send + Sync + 'static) {
        self.books.told.get_or_init(|| Box::new(told));
    }

    fn owner(&self, bytes: &[u8]) -> Option<Arc<Region>> {
        if bytes.is_empty() {
            return None;
        }
        let address = bytes.as_ptr().addr();
        let nearest = self.books.pages.read().living.range(..=address).next_back().map(|(_, region)| region.clone());
        nearest?.upgrade().filter(|region| region.locate(address, bytes.len()).is_some())
    }
}

fn check_name(name: &str) -> Result<(), RegisterError> {
    let len = name.len();
    if (1..=MAX_REGION_NAME).contains(&len) { Ok(()) } else { Err(RegisterError::Name { len }) }
}

/// Opens and maps what a region is to be.
fn open(status: &RegionStatus) -> Result<RegionMap, RegisterError> {
    let (name, key) = (|| status.name.clone(), || status.key.clone());
    let RegionStatus { offset, byte_size, .. } = *status;
    let parsed = Key::parse(&status.key).map_err(|source| RegisterError::Key { name: name(), source })?;
    if byte_size == 0 {
        return Err(RegisterError::Empty { name: name() });
    }
    let overflow = || RegisterError::Overflow { name: name(), offset, byte_size };
    let len = offset.checked_add(byte_size).and_then(|_| usize::try_from(byte_size).ok()).ok_or_else(overflow)?;
    let failed = |source| RegisterError::Open { key: key(), source };
    let file = parsed.open().map_err(failed)?;
    let (owner, own) = (file.metadata().map_err(failed)?.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        return Err(RegisterError::Owner { name: name(), key: key(), owner, own });
    }
    RegionMap::try_new(file, offset, len).map_err(|source| RegisterError::Map { name: name(), key: key(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region_testing::Object;
    use proptest::prelude::*;
    use std::sync::Mutex;

    const PAGE: u64 = 4096;

    fn registered(object: &Object, byte_size: u64) -> Regions {
        let regions = Regions::default();
        regions.register("r", object.key(), 0, byte_size).unwrap();
        regions
    }

    fn refusal(regions: &Regions, key: &str, offset: u64, byte_size: u64) -> String {
        regions.register("new", key, offset, byte_size).unwrap_err().to_string()
    }

    #[test]
    fn a_slice_is_the_clients_own_memory() {
        let object = Object::with(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let regions = registered(&object, 8);
        let bytes = regions.slice("r", 2, 4).unwrap();
        assert_eq!(*bytes, [3, 4, 5, 6]);
        object.write(3, &[9]);
        assert_eq!(*bytes, [3, 9, 5, 6]);
        assert_eq!(regions.slice("r", 8, 0).unwrap(), Bytes::new());
    }

    #[test]
    fn a_region_may_begin_anywhere_in_its_object() {
        let object = Object::with(&(0..=255).cycle().take(9000).collect::<Vec<u8>>());
        let regions = Regions::default();
        regions.register("odd", object.key(), 4097, 4000).unwrap();
        let bytes = regions.slice("odd", 1, 3999).unwrap();
        assert_eq!(bytes[..3], [2, 3, 4]);
        let located = regions.locate(&bytes[1..]).unwrap();
        assert_eq!((located.start, located.len, located.offset), (4097, 4000, 2));
        let file = std::fs::read(&located.path).unwrap();
        assert_eq!(file[4097 + 2..][..3], [3, 4, 5]);
    }

    #[test]
    fn a_name_is_taken_once_and_listed_with_what_it_was_registered_by() {
        let object = Object::of(100);
        let regions = Regions::default();
        regions.register("b", object.key(), 10, 90).unwrap();
        regions.register("a", object.key(), 0, 100).unwrap();
        let error = regions.register("a", "no such key", 0, 0).unwrap_err();
        assert_eq!(error.to_string(), "shared memory region 'a' already in manager");
        let all = regions.status(None).unwrap();
        assert_eq!(all.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["a", "b"]);
        let (name, key) = ("b".to_owned(), object.key().to_owned());
        assert_eq!(regions.status(Some("b")).unwrap(), [RegionStatus { name, key, offset: 10, byte_size: 90 }]);
        assert_eq!(regions.status(Some("c")), Err(RegionError::Unknown { name: "c".into() }));
        assert!(regions.unregister("b") && !regions.unregister("b"));
        assert_eq!((regions.unregister_all(), regions.unregister_all()), (1, 0));
        assert!(regions.register("a", object.key(), 0, 1).is_ok());
    }

    #[test]
    fn what_is_beyond_the_object_is_refused_by_its_numbers() {
        let object = Object::of(100);
        let regions = Regions::default();
        let register = |offset, byte_size| regions.register(&format!("{offset}"), object.key(), offset, byte_size);
        assert!(register(0, 99).is_ok() && register(1, 99).is_ok());
        assert!(refusal(&regions, object.key(), 2, 99).ends_with("it has 100 bytes, 101 are needed"));
        assert!(refusal(&regions, object.key(), 100, 1).ends_with("it has 100 bytes, 101 are needed"));
        assert!(refusal(&regions, object.key(), 0, 0).ends_with("its byte_size is 0"));
        assert!(refusal(&regions, object.key(), u64::MAX, 2).contains("beyond what can be mapped"));
        assert!(refusal(&regions, object.key(), 0, u64::MAX).contains("are needed"));
        assert!(refusal(&regions, "/anyserve-test-nobody", 0, 1).contains("the server's own"));
        assert!(
            refusal(&regions, "/no-such-object-here", 0, 1)
                .starts_with("Unable to open shared memory region: '/no-such")
        );
    }

    #[test]
    fn names_and_number_of_regions_go_to_their_limits_and_no_further() {
        let object = Object::of(1);
        let regions = Regions::default();
        let of_len = |len: usize| regions.register(&"n".repeat(len), object.key(), 0, 1);
        assert!(of_len(1).is_ok() && of_len(MAX_REGION_NAME - 1).is_ok() && of_len(MAX_REGION_NAME).is_ok());
        assert!(matches!(of_len(0), Err(RegisterError::Name { len: 0 })));
        assert!(matches!(of_len(MAX_REGION_NAME + 1), Err(RegisterError::Name { .. })));
        (3..MAX_REGIONS).for_each(|place| regions.register(&place.to_string(), object.key(), 0, 1).unwrap());
        assert!(matches!(regions.register("more", object.key(), 0, 1), Err(RegisterError::Full { .. })));
        assert!(regions.unregister("n") && regions.register("more", object.key(), 0, 1).is_ok());
    }

    #[test]
    fn a_directory_and_a_link_are_no_objects() {
        let (object, link, folder) = (Object::of(8), Object::unmade(), Object::unmade());
        std::os::unix::fs::symlink(object.path(), link.path()).unwrap();
        std::fs::create_dir(folder.path()).unwrap();
        let refused = [link.key(), folder.key()].map(|key| Regions::default().register("r", key, 0, 1).is_err());
        std::fs::remove_dir(folder.path()).unwrap();
        assert_eq!(refused, [true, true]);
    }

    #[test]
    fn an_unregistered_region_lives_until_its_last_bytes_go_and_is_told_then() {
        let object = Object::with(&[7; 64]);
        let regions = registered(&object, 64);
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        regions.on_released(move |id| tells.lock().unwrap().push(id));
        let bytes = regions.slice("r", 0, 64).unwrap();
        let id = regions.locate(&bytes).unwrap().id;
        assert!(regions.unregister("r"));
        // The name is another object's now, and the bytes are still the first one's.
        regions.register("r", Object::with(&[8; 64]).key(), 0, 64).unwrap();
        let second = regions.slice("r", 0, 64).unwrap();
        assert_eq!((bytes[63], second[63], regions.locate(&bytes).unwrap().id), (7, 8, id));
        assert_ne!(regions.locate(&second).unwrap().id, id);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert!(told.lock().unwrap().is_empty());
        drop(part);
        assert_eq!(*told.lock().unwrap(), [id]);
        drop(second);
        assert_eq!(told.lock().unwrap().len(), 1);
        regions.unregister_all();
        assert_eq!(told.lock().unwrap().len(), 2);
    }

    #[test]
    fn only_bytes_that_are_all_inside_are_found() {
        let object = Object::of(PAGE);
        let regions = registered(&object, PAGE);
        let bytes = regions.slice("r", 0, PAGE).unwrap();
        assert_eq!(regions.locate(&bytes[4095..]).unwrap().offset, 4095);
        assert_eq!(regions.locate(&bytes[..0]), None);
        assert_eq!(regions.locate(&[1, 2, 3]), None);
        assert_eq!(regions.check(&[1, 2, 3]), Ok(()));
        let region = Arc::clone(&regions.books.pages.read().names["r"].region);
        assert!(region.locate(region.address() + 1, 4095).is_some());
        assert_eq!(region.locate(region.address() + 1, 4096), None);
        assert_eq!(region.locate(region.address() - 1, 1), None);
    }

    #[test]
    fn a_truncated_region_is_refused_and_its_bytes_are_known_to_be_bad() {
        let object = Object::of(2 * PAGE);
        let regions = registered(&object, 2 * PAGE);
        let bytes = regions.slice("r", 0, 2 * PAGE).unwrap();
        assert_eq!(regions.check(&bytes), Ok(()));
        object.truncate(2 * PAGE - 1);
        let gone = RegionError::Truncated { name: "r".into() };
        assert_eq!((regions.check(&bytes), regions.slice("r", 0, 1)), (Err(gone.clone()), Err(gone.clone())));
        object.truncate(0);
        assert_eq!(bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 0);
        object.truncate(2 * PAGE);
        assert_eq!(regions.check(&bytes), Err(gone));
    }

    proptest! {
        #[test]
        fn any_part_is_inside_or_refused(
            offset in prop_oneof![0..70_u64, any::<u64>(), (u64::MAX - 70)..u64::MAX],
            byte_size in prop_oneof![0..70_u64, any::<u64>(), (u64::MAX - 70)..u64::MAX],
        ) {
            let object = Object::of(64);
            let regions = registered(&object, 64);
            let inside = offset.checked_add(byte_size).is_some_and(|end| end <= 64);
            let found = regions.slice("r", offset, byte_size);
            prop_assert_eq!(found.is_ok(), inside);
            if let Ok(bytes) = found {
                prop_assert_eq!(u64::try_from(bytes.len()).unwrap(), byte_size);
            }
            let registers = regions.register("new", object.key(), offset, byte_size).is_ok();
            prop_assert_eq!(registers, inside && byte_size > 0);
        }
    }
}
