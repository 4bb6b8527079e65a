//! Messages out of the DATA frames of a call: `compressed u8 · length u32 big-endian · message`.
//!
//! ```text
//!                 ┌─► small, in one frame ───────────────────────► where it lies ─┐
//! frames ─► prefix├─► large, or in several frames ─► scatter ─► plain bytes, heap ├─► Message
//!                 │                                   ▲    └──► tensors, rooms ───┘
//!                 └─► compressed: gathered ─► decompressed, piece by piece
//! ```
//!
//! A message that arrives in one frame is handed out where it lies, but for its large tensors; one that takes several is
//! gathered in memory that grows with what has arrived. The length prefix is compared with the limit, but not trusted
//! for an allocation. Without memory for tensors nothing is large.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyserve_core::{Code, Error};
use bytes::{Buf, Bytes};
use http_body::Body;

use super::compression::{self, Encoding};
use super::pieces::Pieces;
use super::scatter::{self, Gather};
use crate::budget::{Budget, Charge};

/// Length of what stands before each message.
pub(super) const PREFIX: usize = 5;

/// A message with the memory it was charged for.
#[derive(Debug)]
pub(super) struct Message {
    /// The bytes, decompressed, and large tensors of theirs in rooms.
    pub(super) data: Pieces,
    /// Given back when it is dropped. Keep it as long as the bytes.
    pub(super) charge: Option<Charge>,
}

/// Reads the messages of one call. After an error it is not to be asked again.
#[derive(Debug)]
pub(super) struct Messages<B> {
    body: B,
    limits: FrameLimits,
    /// Arrived and not yet looked at.
    rest: Bytes,
    /// Boxed, so that the calls which have none, most of them, are small.
    partial: Option<Box<Partial>>,
}

/// Bounds of the messages of one call.
#[derive(Clone, Debug)]
pub(super) struct FrameLimits {
    /// Longest message in bytes, compressed and not.
    pub(super) max_message: usize,
    /// How compressed messages are compressed.
    pub(super) encoding: Encoding,
    /// Where the memory of gathered messages and of large tensors is taken from.
    pub(super) budget: Budget,
}

/// What stands before a message.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    compressed: bool,
    len: usize,
}

/// A message of which some has arrived.
#[derive(Debug)]
struct Partial {
    prefix: Prefix,
    /// Bytes that have.
    arrived: usize,
    gather: Gather,
}

// === impl Messages ===

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub(super) fn new(body: B, limits: FrameLimits) -> Self {
        Self { body, limits, rest: Bytes::new(), partial: None }
    }

    /// The next message, or `None` where the client said that it sends no more.
    ///
    /// # Errors
    /// `INVALID_INPUT` for bytes that are no messages or a message beyond the limit, `OVERLOADED` where there is no
    /// memory for it, `CANCELLED` where the client is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, Error> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Messages::next`] as a poll.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.feed(frame.into_data().unwrap_or_default())?,
                Some(Err(error)) => return Poll::Ready(Err(gone(&error))),
                None => return Poll::Ready(self.end()),
            }
        }
    }

    fn feed(&mut self, data: Bytes) -> Result<(), Error> {
        if let Some(partial) = &mut self.partial {
            let mut data = data;
            partial.feed(&mut data)?;
            self.rest = data;
        } else if self.rest.is_empty() {
            self.rest = data;
        } else {
            // A prefix that is split over frames: what is left of the old one is less than a prefix.
            self.rest = [&*self.rest, &*data].concat().into();
        }
        Ok(())
    }

    /// The message that is complete, if one is.
    fn take(&mut self) -> Result<Option<Message>, Error> {
        if let Some(partial) = self.partial.take_if(|partial| partial.is_complete()) {
            return self.gathered(*partial).map(Some);
        }
        if self.partial.is_some() || self.rest.len() < PREFIX {
            return Ok(None);
        }
        let prefix = Prefix::read(&mut self.rest, self.limits.max_message)?;
        if prefix.len <= self.rest.len() {
            let data = self.rest.split_to(prefix.len);
            return self.whole(prefix, data).map(Some);
        }
        let mut partial = Partial::new(prefix, self.limits.budget.charge());
        partial.feed(&mut self.rest)?;
        self.partial = Some(Box::new(partial));
        Ok(None)
    }

    /// A message that lies in one frame.
    fn whole(&self, prefix: Prefix, data: Bytes) -> Result<Message, Error> {
        if prefix.compressed {
            return self.decompressed(&data);
        }
        let rooms = self.limits.budget.rooms();
        let data = if data.len() < rooms.threshold() { data.into() } else { scatter::whole(data, rooms) };
        Ok(Message { data, charge: None })
    }

    fn gathered(&self, partial: Partial) -> Result<Message, Error> {
        let (mut data, charge) = partial.gather.finish();
        if !partial.prefix.compressed {
            return Ok(Message { data, charge: Some(charge) });
        }
        // Bytes that are not looked at are in one piece. They stay charged until they are decompressed.
        self.decompressed(&data.copy_to_bytes(partial.arrived))
    }

    fn decompressed(&self, data: &[u8]) -> Result<Message, Error> {
        let FrameLimits { max_message, encoding, budget } = &self.limits;
        let mut gather = Gather::up_to(compression::at_most(data.len(), *max_message), budget.charge());
        encoding.decompress(data, *max_message, |piece| gather.feed(piece))?;
        let (data, charge) = gather.finish();
        Ok(Message { data, charge: Some(charge) })
    }

    fn end(&self) -> Result<Option<Message>, Error> {
        let (left, of) = match &self.partial {
            Some(partial) => (partial.arrived, partial.prefix.len),
            None if self.rest.is_empty() => return Ok(None),
            None => (self.rest.len(), PREFIX),
        };
        Err(Error::invalid(format!("the call ends in a message: {left} of {of} bytes")))
    }
}

