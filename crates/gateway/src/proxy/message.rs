//! gRPC messages as they came: prefix and bytes, in the pieces that they arrived in.
//!
//! ```text
//! frames ─► rest ─┬─► a message that lies in one frame: one piece ────────────► Message
//!                 └─► a longer one: pieces, small ones gathered, all charged ─► Message
//! ```
//!
//! Nothing is decoded and nothing large is copied. The length in a prefix is compared with the limit and otherwise only
//! waited for: memory is taken as bytes arrive.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyserve_cluster::Event;
use anyserve_core::{Code, Error};
use anyserve_server::parts::{Budget, Charge};
use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

/// Length of what stands before each message.
pub(super) const PREFIX: usize = 5;

/// Pieces below this length are copied together, so that many small ones don't take more memory than they hold.
const SMALL: usize = 4 << 10;

/// One message with its prefix.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pieces: Vec<Bytes>,
    /// The memory that it takes; given back with it.
    charge: Option<Charge>,
}

/// The bytes of a message without its prefix, read from its pieces.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    current: &'a [u8],
    later: &'a [Bytes],
    left: usize,
}

/// Reads the messages of one body. After an error it is not to be asked again.
#[derive(Debug)]
pub(crate) struct Messages<B> {
    body: B,
    max: usize,
    budget: Budget,
    /// Arrived and not yet looked at.
    rest: Bytes,
    partial: Option<Partial>,
    trailers: Option<HeaderMap>,
}

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Its prefix begins with a flag that there is not.
    Flag(u8),
    /// It is longer than the limit.
    TooLong {
        /// Its bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// There is no memory for it.
    NoRoom(Error),
    /// The body broke, or ended in a message.
    Cut(String),
}

/// A message of which some has arrived.
#[derive(Debug)]
struct Partial {
    missing: usize,
    pieces: Vec<Bytes>,
    small: BytesMut,
    charge: Charge,
}

// === impl Message ===

impl Message {
    /// A message that is there as a whole, framed and not compressed.
    ///
    /// # Errors
    /// `INVALID_INPUT` if it is longer than a prefix can say.
    pub(crate) fn framed(message: &impl prost::Message) -> Result<Self, Error> {
        let len = message.encoded_len();
        let told = u32::try_from(len).map_err(|_| ReadError::TooLong { len, max: u32::MAX as usize }.of_client())?;
        let mut bytes = BytesMut::with_capacity(PREFIX + len);
        bytes.extend_from_slice(&[0]);
        bytes.extend_from_slice(&told.to_be_bytes());
        message.encode_raw(&mut bytes);
        Ok(bytes.freeze().into())
    }

    /// The pieces in their order, the prefix first.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The pieces, taken.
    pub(crate) fn into_pieces(self) -> (Vec<Bytes>, Option<Charge>) {
        (self.pieces, self.charge)
    }

    /// Whether its bytes are compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.pieces.first().is_some_and(|first| first.first() == Some(&1))
    }

    /// Reads its bytes, without the prefix.
    pub(crate) fn reader(&self) -> Reader<'_> {
        let (current, later) = self.pieces.split_first().map_or((&[][..], &[][..]), |(first, later)| (&**first, later));
        let left = self.pieces.iter().map(Bytes::len).sum();
        let mut reader = Reader { current, later, left };
        reader.renew();
        reader.advance(PREFIX.min(left));
        reader
    }
}

impl From<Bytes> for Message {
    /// Bytes that are framed already.
    fn from(framed: Bytes) -> Self {
        Self { pieces: vec![framed], charge: None }
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn renew(&mut self) {
        while self.current.is_empty()
            && let Some((next, later)) = self.later.split_first()
        {
            (self.current, self.later) = (next, later);
        }
    }
}

impl Buf for Reader<'_> {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.current
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.left, "{count} bytes are beyond the {} that are left", self.left);
        self.left -= count;
        while count > self.current.len() {
            count -= self.current.len();
            self.current = &[];
            self.renew();
        }
        self.current = &self.current[count..];
        self.renew();
    }
}

