//! Memory for large tensors that knows what was asked of it and what is still held.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyserve_core::{TensorMemory, TensorRoom};
use bytes::Bytes;

const ALIGNMENT: usize = 64;

/// Memory of at most `max` bytes at a time.
#[derive(Debug)]
pub(crate) struct Shelf {
    threshold: usize,
    max: usize,
    held: AtomicUsize,
    asked: AtomicUsize,
    /// Addresses of every tensor that was frozen here.
    frozen: Mutex<Vec<Range<usize>>>,
}

/// A piece of the shelf; `data` has slack in front, so that the tensor is aligned.
#[derive(Debug)]
struct Piece {
    shelf: Arc<Shelf>,
    data: Vec<u8>,
    start: usize,
    len: usize,
    written: usize,
}

/// What [`TensorMemory`] is implemented for: rooms must know the shelf that they are of.
#[derive(Debug)]
struct Handle(Arc<Shelf>);

impl Shelf {
    pub(crate) fn new(threshold: usize, max: usize) -> Arc<Self> {
        let (held, asked, frozen) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
        Arc::new(Self { threshold, max, held, asked, frozen })
    }

    /// The shelf as memory.
    pub(crate) fn memory(self: &Arc<Self>) -> Arc<dyn TensorMemory> {
        Arc::new(Handle(Arc::clone(self)))
    }

    /// Bytes that rooms and tensors hold now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// How often a room was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether the bytes are exactly a tensor that was received here, on its boundary.
    pub(crate) fn has(&self, bytes: &Bytes) -> bool {
        let start = bytes.as_ptr().addr();
        start.is_multiple_of(ALIGNMENT)
            && self.frozen.lock().expect("nobody panics while it is held").contains(&(start..start + bytes.len()))
    }
}

impl TensorMemory for Handle {
    fn threshold(&self) -> usize {
        self.0.threshold
    }

    fn allocate(&self, len: usize) -> Option<Box<dyn TensorRoom>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        if self.0.held().saturating_add(len) > self.0.max {
            return None;
        }
        self.0.held.fetch_add(len, Ordering::SeqCst);
        let data = vec![0xaa; len + ALIGNMENT];
        let start = data.as_ptr().align_offset(ALIGNMENT);
        Some(Box::new(Piece { shelf: Arc::clone(&self.0), data, start, len, written: 0 }))
    }
}

impl TensorRoom for Piece {
    fn missing(&self) -> usize {
        self.len - self.written
    }

    fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.missing(), "{} bytes of {}", bytes.len(), self.missing());
        let start = self.start + self.written;
        self.data[start..start + bytes.len()].copy_from_slice(bytes);
        self.written += bytes.len();
    }

    fn freeze(self: Box<Self>) -> Bytes {
        assert_eq!(self.missing(), 0);
        let owner = Arc::clone(&self.shelf);
        let bytes = Bytes::from_owner(*self);
        let start = bytes.as_ptr().addr();
        owner.frozen.lock().expect("nobody panics while it is held").push(start..start + bytes.len());
        bytes
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data[self.start..self.start + self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.shelf.held.fetch_sub(self.len, Ordering::SeqCst);
    }
}
