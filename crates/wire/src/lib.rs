//! Frames of the runtime-worker socket: bytes in, frames out.
//!
//! A frame is a header of 28 bytes, little-endian, then `meta` (protobuf, see [`message`]) and `body` (raw tensor
//! bytes, concatenated in the order of the tensors):
//!
//! ```text
//!  0      2        3     4      6         8            16            20            28
//!  | magic | version | kind | flags | reserved | request id | meta length | body length | meta … | body … |
//!    u16     u8        u8     u16     u16        u64          u32           u64
//! ```
//!
//! The crate knows no socket and no runtime: [`Decoder`] says where the next bytes are to be put and hands out frames,
//! [`Frame::encode_head`] writes everything but the body, which is sent from where it lies. Both ends of the socket use
//! it. A connection that broke a rule is over: a failed decoder stays failed.

mod batch;
mod convert;
mod decoder;
mod error;
mod frame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod group;
pub mod message;

pub use batch::{BatchPart, MAX_BATCH, batch_of, encode_member};
pub use convert::{Nowhere, Places, call_of, request_of, request_to_frame, response_of, result_of, result_to_frame};
pub use decoder::{Decoder, WireError};
pub use error::MessageError;
pub use frame::{Frame, HEADER_LEN, Header, Kind, MAGIC, VERSION, flags};
pub use group::MAX_WORKERS;
