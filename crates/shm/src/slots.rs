//! The slot table: one word in shared memory for each request that is with a worker.
//!
//! ```text
//! runtime: offer ──► Offered ──start (worker)──► Started          cancel (runtime) sets a bit that the handler reads
//!                       └─────recall (runtime)─► Recalled         release (runtime): free again
//! ```
//!
//! A word is `id << 3 | cancelled << 2 | phase`; 0 is free. *Start* and *recall* both begin at *offered* and exactly one
//! of them wins, so a request never runs after it was taken back, and one that was not started when its worker died has
//! not run. The table is a file in the runtime's private directory, mapped by both processes.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

/// Slots of a table: as many requests can be with one worker.
pub const SLOTS: usize = 4096;
const BYTES: usize = SLOTS * size_of::<AtomicU64>();

const PHASE_BITS: u32 = 3;
const PHASE: u64 = 0b011;
const CANCELLED: u64 = 0b100;
const OFFERED: u64 = 1;
const STARTED: u64 = 2;
const RECALLED: u64 = 3;

/// How far a request has come at its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sent; its handler has not started.
    Offered,
    /// Its handler has started.
    Started,
    /// Taken back before its handler started.
    Recalled,
    /// The slot is not this request's.
    Gone,
}

/// A table that cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be made, opened or mapped.
    #[error("slot table cannot be mapped")]
    Io(#[from] io::Error),
    /// The file is no slot table.
    #[error("slot table has {len} bytes, expected {BYTES}")]
    Size {
        /// Bytes of the file.
        len: u64,
    },
}

/// A mapped slot table.
#[derive(Debug)]
pub struct SlotTable {
    map: MmapRaw,
}

// === impl SlotTable ===

impl SlotTable {
    /// Makes a new table; the file must not be there yet and gets mode 0600 by the directory it is in.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        // Written, not only sized: on a full file system this fails here instead of with a SIGBUS later.
        io::Write::write_all(&mut &file, &vec![0; BYTES])?;
        Self::map(&file)
    }

    /// Maps the table that another process made.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::map(&OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn map(file: &File) -> Result<Self, OpenError> {
        let len = file.metadata()?.len();
        if usize::try_from(len) != Ok(BYTES) {
            return Err(OpenError::Size { len });
        }
        Ok(Self { map: MmapRaw::map_raw(file)? })
    }

    /// Runtime: the slot is this request's from now on.
    ///
    /// `id` is below 2^61. The frame that is written after it publishes the word to the worker; the Release here pairs
    /// with the Acquire in [`start`](Self::start).
    pub fn offer(&self, slot: usize, id: u64) {
        self.word(slot).store(id << PHASE_BITS | OFFERED, Ordering::Release);
    }

    /// Worker: claims the request before its handler runs. False if it was taken back: it must not run.
    pub fn start(&self, slot: usize, id: u64) -> bool {
        self.leave_offered(slot, id, STARTED)
    }

    /// Runtime: takes the request back. False if its handler has started.
    pub fn recall(&self, slot: usize, id: u64) -> bool {
        self.leave_offered(slot, id, RECALLED)
    }

    /// Runtime: tells the handler that its caller left.
    pub fn cancel(&self, slot: usize, id: u64) {
        let mark = |word: u64| (word >> PHASE_BITS == id).then_some(word | CANCELLED);
        // An error means that the slot moved on, and then there is nobody to tell.
        let _ = self.word(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, mark);
    }

    /// Worker: whether the caller of this request left.
    pub fn is_cancelled(&self, slot: usize, id: u64) -> bool {
        let word = self.word(slot).load(Ordering::Acquire);
        word >> PHASE_BITS == id && (word & CANCELLED != 0 || word & PHASE == RECALLED)
    }

    /// How far a request has come; it may be read after the worker's death.
    pub fn phase(&self, slot: usize, id: u64) -> Phase {
        let word = self.word(slot).load(Ordering::Acquire);
        if word >> PHASE_BITS != id {
            return Phase::Gone;
        }
        match word & PHASE {
            OFFERED => Phase::Offered,
            STARTED => Phase::Started,
            RECALLED => Phase::Recalled,
            _ => Phase::Gone,
        }
    }

    /// Runtime: the slot is free again. The worker has answered for it, or is dead.
    pub fn release(&self, slot: usize) {
        self.word(slot).store(0, Ordering::Release);
    }

    fn leave_offered(&self, slot: usize, id: u64, phase: u64) -> bool {
        let (offered, next) = (id << PHASE_BITS | OFFERED, id << PHASE_BITS | phase);
        self.word(slot).compare_exchange(offered, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// A slot beyond the table is a defect or a lie of the peer; it wraps around, so that it can do no harm.
    #[allow(unsafe_code, clippy::cast_ptr_alignment)]
    fn word(&self, slot: usize) -> &AtomicU64 {
        let offset = (slot % SLOTS) * size_of::<AtomicU64>();
        // SAFETY: the map is BYTES long and page-aligned, so offset is inside it and aligned for a u64. The memory is
        // only ever reached through atomics, in both processes, and lives as long as `self`. The file cannot shrink:
        // it lies in the runtime's private directory, and neither process truncates it.
        unsafe { &*self.map.as_mut_ptr().add(offset).cast::<AtomicU64>() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (SlotTable, SlotTable, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        (SlotTable::create(&path).unwrap(), SlotTable::open(&path).unwrap(), dir)
    }

    #[test]
    fn a_request_starts_or_is_recalled_but_never_both() {
        let (runtime, worker, _dir) = table();
        runtime.offer(3, 77);
        assert!(worker.start(3, 77) && !runtime.recall(3, 77));
        assert_eq!(runtime.phase(3, 77), Phase::Started);
        runtime.offer(3, 78);
        assert!(runtime.recall(3, 78) && !worker.start(3, 78));
        assert_eq!((runtime.phase(3, 78), runtime.phase(3, 77)), (Phase::Recalled, Phase::Gone));
    }

    #[test]
    fn both_ends_racing_for_one_slot_have_one_winner_each_time() {
        let (runtime, worker, _dir) = table();
        for id in 1..2_000 {
            runtime.offer(0, id);
            let (started, recalled) = std::thread::scope(|scope| {
                let started = scope.spawn(|| worker.start(0, id));
                (runtime.recall(0, id), started.join().unwrap())
            });
            assert!(started != recalled, "request {id}");
        }
    }

    #[test]
    fn a_cancel_is_seen_by_its_own_request_only() {
        let (runtime, worker, _dir) = table();
        runtime.offer(1, 5);
        worker.start(1, 5);
        runtime.cancel(1, 4);
        assert!(!worker.is_cancelled(1, 5));
        runtime.cancel(1, 5);
        assert!(worker.is_cancelled(1, 5) && !worker.is_cancelled(1, 6));
        runtime.release(1);
        assert!(!worker.is_cancelled(1, 5));
    }

    #[test]
    fn a_file_of_another_size_is_no_table_and_a_wild_slot_does_no_harm() {
        let (runtime, _, dir) = table();
        runtime.offer(usize::MAX, 1);
        let path = dir.path().join("short");
        std::fs::write(&path, [0; 7]).unwrap();
        assert!(matches!(SlotTable::open(&path), Err(OpenError::Size { len: 7 })));
        assert!(matches!(SlotTable::create(&path), Err(OpenError::Io(_))));
    }
}
