//! The body of every answer: one enum, so that the hot path needs no box.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use crate::metrics::Call;

/// An error in the middle of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that somebody else drives.
pub(crate) type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// What is written after the headers.
pub enum Body {
    /// Everything is there: data, then trailers.
    Whole(Whole),
    /// It comes piece by piece.
    Boxed(BoxBody),
}

/// Data that is there, and the trailers after it.
pub struct Whole {
    chunks: Chunks,
    trailers: Option<HeaderMap>,
    /// Counts as in flight until the last byte is taken.
    _call: Option<Call>,
}

/// Bytes to be written: small pieces are gathered in one buffer, large ones stay where they are.
#[derive(Debug, Default)]
pub struct Chunks {
    full: VecDeque<Bytes>,
    last: BytesMut,
}

/// From this length on a piece is not copied but written by itself.
pub(crate) const LARGE: usize = 32 << 10;

// === impl Chunks ===

impl Chunks {
    /// Room for `len` bytes of small pieces.
    pub(crate) fn reserve(&mut self, len: usize) {
        self.last.reserve(len);
    }

    /// The buffer that small pieces are written to.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.last
    }

    /// Adds a piece of any length.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < LARGE {
            self.last.extend_from_slice(&piece);
            return;
        }
        if !self.last.is_empty() {
            self.full.push_back(self.last.split().freeze());
        }
        self.full.push_back(piece);
    }

    /// Takes the next piece to write, if there is one.
    pub fn pop(&mut self) -> Option<Bytes> {
        let full = self.full.pop_front();
        full.or_else(|| if self.last.is_empty() { None } else { Some(self.last.split().freeze()) })
    }

    /// Whether so much has gathered that it should be written before more is added.
    pub fn is_plenty(&self) -> bool {
        !self.full.is_empty() || self.last.len() >= LARGE
    }

    /// Bytes in all pieces.
    #[cfg(test)]
    pub(crate) fn concat(mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.pop()).flatten().collect()
    }
}

// === impl Body ===

impl Body {
    /// Data that is there already, followed by trailers.
    pub(crate) fn whole(chunks: Chunks, trailers: Option<HeaderMap>, call: Option<Call>) -> Self {
        Self::Whole(Whole { chunks, trailers, _call: call })
    }

    /// No data and no trailers.
    pub(crate) fn empty() -> Self {
        Self::whole(Chunks::default(), None, None)
    }

    /// A body that somebody else made.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        use http_body_util::BodyExt;
        Self::Boxed(Box::pin(body.map_err(Into::into)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.next().map(Ok)),
            Self::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }
}

// === impl Whole ===

impl Whole {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.chunks.pop().map(Frame::data);
        data.or_else(|| self.trailers.take().map(Frame::trailers))
    }

    fn is_end(&self) -> bool {
        self.trailers.is_none() && self.chunks.full.is_empty() && self.chunks.last.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_gathered_and_a_large_one_is_not_copied() {
        let large = Bytes::from(vec![7; LARGE]);
        let mut chunks = Chunks::default();
        chunks.push(Bytes::from_static(b"ab"));
        chunks.push(Bytes::from(vec![1; LARGE - 1]));
        chunks.push(large.clone());
        chunks.push(Bytes::from_static(b"c"));
        assert_eq!(chunks.pop().unwrap().len(), LARGE + 1);
        assert_eq!(chunks.pop().unwrap().as_ptr(), large.as_ptr());
        assert_eq!(chunks.pop().unwrap(), "c");
        assert_eq!(chunks.pop(), None);
    }
}
