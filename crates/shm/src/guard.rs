//! Mapped memory that somebody else may take away: who shares a file can make it shorter, and then a read of what is
//! gone is a SIGBUS that ends the process.
//!
//! ```text
//! fault ─► SIGBUS ─► the address is in a guarded range? ── yes ─► the range is broken; zero pages from the fault to its end
//!                                                       └─ no ──► the handler that was there before, or the default
//! ```
//!
//! The handler is the process's, so it is installed once. It only reads a fixed table of atomics and makes one system
//! call, which is all that a signal handler may do. The kernel itself does not raise SIGBUS: a system call that is given
//! such memory fails with EFAULT.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use libc::{c_int, c_void, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Ranges that can be guarded at the same time.
const MAX_RANGES: usize = 2048;

static RANGES: [Range; MAX_RANGES] = [const { Range::new() }; MAX_RANGES];

/// What was there before; set before our handler can be called.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A guard that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GuardError {
    /// Every place of the table is taken.
    #[error("{MAX_RANGES} ranges of shared memory are mapped, which is the limit")]
    Full,
    /// The system does not take the handler.
    #[error("the handler of SIGBUS cannot be installed")]
    Install(#[source] io::Error),
}

/// Guards a range of mapped memory until it is dropped. It has to be dropped before the memory is unmapped.
#[derive(Debug)]
pub(crate) struct Guard {
    range: &'static Range,
}

/// A place of the table, read by the signal handler.
///
/// `version` is odd while bounds are written; a reader that saw two equal even versions has bounds that belong together.
#[derive(Debug)]
struct Range {
    taken: AtomicBool,
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

// === impl Guard ===

impl Guard {
    /// Guards the pages of a shared mapping of `len` bytes at `start`.
    ///
    /// # Safety
    /// Every page that has one of these bytes is mapped for as long as the guard lives, belongs to this mapping alone,
    /// and whoever reads it can do with zeros.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn try_new(start: *const u8, len: usize) -> Result<Self, GuardError> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or_default()))
            .map_err(|code| GuardError::Install(io::Error::from_raw_os_error(code)))?;
        let free = |range: &&Range| !range.taken.swap(true, Ordering::Acquire);
        let range = RANGES.iter().find(free).ok_or(GuardError::Full)?;
        range.broken.store(false, Ordering::Relaxed);
        range.set(page_of(start.addr()), page_after(start.addr() + len));
        Ok(Self { range })
    }

    /// Whether memory of the range was found to be gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.range.broken.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.range.set(0, 0);
        self.range.taken.store(false, Ordering::Release);
    }
}

// === impl Range ===

impl Range {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Only by who has taken the place.
    fn set(&self, start: usize, end: usize) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the Acquire fence of `bounds`: who sees a new bound sees that the version is not the old one.
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The bounds, unless they are being written: then they are not those of the memory that is read just now.
    fn bounds(&self) -> Option<(usize, usize)> {
        let version = self.version.load(Ordering::Acquire);
        let bounds = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version).then_some(bounds)
    }

    /// Puts zero pages where memory is gone. False if there are none to be had.
    fn replace(&self, address: usize, end: usize) -> bool {
        // First, so that nobody reads the zeros and finds the range whole.
        self.broken.store(true, Ordering::SeqCst);
        let page = page_of(address);
        // To the end at once: page by page there would soon be more mappings than a process may have.
        zeros(page, end - page) || zeros(page, rustix::param::page_size())
    }
}

fn page_of(address: usize) -> usize {
    address & !(rustix::param::page_size() - 1)
}

fn page_after(address: usize) -> usize {
    address.next_multiple_of(rustix::param::page_size())
}

