//! Bytes to frames, however the bytes were split on their way.

use anyserve_core::Limits;
use bytes::{Buf, BufMut, Bytes, BytesMut, buf::Limit};

use crate::{Frame, HEADER_LEN, Header, Kind, MAGIC, VERSION};

/// What a peer did to end its connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not of this protocol.
    #[error("frame starts with {got:#06x}, expected {MAGIC:#06x}")]
    Magic {
        /// The first two bytes.
        got: u16,
    },
    /// The peer is of another release.
    #[error("frame has version {got}, expected {VERSION}")]
    Version {
        /// The version of the frame.
        got: u8,
    },
    /// No frame has this kind.
    #[error("unknown frame kind {got}")]
    Kind {
        /// The number of the kind.
        got: u8,
    },
    /// The reserved field is in use.
    #[error("reserved field is {got}, expected 0")]
    Reserved {
        /// The field's value.
        got: u16,
    },
    /// More metadata than [`Limits::max_meta`].
    #[error("{kind:?} frame announces {len} bytes of metadata, at most {max} are allowed")]
    MetaTooLarge {
        /// Kind of the frame.
        kind: Kind,
        /// Announced bytes.
        len: u64,
        /// Allowed bytes.
        max: usize,
    },
    /// More body than [`Limits::max_message`].
    #[error("{kind:?} frame announces a body of {len} bytes, at most {max} are allowed")]
    BodyTooLarge {
        /// Kind of the frame.
        kind: Kind,
        /// Announced bytes.
        len: u64,
        /// Allowed bytes.
        max: usize,
    },
    /// The metadata is no message of this kind.
    #[error("metadata of a {kind:?} frame cannot be read")]
    Meta {
        /// Kind of the frame.
        kind: Kind,
        /// What protobuf says.
        source: prost::DecodeError,
    },
    /// The decoder was fed after it had failed.
    #[error("the connection broke a rule before")]
    Failed,
}

/// Smallest body that gets memory of its own and is read straight into it.
pub(crate) const DIRECT_BODY: usize = 16 << 10;
/// Bytes asked for in one read of small frames.
const READ_AHEAD: usize = 64 << 10;

/// Turns a byte stream into frames.
///
/// ```text
/// Head --header and small body--> Head (a frame)      any --broken rule--> Failed
/// Head --header of a large body--> Body --all of it--> Head (a frame)
/// ```
///
/// Memory for a body is reserved only after its length was checked, and at most [`Limits::max_message`] for the one
/// frame under way.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    head: BytesMut,
    state: State,
}

#[derive(Debug)]
enum State {
    Head,
    Body { header: Header, meta: Bytes, body: BytesMut, want: usize },
    Failed,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, head: BytesMut::new(), state: State::Head }
    }

    /// Where the next bytes from the stream go; never more than what the frame under way lacks when its body is read
    /// directly. Call [`next_frame`](Self::next_frame) until it has none before the next read.
    pub fn buffer(&mut self) -> Limit<&mut BytesMut> {
        if let State::Body { body, want, .. } = &mut self.state {
            let lacks = *want - body.len();
            return body.limit(lacks);
        }
        self.head.reserve(READ_AHEAD);
        let room = self.head.capacity() - self.head.len();
        (&mut self.head).limit(room)
    }

    /// Appends bytes that were read elsewhere.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Frame>, WireError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let mut room = self.buffer();
            let len = bytes.len().min(room.remaining_mut());
            room.put_slice(&bytes[..len]);
            bytes.advance(len);
            while let Some(frame) = self.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    /// The next whole frame, or `None` until more bytes are there.
    ///
    /// # Errors
    /// [`WireError`] if the peer broke a rule; every later call fails too.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let next = match &mut self.state {
            State::Head => self.small_frame(),
            State::Body { body, want, .. } if body.len() < *want => Ok(None),
            State::Body { .. } => Ok(self.large_frame()),
            State::Failed => Err(WireError::Failed),
        };
        if next.is_err() {
            self.state = State::Failed;
            self.head = BytesMut::new();
        }
        next
    }

    /// Whether bytes of an unfinished frame are held: the stream must not end here.
    pub fn is_mid_frame(&self) -> bool {
        !self.head.is_empty() || matches!(self.state, State::Body { .. })
    }

    fn small_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(bytes) = self.head.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(bytes)?;
        let (meta_len, body_len) = self.checked_lengths(&header)?;
        if self.head.len() < HEADER_LEN + meta_len {
            return Ok(None);
        }
        if body_len >= DIRECT_BODY {
            self.start_body(header, meta_len, body_len);
            return self.next_frame();
        }
        if self.head.len() < HEADER_LEN + meta_len + body_len {
            return Ok(None);
        }
        self.head.advance(HEADER_LEN);
        let meta = self.head.split_to(meta_len).freeze();
        // Its own memory, so that the body starts aligned and a kept tensor does not keep its neighbours.
        let body = Bytes::copy_from_slice(&self.head[..body_len]);
        self.head.advance(body_len);
        Ok(Some(frame(header, meta, body)))
    }

    fn checked_lengths(&self, header: &Header) -> Result<(usize, usize), WireError> {
        let Header { kind, meta_len, body_len, .. } = *header;
        let meta = usize::try_from(meta_len).ok().filter(|len| *len <= self.limits.max_meta);
        let body = usize::try_from(body_len).ok().filter(|len| *len <= self.limits.max_message);
        let meta_error = WireError::MetaTooLarge { kind, len: meta_len.into(), max: self.limits.max_meta };
        let body_error = WireError::BodyTooLarge { kind, len: body_len, max: self.limits.max_message };
        Ok((meta.ok_or(meta_error)?, body.ok_or(body_error)?))
    }

    fn start_body(&mut self, header: Header, meta_len: usize, want: usize) {
        self.head.advance(HEADER_LEN);
        let meta = self.head.split_to(meta_len).freeze();
        let mut body = BytesMut::with_capacity(want);
        let here = self.head.len().min(want);
        body.extend_from_slice(&self.head[..here]);
        self.head.advance(here);
        self.state = State::Body { header, meta, body, want };
    }

    fn large_frame(&mut self) -> Option<Frame> {
        match std::mem::replace(&mut self.state, State::Head) {
            State::Body { header, meta, body, .. } => Some(frame(header, meta, body.freeze())),
            State::Head | State::Failed => None,
        }
    }
}

