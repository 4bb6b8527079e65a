//! The replica's one segment of POSIX shared memory. Here alone is known how it is made and mapped.
//!
//! Its name is there for microseconds: once it is open nobody needs it, since workers open it through this process's own
//! descriptor. So nothing of it stays behind whoever is killed: the kernel frees it with the last process that maps it.
//! Only who is killed within these microseconds leaves a name, of a file without pages, which the next one removes.
//! Pages are reserved before anybody uses them; a full file system is an error then, and never a signal later.

use std::fs::{DirEntry, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, Mode, fallocate, fstatvfs};
use rustix::io::Errno;
use shared_memory::{Shmem, ShmemConf};

/// What the names of our own segments begin with. A client's memory never has such a name.
pub const OWN_PREFIX: &str = "anyserve-";

/// Where segments have their names.
const DIRECTORY: &str = "/dev/shm";
/// Far longer than a segment of a live process has a name.
const NAMED: Duration = Duration::from_mins(1);

/// Memory that this process made and shares with its workers.
pub(crate) struct Segment {
    map: Shmem,
    file: OwnedFd,
}

/// Memory that another process made.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: MmapRaw,
}

// === impl Segment ===

impl Segment {
    /// Makes a segment of `len` bytes, of which none is reserved yet.
    pub(crate) fn create(len: usize) -> io::Result<Self> {
        let random = RandomState::new().hash_one(std::process::id());
        let name = format!("/{OWN_PREFIX}{}-{random:016x}", std::process::id());
        let mut map = ShmemConf::new().os_id(&name).size(len).create().map_err(io::Error::other)?;
        // An error from here on drops the owner of the name, and the name with it.
        let file = rustix::shm::open(&name, rustix::shm::OFlags::RDWR, Mode::empty())?;
        rustix::shm::unlink(&name)?;
        map.set_owner(false);
        Ok(Self { map, file })
    }

    /// Removes the names that processes left which were killed while they made a segment.
    pub(crate) fn remove_leftovers() {
        let Ok(names) = std::fs::read_dir(DIRECTORY) else { return };
        for name in names.flatten().filter(is_leftover) {
            // An error means that somebody else was faster, or that it is another user's.
            let _ = std::fs::remove_file(name.path());
        }
    }

    /// Reserves the pages of a range.
    ///
    /// # Errors
    /// The file system is full.
    pub(crate) fn reserve(&self, from: u64, len: u64) -> io::Result<()> {
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), from, len) {
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    /// Bytes that the file system it is on has left.
    pub(crate) fn left(&self) -> io::Result<u64> {
        let system = fstatvfs(&self.file)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Where other processes of this user open it, for as long as this process lives.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.map.as_ptr()
    }
}

fn is_leftover(name: &DirEntry) -> bool {
    let own = name.file_name().to_str().is_some_and(|name| name.starts_with(OWN_PREFIX));
    let since = |name: &DirEntry| name.metadata()?.modified()?.elapsed().map_err(io::Error::other);
    own && since(name).is_ok_and(|since| since > NAMED)
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("len", &self.map.len()).finish_non_exhaustive()
    }
}

// SAFETY: the mapping is memory like any other; who reaches into it says at that place why it may.
#[allow(unsafe_code)]
unsafe impl Send for Segment {}
// SAFETY: as above; nothing of `Segment` changes after it was made.
#[allow(unsafe_code)]
unsafe impl Sync for Segment {}

// === impl Mapping ===

impl Mapping {
    /// Maps `len` bytes from `from` on, which is a multiple of the page size.
    ///
    /// # Errors
    /// The file is not there, is shorter than that, or cannot be mapped.
    pub(crate) fn open(path: &Path, from: u64, len: usize) -> io::Result<Self> {
        Self::of(&OpenOptions::new().read(true).write(true).open(path)?, from, len)
    }

    /// The same, for memory that is only read here.
    pub(crate) fn open_read_only(path: &Path, from: u64, len: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        check(&file, from, len)?;
        Ok(Self { map: MmapOptions::new().offset(from).len(len).map_raw_read_only(&file)? })
    }

    fn of(file: &File, from: u64, len: usize) -> io::Result<Self> {
        check(file, from, len)?;
        Ok(Self { map: MmapOptions::new().offset(from).len(len).map_raw(file)? })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

fn check(file: &File, from: u64, len: usize) -> io::Result<()> {
    let end = u64::try_from(len).ok().and_then(|len| from.checked_add(len));
    let have = file.metadata()?.len();
    if end.is_some_and(|end| end <= have) {
        return Ok(());
    }
    let text = format!("{len} bytes from {from} on are to be mapped, and the file has {have}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_segment_has_no_name_and_another_mapping_of_it_sees_what_is_written() {
        let segment = Segment::create(8192).unwrap();
        segment.reserve(0, 8192).unwrap();
        let own = format!("{OWN_PREFIX}{}-", std::process::id());
        let names = std::fs::read_dir(DIRECTORY).unwrap().flatten();
        assert!(!names.into_iter().any(|name| name.file_name().to_string_lossy().starts_with(&own)));
        let other = Mapping::open(&segment.path(), 4096, 4096).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: both mappings are longer than that, and nobody else uses them.
        let seen = unsafe {
            segment.start().add(4096).write(7);
            other.start().read()
        };
        assert_eq!((seen, other.len()), (7, 4096));
    }

    #[test]
    fn a_name_of_ours_that_is_old_is_removed_and_no_other() {
        let names = ["left", "new", "foreign"].map(|name| {
            let prefix = if name == "foreign" { "other-" } else { OWN_PREFIX };
            PathBuf::from(format!("{DIRECTORY}/{prefix}test-{}-{name}", std::process::id()))
        });
        for (name, age) in names.iter().zip([61, 30, 61]) {
            let made = SystemTime::now().checked_sub(Duration::from_secs(age)).unwrap();
            File::create_new(name).unwrap().set_modified(made).unwrap();
        }
        Segment::remove_leftovers();
        assert_eq!(names.each_ref().map(|name| std::fs::remove_file(name).is_ok()), [false, true, true]);
    }

    #[test]
    fn more_than_there_is_cannot_be_mapped_and_a_full_file_system_is_an_error() {
        let segment = Segment::create(4096).unwrap();
        assert!(Mapping::open(&segment.path(), 0, 4096).is_ok());
        for (from, len) in [(0, 4097), (4096, 1), (u64::MAX, 1)] {
            assert!(Mapping::open(&segment.path(), from, len).is_err(), "{from} {len}");
        }
        assert!(segment.left().unwrap() > 0);
        assert!(segment.reserve(0, 1 << 60).is_err());
    }
}
