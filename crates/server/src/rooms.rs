//! Where the large tensors of requests are received into, if the runtime has memory for them.

use std::sync::Arc;

use anyserve_core::{TensorMemory, TensorRoom};

/// The runtime's memory for tensors, or none.
#[derive(Debug)]
pub(crate) struct Rooms {
    memory: Option<Arc<dyn TensorMemory>>,
    threshold: usize,
}

// === impl Rooms ===

impl Rooms {
    /// Rooms of `memory`; without it no tensor is large.
    pub(crate) fn new(memory: Option<Arc<dyn TensorMemory>>) -> Self {
        // An empty tensor has no bytes to move, whatever the memory thinks of it.
        let threshold = memory.as_ref().map_or(usize::MAX, |memory| memory.threshold().max(1));
        Self { memory, threshold }
    }

    /// The size in bytes from which on a tensor gets a room.
    pub(crate) fn threshold(&self) -> usize {
        self.threshold
    }

    /// Room for a tensor of `len` bytes. `None` if that is below the threshold, or there is no room left.
    pub(crate) fn take(&self, len: usize) -> Option<Box<dyn TensorRoom>> {
        if len < self.threshold {
            return None;
        }
        self.memory.as_ref()?.allocate(len)
    }
}

#[cfg(any(test, fuzzing))]
#[path = "../tests/support/shelf.rs"]
pub(crate) mod shelf;

#[cfg(test)]
mod tests {
    use super::shelf::Shelf;
    use super::*;

    #[test]
    fn a_tensor_gets_a_room_from_the_threshold_on_and_none_without_memory() {
        let shelf = Shelf::new(100, usize::MAX);
        let rooms = Rooms::new(Some(shelf.memory()));
        assert!(rooms.take(99).is_none());
        assert!(rooms.take(100).is_some() && rooms.take(101).is_some());
        assert_eq!(shelf.asked(), 2);
        assert!(Rooms::new(None).take(usize::MAX - 1).is_none());
    }

    #[test]
    fn an_empty_tensor_never_gets_a_room() {
        let rooms = Rooms::new(Some(Shelf::new(0, usize::MAX).memory()));
        assert!(rooms.take(0).is_none() && rooms.take(1).is_some());
    }
}