// === impl Messages ===

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    /// Messages of at most `max` bytes each.
    pub(crate) fn new(body: B, max: usize, budget: Budget) -> Self {
        Self { body, max, budget, rest: Bytes::new(), partial: None, trailers: None }
    }

    /// The next message, or `None` where the other side said that it sends no more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, ReadError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Messages::next`] as a poll.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, ReadError>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.feed(data)?,
                    Err(other) => self.trailers = other.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Err(ReadError::Cut(error.to_string()))),
                None => return Poll::Ready(self.end()),
            }
        }
    }

    /// The trailers, once there is no further message and if there were some.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn feed(&mut self, mut data: Bytes) -> Result<(), ReadError> {
        if let Some(partial) = &mut self.partial {
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
    fn take(&mut self) -> Result<Option<Message>, ReadError> {
        if let Some(partial) = self.partial.take_if(|partial| partial.missing == 0) {
            return Ok(Some(partial.finish()));
        }
        let Some(prefix) = self.rest.first_chunk::<PREFIX>().filter(|_| self.partial.is_none()) else {
            return Ok(None);
        };
        let len = PREFIX + length(*prefix, self.max)?;
        if len <= self.rest.len() {
            return Ok(Some(self.rest.split_to(len).into()));
        }
        let mut partial = Partial::new(len, self.budget.charge());
        partial.feed(&mut self.rest)?;
        self.partial = Some(partial);
        Ok(None)
    }

    fn end(&self) -> Result<Option<Message>, ReadError> {
        let missing = self.partial.as_ref().map_or(0, |partial| partial.missing);
        if missing == 0 && self.rest.is_empty() {
            return Ok(None);
        }
        let what =
            if missing == 0 { "in the prefix of a message".to_owned() } else { format!("{missing} bytes early") };
        Err(ReadError::Cut(format!("the call ends {what}")))
    }
}

