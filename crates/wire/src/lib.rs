//! Frames of the runtime-worker socket: bytes in, frames out.
