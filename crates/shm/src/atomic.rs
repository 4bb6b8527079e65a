//! The atomics of `protocol.rs`; its model test puts those of a model checker in their place.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
