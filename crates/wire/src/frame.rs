//! The header of a frame, and a frame as a whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::WireError;

/// The first two bytes of every frame: `AS` in memory.
pub const MAGIC: u16 = u16::from_le_bytes(*b"AS");
/// The version of the protocol that this crate speaks. Both ends come from one release, so there is only one.
pub const VERSION: u8 = 4;
/// Bytes of a header.
pub const HEADER_LEN: usize = 28;

/// Bits of a frame's flags.
pub mod flags {
    /// On `Done`: the frame carries a response. A streaming handler ends without one.
    pub const RESPONSE: u16 = 1;
    /// On `Failed`: the request was taken back before its handler started; nothing ran.
    pub const NOT_STARTED: u16 = 1 << 1;
}

/// What a frame means. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Worker: protocol version, pid, handler table.
    Hello = 1,
    /// Runtime: limits and where the slot table is.
    Welcome = 2,
    /// Worker: may receive requests.
    Ready = 3,
    /// Runtime: one request.
    Request = 4,
    /// Worker: one streamed response.
    Chunk = 5,
    /// Worker: the last response, or the end of a stream.
    Done = 6,
    /// Worker: the request, or with id 0 the start, ended in an error.
    Failed = 7,
    /// Runtime: stop this request. Worker: the call with this number is not wanted any more.
    Cancel = 8,
    /// Runtime: so many more bytes of this request's stream may be sent. Worker: so much of this call's results is taken.
    Credit = 9,
    /// Runtime: finish what is in flight, then leave.
    Drain = 10,
    /// Runtime: answer with a pong.
    Ping = 11,
    /// Worker: the answer to a ping, with its id.
    Pong = 12,
    /// Runtime: several requests for one call of a handler that takes a list; the header's id is 0.
    Batch = 13,
    /// Worker: room in the arena is wanted.
    Put = 14,
    /// Worker: a block is written.
    Sealed = 15,
    /// Worker: an object is wanted, or its description.
    Get = 16,
    /// Runtime: the answer to these.
    View = 17,
    /// Both: an object, block or region is not needed any more.
    Release = 18,
    /// Runtime: give your resources back and stay alive; nothing is in flight.
    Sleep = 19,
    /// Worker: its resources are given back.
    Asleep = 20,
    /// Runtime: take your resources again, then say ready.
    Wake = 21,
    /// Template: what the app has, or why it cannot be loaded; the first frame of its connection.
    Manifest = 22,
    /// Runtime: fork a worker.
    Fork = 23,
    /// Template: a worker was forked, or not.
    Forked = 24,
    /// Worker: a handler calls another capability; the header's id is the call's number.
    Call = 25,
    /// Runtime: one result of a call, or its end.
    CallResult = 26,
}

const KINDS: [Kind; 26] = [
    Kind::Hello,
    Kind::Welcome,
    Kind::Ready,
    Kind::Request,
    Kind::Chunk,
    Kind::Done,
    Kind::Failed,
    Kind::Cancel,
    Kind::Credit,
    Kind::Drain,
    Kind::Ping,
    Kind::Pong,
    Kind::Batch,
    Kind::Put,
    Kind::Sealed,
    Kind::Get,
    Kind::View,
    Kind::Release,
    Kind::Sleep,
    Kind::Asleep,
    Kind::Wake,
    Kind::Manifest,
    Kind::Fork,
    Kind::Forked,
    Kind::Call,
    Kind::CallResult,
];

/// The first 28 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame means.
    pub kind: Kind,
    /// Bits of [`flags`].
    pub flags: u16,
    /// The request, question or call that it belongs to; 0 for none.
    pub id: u64,
    /// Bytes of metadata that follow.
    pub meta_len: u32,
    /// Bytes of body that follow the metadata.
    pub body_len: u64,
}

/// A frame in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the frame means.
    pub kind: Kind,
    /// Bits of [`flags`].
    pub flags: u16,
    /// The request, question or call that it belongs to; 0 for none.
    pub id: u64,
    /// A protobuf message, see [`crate::message`].
    pub meta: Bytes,
    /// Raw tensor bytes.
    pub body: Bytes,
}

// === impl Kind ===

impl Kind {
    /// Every kind, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.into_iter()
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        KINDS.get(usize::from(number.checked_sub(1)?)).copied()
    }
}

// === impl Header ===

impl Header {
    /// Writes the header.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u16_le(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u16_le(self.flags);
        out.put_u16_le(0);
        out.put_u64_le(self.id);
        out.put_u32_le(self.meta_len);
        out.put_u64_le(self.body_len);
    }

    /// Reads a header. Lengths are not judged here.
    ///
    /// # Errors
    /// [`WireError`] for another magic, version or reserved field, or an unknown kind.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let mut bytes = &bytes[..];
        let (magic, version, kind) = (bytes.get_u16_le(), bytes.get_u8(), bytes.get_u8());
        if magic != MAGIC {
            return Err(WireError::Magic { got: magic });
        }
        if version != VERSION {
            return Err(WireError::Version { got: version });
        }
        let kind = Kind::from_number(kind).ok_or(WireError::Kind { got: kind })?;
        let (flags, reserved) = (bytes.get_u16_le(), bytes.get_u16_le());
        if reserved != 0 {
            return Err(WireError::Reserved { got: reserved });
        }
        Ok(Self { kind, flags, id: bytes.get_u64_le(), meta_len: bytes.get_u32_le(), body_len: bytes.get_u64_le() })
    }
}

// === impl Frame ===

impl Frame {
    /// A frame without metadata and body.
    pub fn bare(kind: Kind, id: u64) -> Self {
        Self { kind, flags: 0, id, meta: Bytes::new(), body: Bytes::new() }
    }

    /// A frame with this message and no body.
    pub fn with_meta(kind: Kind, id: u64, meta: &impl Message) -> Self {
        Self { meta: meta.encode_to_vec().into(), ..Self::bare(kind, id) }
    }

    /// Reads the metadata.
    ///
    /// # Errors
    /// [`WireError::Meta`] if the bytes are no such message.
    pub fn message<M: Message + Default>(&self) -> Result<M, WireError> {
        M::decode(self.meta.clone()).map_err(|source| WireError::Meta { kind: self.kind, source })
    }

    /// Writes header and metadata; the body follows from where it lies.
    pub fn encode_head(&self, out: &mut BytesMut) {
        encode_head(out, self.kind, self.flags, self.id, &self.meta, self.body.len());
    }

    /// The whole frame as contiguous bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_LEN + self.meta.len() + self.body.len());
        self.encode_head(&mut out);
        out.extend_from_slice(&self.body);
        out.freeze()
    }
}

fn encode_head(out: &mut BytesMut, kind: Kind, flags: u16, id: u64, meta: &[u8], body_len: usize) {
    let meta_len = u32::try_from(meta.len()).expect("metadata is far below 4 GiB: its parts are bounded by Limits");
    out.reserve(HEADER_LEN + meta.len());
    Header { kind, flags, id, meta_len, body_len: body_len as u64 }.encode(out);
    out.extend_from_slice(meta);
}
