//! Memory that the runtime and its workers share. The one home of `unsafe` in the runtime.
//!
//! Today it holds the slot table, by which both ends know how far a request has come without a system call, and after a
//! worker's death too. The object plane's arena is to live here as well.

mod slots;

pub use slots::{OpenError, Phase, SLOTS, SlotTable};
