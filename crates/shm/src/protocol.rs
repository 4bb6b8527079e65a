//! How a block is found, pinned and taken away between processes, without a system call.
//!
//! ```text
//! reader: pin ─► fence ─► still published? ─yes─► reads ─► unpin          runtime: withdraw ─► fence ─► pinned? ─no─► free
//!                               └─no─► unpin, gone                                                         └─yes─► later
//! ```
//!
//! Either the reader sees that the block was withdrawn, or the runtime sees the pin: the two fences forbid that both look
//! past each other. A block is written again only after no pin is seen, and the reads before that unpin happened before.
//! The cells lie in memory that processes share; zero is a cell that nobody can find and a pin that nobody has.

use super::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// What readers see of one block. Written by the runtime only.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Cell {
    /// 0 where there is nothing to be found.
    generation: AtomicU64,
    start: AtomicU64,
    len: AtomicU64,
    /// Nanoseconds of the monotonic clock; 0 is never.
    expires: AtomicU64,
}

/// What one worker says of one block. Written by the worker, and by the runtime where a pin was handed over to it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Pin {
    count: AtomicU32,
    used: AtomicU32,
}

/// A block as a reader found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Bytes from the start of the arena.
    pub(crate) start: u64,
    /// Its bytes.
    pub(crate) len: u64,
    /// Nanoseconds of the monotonic clock; 0 is never.
    pub(crate) expires: u64,
}

// === impl Cell ===

impl Cell {
    /// A cell that nobody can find.
    #[allow(dead_code, reason = "in the model; otherwise it is made of zeroed memory")]
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicU64::new(0),
            start: AtomicU64::new(0),
            len: AtomicU64::new(0),
            expires: AtomicU64::new(0),
        }
    }

    /// Runtime: readers find the block from now on. What was written to it before, they read.
    pub(crate) fn publish(&self, generation: u64, found: Found) {
        self.start.store(found.start, Ordering::Relaxed);
        self.len.store(found.len, Ordering::Relaxed);
        self.expires.store(found.expires, Ordering::Relaxed);
        // Pairs with the Acquire in `pin`.
        self.generation.store(generation, Ordering::Release);
    }

    /// Runtime: nobody finds the block from now on. Ask for pins only after this.
    pub(crate) fn withdraw(&self) {
        self.generation.store(0, Ordering::Relaxed);
        // Pairs with the fence in `pin`.
        fence(Ordering::SeqCst);
    }

    /// What is in the cell, for who has the block pinned: it may have been withdrawn, and is not yet another one.
    pub(crate) fn pinned(&self, generation: u64) -> Option<Found> {
        let now = self.generation.load(Ordering::Acquire);
        (now == generation || now == 0).then(|| self.found())
    }

    fn found(&self) -> Found {
        Found {
            start: self.start.load(Ordering::Relaxed),
            len: self.len.load(Ordering::Relaxed),
            expires: self.expires.load(Ordering::Relaxed),
        }
    }

    /// Whether the block can be found; it may be over a moment later.
    pub(crate) fn is_published(&self, generation: u64) -> bool {
        generation != 0 && self.generation.load(Ordering::Acquire) == generation
    }
}

// === impl Pin ===

impl Pin {
    /// A pin that nobody has.
    #[allow(dead_code, reason = "in the model; otherwise it is made of zeroed memory")]
    pub(crate) fn new() -> Self {
        Self { count: AtomicU32::new(0), used: AtomicU32::new(0) }
    }

    /// Worker: pins the block, if it is still the one with this generation. What it finds is valid until `unpin`.
    pub(crate) fn pin(&self, cell: &Cell, generation: u64) -> Option<Found> {
        self.count.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `withdraw`.
        fence(Ordering::SeqCst);
        if !cell.is_published(generation) {
            self.unpin();
            return None;
        }
        Some(cell.found())
    }

    /// One pin more of a block that the caller has pinned, or holds. The block may have been withdrawn meanwhile; it stays.
    pub(crate) fn again(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one pin back. One that nobody has is not given back: a peer that lies about it wraps nothing around.
    pub(crate) fn unpin(&self) {
        // Release: what was read under the pin was read before. Pairs with the Acquire in `is_pinned`.
        let _ = self.count.fetch_update(Ordering::Release, Ordering::Relaxed, |count| count.checked_sub(1));
    }

    /// Runtime: whether the worker reads the block; to be asked after `withdraw`.
    pub(crate) fn is_pinned(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Worker: notes when it used the block.
    pub(crate) fn note(&self, stamp: u32) {
        self.used.store(stamp, Ordering::Relaxed);
    }

    /// When the worker used the block; 0 is never.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }
}
