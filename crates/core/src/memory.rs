//! Memory for large tensors, as those see it who must not know where it is.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;

use crate::{Error, ObjRef};

/// Memory that large tensors are received into, so that nobody has to move them again.
pub trait TensorMemory: fmt::Debug + Send + Sync {
    /// The size in bytes from which on a tensor is worth it.
    fn threshold(&self) -> usize;

    /// Room for exactly `len` bytes, on a 64-byte boundary. `None` where there is none: the caller uses memory of its own.
    fn allocate(&self, len: usize) -> Option<Box<dyn TensorRoom>>;
}

/// Room for one tensor. Dropping it gives it back.
pub trait TensorRoom: fmt::Debug + Send + Sync {
    /// Bytes that are still to come.
    fn missing(&self) -> usize;

    /// Appends bytes, at most as many as are missing.
    fn write(&mut self, bytes: &[u8]);

    /// The tensor; nothing may be missing. The memory is free again when the last clone of the bytes is dropped.
    fn freeze(self: Box<Self>) -> Bytes;
}

/// Memory of the caller's that an output is to be written to, instead of being sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// Name of the output.
    pub output: String,
    /// Where it goes, all of the room there is. These bytes lie in memory that the caller shares; they are a place, and
    /// what stands there means nothing before the answer.
    pub room: Bytes,
}

/// The future of an operation on another replica or a store.
pub type Elsewhere<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Objects that are not in this replica's memory: with other replicas, and in the store for durable ones.
pub trait FarObjects: fmt::Debug + Send + Sync {
    /// Brings an object here. Returns the reference to the copy, which is local and may be evicted.
    ///
    /// # Errors
    /// `NOT_FOUND` if nobody has it, `UNAVAILABLE` if who should have it does not answer, `DEADLINE`,
    /// `OBJECT_STORE_FULL`.
    fn fetch(&self, objref: ObjRef, deadline: Option<Instant>) -> Elsewhere<ObjRef>;

    /// Keeps a local object, so that it outlives this replica until its lease ends. `key` as in `create`.
    ///
    /// # Errors
    /// `UNSUPPORTED` if there is no store for durable objects, `UNAVAILABLE` if it fails.
    fn keep(&self, objref: ObjRef, key: Option<String>) -> Elsewhere<()>;

    /// The newest durable object under a key.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the store fails.
    fn lookup(&self, key: String, deadline: Option<Instant>) -> Elsewhere<Option<ObjRef>>;

    /// Deletes the durable copy, if there is one. False if there was none.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the store fails.
    fn delete(&self, objref: ObjRef) -> Elsewhere<bool>;
}