fn gone(error: &impl std::fmt::Display) -> Error {
    Error::new(Code::Cancelled, format!("the client is gone: {error}"))
}

// === impl Prefix ===

impl Prefix {
    /// Takes a prefix from the front of `data`, which has at least [`PREFIX`] bytes.
    fn read(data: &mut Bytes, max: usize) -> Result<Self, Error> {
        let (flag, len) = (data.get_u8(), data.get_u32());
        if flag > 1 {
            return Err(Error::invalid(format!("message has compressed-flag {flag}, expected 0 or 1")));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > max {
            return Err(Error::new(Code::InvalidInput, format!("message has {len} bytes, the limit is {max}")));
        }
        Ok(Self { compressed: flag == 1, len })
    }
}

// === impl Partial ===

impl Partial {
    fn new(prefix: Prefix, charge: Charge) -> Self {
        let of = if prefix.compressed { Gather::opaque } else { Gather::new };
        Self { prefix, arrived: 0, gather: of(prefix.len, charge) }
    }

    fn is_complete(&self) -> bool {
        self.arrived == self.prefix.len
    }

    /// Takes what belongs to this message from the front of `data`.
    fn feed(&mut self, data: &mut Bytes) -> Result<(), Error> {
        let missing = self.prefix.len - self.arrived;
        let piece = data.split_to(missing.min(data.len()));
        self.arrived += piece.len();
        self.gather.feed(&piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::Rooms;
    use futures_util::{FutureExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn limits(max_message: usize) -> FrameLimits {
        FrameLimits { max_message, encoding: Encoding::Identity, budget: Budget::new(1 << 20, Rooms::new(None)) }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &len[..], message].concat()
    }

    /// Every message of the frames; all is there, so nothing is ever pending.
    fn read(frames: Vec<Bytes>, limits: FrameLimits) -> Result<Vec<Bytes>, Error> {
        let frames = frames.into_iter().map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let mut messages = Messages::new(StreamBody::new(stream::iter(frames)), limits);
        let mut all = Vec::new();
        while let Some(mut message) = messages.next().now_or_never().unwrap()? {
            let len = message.data.remaining();
            all.push(message.data.copy_to_bytes(len));
        }
        Ok(all)
    }

    #[test]
    fn a_message_in_one_frame_is_not_copied() {
        let frame = Bytes::from(framed(b"hello"));
        let read = read(vec![frame.clone()], limits(5)).unwrap();
        assert_eq!(read[0].as_ptr(), frame[PREFIX..].as_ptr());
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit_and_no_longer() {
        let read = |len: usize| read(vec![framed(&vec![1; len]).into()], limits(100));
        assert!(read(99).is_ok() && read(100).is_ok());
        assert_eq!(read(101).unwrap_err().message, "message has 101 bytes, the limit is 100");
    }

    #[test]
    fn a_large_promise_reserves_little_and_an_exhausted_budget_refuses() {
        let budget = Budget::new(10, Rooms::new(None));
        let mut partial = Partial::new(Prefix { compressed: false, len: 1 << 30 }, budget.charge());
        partial.feed(&mut Bytes::from_static(&[0; 10])).unwrap();
        assert!(partial.gather.reserved() <= 2 * scatter::MAX_AHEAD);
        assert_eq!(partial.feed(&mut Bytes::from_static(&[0])).unwrap_err().code, Code::Overloaded);
    }

    #[test]
    fn a_call_that_ends_in_a_message_or_has_an_unknown_flag_is_an_error() {
        let error = |bytes: &'static [u8]| read(vec![Bytes::from_static(bytes)], limits(100)).unwrap_err().message;
        assert_eq!(error(&[0, 0, 0, 0, 3, 1]), "the call ends in a message: 1 of 3 bytes");
        assert_eq!(error(&[0, 0]), "the call ends in a message: 2 of 5 bytes");
        assert_eq!(error(&[2, 0, 0, 0, 0]), "message has compressed-flag 2, expected 0 or 1");
        assert_eq!(error(&[1, 0, 0, 0, 0]), "a compressed message without grpc-encoding");
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_split(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            sizes in proptest::collection::vec(1..20_usize, 1..50),
        ) {
            let mut bytes = Bytes::from(sent.iter().flat_map(|message| framed(message)).collect::<Vec<_>>());
            let mut frames = Vec::new();
            for size in sizes.iter().cycle() {
                if bytes.is_empty() {
                    break;
                }
                frames.push(bytes.split_to((*size).min(bytes.len())));
            }
            prop_assert_eq!(read(frames, limits(100)).unwrap(), sent);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(vec![data.into()], limits(100));
        }
    }
}