/// Bytes of the message that a prefix stands before.
pub(super) fn length(prefix: [u8; PREFIX], max: usize) -> Result<usize, ReadError> {
    let [flag, len @ ..] = prefix;
    if flag > 1 {
        return Err(ReadError::Flag(flag));
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > max { Err(ReadError::TooLong { len, max }) } else { Ok(len) }
}

// === impl ReadError ===

impl ReadError {
    /// What it is where the client should have sent the message.
    pub(crate) fn of_client(self) -> Error {
        match self {
            Self::Flag(flag) => Error::invalid(format!("message has compressed-flag {flag}, expected 0 or 1")),
            Self::TooLong { len, max } => Error::invalid(format!("message has {len} bytes, the limit is {max}")),
            Self::NoRoom(error) => error,
            Self::Cut(why) => Error::new(Code::Cancelled, format!("the client is gone: {why}")),
        }
    }

    /// What it means where a replica should have sent the message, of which nothing more is read. The client can do
    /// nothing about it: what is too long is the handler's answer.
    pub(crate) fn of_replica(self, replica: &str) -> Event {
        let (code, what) = match self {
            Self::Flag(flag) => (Code::Internal, format!("has compressed-flag {flag}, expected 0 or 1")),
            Self::TooLong { len, max } => (Code::HandlerError, format!("has {len} bytes, the limit is {max}")),
            Self::NoRoom(error) => return Event::Failed { error, emitted: true },
            Self::Cut(why) => {
                tracing::debug!(why, "an answer broke");
                return Event::Broken { emitted: true };
            }
        };
        let error = Error::new(code, format!("the answer of replica '{replica}' {what}"));
        Event::Failed { error, emitted: true }
    }
}

// === impl Partial ===

impl Partial {
    fn new(len: usize, charge: Charge) -> Self {
        Self { missing: len, pieces: Vec::new(), small: BytesMut::new(), charge }
    }

    /// Takes what belongs to this message from the front of `data`.
    fn feed(&mut self, data: &mut Bytes) -> Result<(), ReadError> {
        let piece = data.split_to(self.missing.min(data.len()));
        self.charge.grow(piece.len()).map_err(ReadError::NoRoom)?;
        self.missing -= piece.len();
        if piece.len() < SMALL {
            self.small.extend_from_slice(&piece);
        } else {
            self.gather();
            self.pieces.push(piece);
        }
        Ok(())
    }

    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Message {
        self.gather();
        Message { pieces: self.pieces, charge: Some(self.charge) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn framed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &len[..], message].concat()
    }

    /// Every message of the frames; all is there, so nothing is ever pending.
    fn read(frames: Vec<Bytes>, max: usize, budget: &Budget) -> Result<Vec<Message>, ReadError> {
        let frames = frames.into_iter().map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let mut messages = Messages::new(StreamBody::new(stream::iter(frames)), max, budget.clone());
        let mut all = Vec::new();
        while let Some(message) = messages.next().now_or_never().unwrap()? {
            all.push(message);
        }
        Ok(all)
    }

    fn bytes(message: &Message) -> Vec<u8> {
        let mut reader = message.reader();
        reader.copy_to_bytes(reader.remaining()).into()
    }

    fn why(frames: Vec<Bytes>, max: usize) -> String {
        read(frames, max, &Budget::of(100)).unwrap_err().of_client().message.replace("the client is gone: ", "")
    }

    #[test]
    fn large_pieces_stay_where_they_are_with_the_prefix_before_them() {
        let whole = Bytes::from(framed(&vec![7; 3 * SMALL]));
        let budget = Budget::of(1 << 20);
        let one = read(vec![whole.clone()], 1 << 20, &budget).unwrap();
        assert_eq!(one[0].pieces()[0].as_ptr(), whole.as_ptr());
        let (first, second) = (whole.slice(..SMALL), whole.slice(SMALL..));
        let two = read(vec![first.clone(), second.clone()], 1 << 20, &budget).unwrap();
        let at: Vec<_> = two[0].pieces().iter().map(|piece| piece.as_ptr()).collect();
        assert_eq!(at, [first.as_ptr(), second.as_ptr()]);
        assert_eq!(bytes(&two[0]), vec![7; 3 * SMALL]);
    }

    #[test]
    fn many_small_pieces_are_gathered() {
        let sent = framed(&[1; 1000]);
        let frames = sent.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect();
        let messages = read(frames, 1000, &Budget::of(1 << 20)).unwrap();
        assert_eq!(messages[0].pieces(), [Bytes::from(sent)]);
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit_and_the_budget_and_no_longer() {
        for (len, fits) in [(99, true), (100, true), (101, false)] {
            assert_eq!(read(vec![framed(&vec![1; len]).into()], 100, &Budget::of(0)).is_ok(), fits, "{len}");
        }
        assert_eq!(why(vec![framed(&[1; 101]).into()], 100), "message has 101 bytes, the limit is 100");
        let split = || vec![framed(&[1; 95])[..50].to_vec().into(), framed(&[1; 95])[50..].to_vec().into()];
        for (budget, fits) in [(99, false), (100, true), (101, true)] {
            assert_eq!(read(split(), 1000, &Budget::of(budget)).is_ok(), fits, "{budget}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_no_fault_of_the_client() {
        let told = |error: ReadError| match error.of_replica("a") {
            Event::Failed { error, emitted: true } => (error.code, error.message),
            event => panic!("{event:?}"),
        };
        let long = (Code::HandlerError, "the answer of replica 'a' has 101 bytes, the limit is 100".to_owned());
        assert_eq!(told(ReadError::TooLong { len: 101, max: 100 }), long);
        assert_eq!(told(ReadError::Flag(2)).0, Code::Internal);
        let mut charge = Budget::of(1).charge();
        assert_eq!(told(ReadError::NoRoom(charge.grow(2).unwrap_err())).0, Code::Overloaded);
        assert_eq!(ReadError::Cut("early".into()).of_replica("a"), Event::Broken { emitted: true });
    }

    #[test]
    fn what_a_message_takes_is_given_back_with_it() {
        let budget = Budget::of(100);
        let split = || vec![framed(&[1; 95])[..50].to_vec().into(), framed(&[1; 95])[50..].to_vec().into()];
        let held = read(split(), 1000, &budget).unwrap();
        assert!(read(split(), 1000, &budget).is_err());
        drop(held);
        assert!(read(split(), 1000, &budget).is_ok());
    }

    #[test]
    fn a_call_that_ends_in_a_message_or_has_an_unknown_flag_is_an_error() {
        assert_eq!(why(vec![Bytes::from_static(&[0, 0, 0, 0, 3, 1])], 9), "the call ends 2 bytes early");
        assert_eq!(why(vec![Bytes::from_static(&[0, 0])], 9), "the call ends in the prefix of a message");
        assert_eq!(
            why(vec![Bytes::from_static(&[2, 0, 0, 0, 0])], 9),
            "message has compressed-flag 2, expected 0 or 1"
        );
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_split(
            sent in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            sizes in proptest::collection::vec(0..20_usize, 1..50),
        ) {
            let mut rest = Bytes::from(sent.iter().flat_map(|message| framed(message)).collect::<Vec<_>>());
            let mut frames = Vec::new();
            for size in sizes.iter().cycle().take(1000) {
                frames.push(rest.split_to((*size).min(rest.len())));
            }
            frames.push(rest);
            let read = read(frames, 100, &Budget::of(1 << 20)).unwrap();
            prop_assert_eq!(read.iter().map(bytes).collect::<Vec<_>>(), sent);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(data in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(vec![data.into()], 100, &Budget::of(100));
        }

        #[test]
        fn a_reader_reads_as_the_run_that_the_pieces_are(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6),
            takes in proptest::collection::vec(0..20_usize, 0..8),
        ) {
            let all: Vec<u8> = pieces.concat();
            let mut whole = &all[PREFIX.min(all.len())..];
            let message = Message { pieces: pieces.into_iter().map(Bytes::from).collect(), charge: None };
            let mut reader = message.reader();
            for take in takes {
                let take = take.min(whole.len());
                reader.advance(take);
                whole = &whole[take..];
                prop_assert_eq!((reader.remaining(), reader.has_remaining()), (whole.len(), !reader.chunk().is_empty()));
            }
            prop_assert_eq!(&*reader.copy_to_bytes(whole.len()), whole);
        }
    }
}