#[allow(unsafe_code)]
fn zeros(page: usize, len: usize) -> bool {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the pages lie in a range whose guard's maker promised that they belong to it alone and may become zero.
    // The guard lives, because the thread that this interrupted is reading them.
    let mapped =
        unsafe { mmap_anonymous(ptr::without_provenance_mut(page), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
    mapped.is_ok()
}

// === the signal ===

#[allow(unsafe_code)]
fn install() -> io::Result<()> {
    // Asked for first, so that it is there when the first signal comes.
    let previous = swap(None)?;
    PREVIOUS.get_or_init(|| previous);
    // SAFETY: a sigaction is plain numbers, for which zeros are "no signals blocked, no flags".
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    swap(Some(&action)).map(drop)
}

/// The action for SIGBUS before this call.
#[allow(unsafe_code)]
fn swap(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut previous = MaybeUninit::zeroed();
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `action` is null or an action whose handler does nothing but what handlers may, and `previous` has room
    // for one.
    let result = unsafe { libc::sigaction(libc::SIGBUS, action, previous.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then written by the call above.
    Ok(unsafe { previous.assume_init() })
}

#[allow(unsafe_code)]
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid info; a SIGBUS has an address, or one that is not read
    // as such because the code says who sent it.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if code == libc::BUS_ADRERR && mend(address) {
        return;
    }
    pass_on(signal, info, context);
}

fn mend(address: usize) -> bool {
    for range in &RANGES {
        if let Some((start, end)) = range.bounds()
            && (start..end).contains(&address)
        {
            return range.replace(address, end);
        }
    }
    false
}

/// What would have happened without us.
#[allow(unsafe_code)]
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let (handler, flags) = PREVIOUS.get().map_or((libc::SIG_DFL, 0), |action| (action.sa_sigaction, action.sa_flags));
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: both are calls that a handler may make. The signal comes again when this one returns, because it is
        // raised, and ends the process. Nobody can ignore a fault.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    } else if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with this flag the number is a function of three arguments, and these are the kernel's.
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without the flag it is a function of one argument.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region_map::RegionMap;
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const PAGE: usize = 4096;

    fn file(pages: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, &vec![7; pages * PAGE]).unwrap();
        file
    }

    fn mapped(file: &File, len: usize) -> RegionMap {
        RegionMap::try_new(file.try_clone().unwrap(), 0, len).unwrap()
    }

    #[test]
    fn a_read_of_what_was_truncated_gives_zeros_and_breaks_only_its_own_range() {
        let (file, other) = (file(4), file(1));
        let (map, whole) = (mapped(&file, 4 * PAGE), mapped(&other, PAGE));
        assert_eq!(map.as_ref()[3 * PAGE], 7);
        file.set_len(2 * PAGE as u64).unwrap();
        assert_eq!((map.as_ref()[0], map.as_ref()[2 * PAGE - 1]), (7, 7));
        assert_eq!((map.as_ref()[3 * PAGE + 5], map.as_ref()[2 * PAGE]), (0, 0));
        assert!(map.is_broken() && !whole.is_broken());
        // Nothing comes back, and nothing dies, when the file grows again.
        file.set_len(4 * PAGE as u64).unwrap();
        assert_eq!(map.as_ref()[2 * PAGE], 0);
        assert!(map.is_broken());
    }

    #[test]
    fn a_write_to_what_was_truncated_says_so() {
        let file = file(2);
        let map = mapped(&file, 2 * PAGE);
        file.set_len(0).unwrap();
        map.write(PAGE - 1, &[1, 2]);
        assert!(map.is_broken());
    }

    #[test]
    fn threads_that_read_what_is_truncated_meanwhile_live() {
        let file = file(64);
        let map = mapped(&file, 64 * PAGE);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !map.is_broken() {
                        std::hint::black_box(
                            map.as_ref().iter().step_by(PAGE).map(|byte| u64::from(*byte)).sum::<u64>(),
                        );
                    }
                });
            }
            file.set_len(PAGE as u64).unwrap();
        });
    }

    #[test]
    fn a_place_of_the_table_is_used_again_and_bounds_are_never_mixed() {
        let range = Range::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..20_000_usize).for_each(|turn| range.set(turn * 10, turn * 11)));
            for _ in 0..20_000 {
                if let Some((start, end)) = range.bounds() {
                    assert_eq!(start / 10 * 11, end);
                }
            }
        });
        let file = file(1);
        (0..2 * MAX_RANGES).for_each(|_| assert!(!mapped(&file, PAGE).is_broken()));
    }

    /// Run in a process of its own by the test below.
    #[test]
    #[ignore = "ends its process"]
    fn dies_of_sigbus() {
        let (file, other) = (file(1), file(1));
        let _guarded = mapped(&other, PAGE);
        let map = memmap2::MmapOptions::new().map_raw(&file).unwrap();
        file.set_len(0).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: none; this is to fault.
        unsafe {
            map.as_ptr().read_volatile();
        }
    }

    #[test]
    fn a_fault_outside_of_guarded_memory_ends_the_process_as_ever() {
        let myself = std::env::current_exe().unwrap();
        let test = ["--ignored", "--exact", "guard::tests::dies_of_sigbus"];
        let ended = Command::new(myself).args(test).output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
    }

    #[test]
    fn a_signal_that_somebody_sent_is_no_fault() {
        let myself = std::env::current_exe().unwrap();
        let test = ["--ignored", "--exact", "guard::tests::dies_of_a_sent_sigbus"];
        let ended = Command::new(myself).args(test).output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
    }

    /// Run in a process of its own by the test above.
    #[test]
    #[ignore = "ends its process"]
    fn dies_of_a_sent_sigbus() {
        let _guarded = mapped(&file(1), PAGE);
        #[allow(unsafe_code)]
        // SAFETY: it is sent to this thread, whose end is the point. The standard library's own handler, which ours passes
        // it on to, lets the first one by.
        unsafe {
            libc::raise(libc::SIGBUS);
            libc::raise(libc::SIGBUS);
        }
    }
}
