//! One worker's pins, mapped by it and by the runtime.

use std::io;
use std::path::{Path, PathBuf};

use crate::layout::Layout;
use crate::protocol::Pin;
use crate::segment::{Mapping, Segment};

/// The pins of one worker, as the runtime has them.
#[derive(Debug)]
pub(crate) struct PinTable {
    segment: Segment,
    entries: u32,
}

/// The pins of this worker, as the worker has them.
#[derive(Debug)]
pub(crate) struct OwnPins {
    mapping: Mapping,
    entries: u32,
}

// === impl PinTable ===

impl PinTable {
    pub(crate) fn create(layout: &Layout) -> io::Result<Self> {
        let len = layout.pins_len();
        let segment = Segment::create(usize::try_from(len).map_err(io::Error::other)?)?;
        segment.reserve(0, len)?;
        Ok(Self { segment, entries: layout.entries })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.segment.path()
    }

    pub(crate) fn pin(&self, index: u32) -> Option<&Pin> {
        pin(self.segment.start(), self.entries, index)
    }
}

// === impl OwnPins ===

impl OwnPins {
    pub(crate) fn open(path: &Path, layout: &Layout) -> io::Result<Self> {
        let len = usize::try_from(layout.pins_len()).map_err(io::Error::other)?;
        Ok(Self { mapping: Mapping::open(path, 0, len)?, entries: layout.entries })
    }

    pub(crate) fn pin(&self, index: u32) -> Option<&Pin> {
        pin(self.mapping.start(), self.entries, index)
    }
}

#[allow(unsafe_code, clippy::cast_ptr_alignment)]
fn pin<'a>(start: *mut u8, entries: u32, index: u32) -> Option<&'a Pin> {
    if index >= entries {
        return None;
    }
    let offset = usize::try_from(index).ok()? * size_of::<Pin>();
    // SAFETY: both callers map `Layout::pins_len` bytes, page-aligned, so the pin is inside and aligned. It is reached
    // through atomics only, in both processes, for which every bit pattern is a value. The mapping lives as long as its
    // owner, whose methods bind the lifetime. The pages are reserved, and neither process truncates the file.
    Some(unsafe { &*start.add(offset).cast::<Pin>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_pin_for_each_entry_and_no_other() {
        let layout = Layout { entries: 8192, capacity: 1 << 25, epoch_ns: 0 };
        let pins = PinTable::create(&layout).unwrap();
        let own = OwnPins::open(&pins.path(), &layout).unwrap();
        for index in [0, 1, 8191] {
            own.pin(index).unwrap().again();
            assert!(pins.pin(index).unwrap().is_pinned());
        }
        for index in [8192, 8193, u32::MAX] {
            assert!(own.pin(index).is_none() && pins.pin(index).is_none());
        }
    }
}
