//! What another ingress shares with this one: how the head of a call is read, and how a failure is told.

use std::time::{Duration, Instant};

use anyserve_core::{Error, Parameter, Query};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::compression::{self, Encoding};
use super::encode::{Encoder, Envelope};
use super::metadata::Metadata;
use super::{decode, timeout};
use crate::body::Chunks;
use crate::budget::Charge;

/// What the headers of a call say.
#[derive(Clone, Debug)]
pub struct CallHead(Metadata);

// === impl CallHead ===

impl CallHead {
    /// Reads the headers of a call that arrived at `now`.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a deadline, a query or a condition that cannot be read, `UNSUPPORTED` for an unknown
    /// compression.
    pub fn read(headers: &HeaderMap, now: Instant) -> Result<Self, Error> {
        Metadata::read(headers, now).map(Self)
    }

    /// When the client stops waiting.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Lets the client stop waiting at another time.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.0.deadline = deadline;
    }

    /// The headers of the caller's own, with lower-case names.
    pub fn headers(&self) -> &[(String, String)] {
        &self.0.headers
    }

    /// Whether the first error ends a stream with its status.
    pub fn fatal_errors(&self) -> bool {
        self.0.fatal_errors
    }

    /// How answers may be compressed, as `grpc-encoding` says it; `None` if not at all.
    pub fn answer_encoding(&self) -> Option<&'static str> {
        (self.0.answer != Encoding::Identity).then(|| self.0.answer.name())
    }

    /// The query: from headers, from the parameter `capability`, or from the model's name; the first that is there.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a parameter that is no selector.
    pub fn query(&self, capability: Option<&Parameter>, model: &str) -> Result<Query, Error> {
        decode::query_of(&self.0, capability, model)
    }

    /// Decompresses a message of the client to at most `max` bytes, which `charge` pays for.
    ///
    /// # Errors
    /// `INVALID_INPUT` if it is not compressed as the headers say, or longer than that; `OVERLOADED` where there is no
    /// memory for it.
    pub fn decompress(&self, data: &[u8], max: usize, charge: &mut Charge) -> Result<Bytes, Error> {
        let mut plain = BytesMut::with_capacity(data.len().min(compression::at_most(data.len(), max)));
        self.0.encoding.decompress(data, max, |piece| {
            charge.grow(piece.len())?;
            plain.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(plain.freeze())
    }

    /// What `grpc-timeout` says of a time.
    pub fn timeout(left: Duration) -> String {
        timeout::write(left)
    }

    /// The instant at which an ingress gives up by itself: a little after the deadline, so that whoever knows better
    /// where the request was may say so.
    pub fn give_up_at(deadline: Instant) -> tokio::time::Instant {
        timeout::give_up_at(deadline)
    }
}

/// The message that tells of a failed request inside a `ModelStreamInfer` call, framed.
pub(crate) fn stream_error(error: &Error, id: &str) -> Bytes {
    let encoder = Encoder { envelope: Envelope::Stream, encoding: Encoding::Identity, max_message: usize::MAX };
    let mut chunks = Chunks::default();
    encoder.error(error, id, &mut chunks);
    let mut framed = BytesMut::new();
    while let Some(piece) = chunks.pop() {
        framed.extend_from_slice(&piece);
    }
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use anyserve_core::Code;

    #[test]
    fn a_compressed_message_is_paid_for_and_bounded() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-encoding", "gzip".parse().unwrap());
        let head = CallHead::read(&headers, Instant::now()).unwrap();
        let mut chunks = Chunks::default();
        chunks.push(Bytes::from(vec![7; 1000]));
        let packed = Encoding::Gzip.compress(chunks);
        let read = |max, budget| head.decompress(&packed, max, &mut Budget::of(budget).charge());
        for (max, fits) in [(999, false), (1000, true), (1001, true)] {
            assert_eq!(read(max, 1000).is_ok(), fits, "{max}");
        }
        assert_eq!(read(1000, 1000).unwrap(), vec![7; 1000]);
        assert_eq!(read(1000, 999).unwrap_err().code, Code::Overloaded);
    }
}