fn frame(header: Header, meta: Bytes, body: Bytes) -> Frame {
    Frame { kind: header.kind, flags: header.flags, id: header.id, meta, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits { max_meta: 64, max_message: 3 * DIRECT_BODY, ..Limits::default() }
    }

    fn sample(id: u64, meta: usize, body: usize) -> Frame {
        let byte = |i: usize| u8::try_from(i % 251).unwrap();
        let bytes = |len: usize| (0..len).map(byte).collect::<Vec<_>>().into();
        let kinds: Vec<_> = Kind::all().collect();
        let kind = kinds[usize::try_from(id).unwrap() % kinds.len()];
        Frame { kind, flags: 3, id, meta: bytes(meta), body: bytes(body) }
    }

    #[test]
    fn lengths_at_the_limit_are_read_and_one_more_ends_the_connection() {
        for (meta, body, legal) in [
            (63, 0, true),
            (64, 0, true),
            (65, 0, false),
            (0, 3 * DIRECT_BODY - 1, true),
            (0, 3 * DIRECT_BODY, true),
            (0, 3 * DIRECT_BODY + 1, false),
        ] {
            let read = Decoder::new(limits()).feed(&sample(7, meta, body).to_bytes());
            assert_eq!(read.is_ok(), legal, "meta {meta}, body {body}");
        }
    }

    #[test]
    fn a_huge_announced_length_reserves_nothing() {
        let header = Header { kind: Kind::Hello, flags: 0, id: 1, meta_len: 0, body_len: u64::MAX };
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        let mut decoder = Decoder::new(limits());
        let error = decoder.feed(&bytes).unwrap_err();
        assert!(matches!(error, WireError::BodyTooLarge { len: u64::MAX, .. }));
        assert_eq!(decoder.head.capacity(), 0);
    }

    #[test]
    fn a_broken_decoder_stays_broken() {
        let mut decoder = Decoder::new(limits());
        assert!(matches!(decoder.feed(&[0; HEADER_LEN]), Err(WireError::Magic { got: 0 })));
        assert!(matches!(decoder.feed(&sample(1, 1, 1).to_bytes()), Err(WireError::Failed)));
    }

    #[test]
    fn every_field_of_the_header_is_judged() {
        let good = sample(1, 0, 0).to_bytes();
        let broken = |at: usize| {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x80;
            Decoder::new(limits()).feed(&bytes).unwrap_err()
        };
        assert!(matches!(broken(1), WireError::Magic { .. }));
        assert!(matches!(broken(2), WireError::Version { .. }));
        assert!(matches!(broken(3), WireError::Kind { .. }));
        assert!(matches!(broken(6), WireError::Reserved { .. }));
    }

    #[test]
    fn the_room_for_a_large_body_ends_where_the_body_ends() {
        let bytes = sample(1, 4, DIRECT_BODY + 10).to_bytes();
        let mut decoder = Decoder::new(limits());
        assert!(decoder.feed(&bytes[..HEADER_LEN + 4 + 100]).unwrap().is_empty());
        assert_eq!(decoder.buffer().remaining_mut(), DIRECT_BODY + 10 - 100);
        assert!(decoder.is_mid_frame());
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(
            first in 0..Kind::all().count() as u64,
            sizes in proptest::collection::vec((0_usize..60, 0_usize..(2 * DIRECT_BODY)), 1..5),
            cuts in proptest::collection::vec(1_usize..20_000, 1..12),
        ) {
            let frames: Vec<_> = (first..).zip(&sizes).map(|(id, (meta, body))| sample(id, *meta, *body)).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
            let (mut rest, mut read, mut decoder) = (&bytes[..], Vec::new(), Decoder::new(limits()));
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                read.extend(decoder.feed(now).unwrap());
                rest = later;
            }
            prop_assert_eq!(read, frames);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Decoder::new(limits()).feed(&bytes);
        }
    }
}
