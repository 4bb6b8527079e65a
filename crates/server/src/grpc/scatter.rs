//! A message taken apart while it arrives: large tensors go to the runtime's memory, everything else stays together.
//!
//! ```text
//! frames   ▒▒▒▒▒██ ███████ ███▒▒█████ ████▒
//!             │ each byte is moved once
//! plain    ▒▒▒▒▒▒▒▒         on the heap, charged to the budget
//! rooms    █████████████  ██████████      each on a 64-byte boundary
//! ```
//!
//! The keys and lengths of the tensors stay in the plain bytes, so that the pieces one after the other are the message.
//! Nothing is reserved for a tensor that the message cannot have; a room is bounded by the memory that it is of, and
//! given back if the message does not come to its end.

use anyserve_core::{Error, TensorRoom};
use bytes::{Bytes, BytesMut};

use super::pieces::Pieces;
use super::scan::{Scanner, Step};
use crate::budget::Charge;
use crate::rooms::Rooms;

/// The largest piece of the heap that is reserved before its bytes have arrived.
pub(super) const MAX_AHEAD: usize = 16 << 20;

/// What fills up a room.
static ZEROS: [u8; 4096] = [0; 4096];

/// A message of which some has arrived.
#[derive(Debug)]
pub(super) struct Gather {
    scanner: Scanner,
    charge: Charge,
    /// Bytes that may be reserved for what is announced, even if fewer have come.
    max_ahead: usize,
    plain: BytesMut,
    /// Tensors that are complete, and how many of the plain bytes stand before each.
    tensors: Vec<(usize, Bytes)>,
    /// Where the tensor goes that is coming in.
    room: Option<Box<dyn TensorRoom>>,
}

// === impl Gather ===

impl Gather {
    /// For a message of `len` bytes.
    pub(super) fn new(len: usize, charge: Charge) -> Self {
        let scanner = Scanner::new(len, charge.rooms().threshold());
        Self::with(scanner, MAX_AHEAD, charge)
    }

    /// For a message that has at most `max` bytes.
    pub(super) fn up_to(max: usize, charge: Charge) -> Self {
        let scanner = Scanner::new(max, charge.rooms().threshold());
        Self::with(scanner, 0, charge)
    }

    /// For `len` bytes that are no message yet.
    pub(super) fn opaque(len: usize, charge: Charge) -> Self {
        Self::with(Scanner::opaque(len), MAX_AHEAD, charge)
    }

    fn with(scanner: Scanner, max_ahead: usize, charge: Charge) -> Self {
        Self { scanner, charge, max_ahead, plain: BytesMut::new(), tensors: Vec::new(), room: None }
    }

    /// Takes the next bytes of the message.
    ///
    /// # Errors
    /// `OVERLOADED` where there is no memory for them.
    pub(super) fn feed(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            match self.scanner.next(data) {
                Step::Tensor(len) => self.room = self.charge.rooms().take(len),
                Step::Bytes(taken) => {
                    let (run, rest) = data.split_at(taken);
                    self.put(run)?;
                    data = rest;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, run: &[u8]) -> Result<(), Error> {
        let Some(room) = &mut self.room else { return self.keep(run) };
        room.write(run);
        if let Some(room) = self.room.take_if(|room| room.missing() == 0) {
            self.tensors.push((self.plain.len(), room.freeze()));
        }
        Ok(())
    }

    fn keep(&mut self, run: &[u8]) -> Result<(), Error> {
        self.charge.grow(run.len())?;
        let have = self.plain.len();
        if self.plain.capacity() - have < run.len() {
            let ahead = self.scanner.announced().min(self.max_ahead.max(have));
            self.plain.reserve(run.len() + ahead);
        }
        self.plain.extend_from_slice(run);
        Ok(())
    }

    /// Bytes of the heap that are reserved.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.plain.capacity()
    }

    /// The message as far as it has come, and what its plain bytes were charged.
    pub(super) fn finish(mut self) -> (Pieces, Charge) {
        if let Some(room) = self.room.take() {
            self.tensors.push((self.plain.len(), begun(room)));
        }
        let mut plain = self.plain.freeze();
        let (mut pieces, mut before) = (Pieces::default(), 0);
        for (at, tensor) in self.tensors {
            pieces.push(plain.split_to(at - before));
            pieces.push(tensor);
            before = at;
        }
        pieces.push(plain);
        (pieces, self.charge)
    }
}

/// The bytes that are in a room, where no more come: prost is to find what the client sent, so that it tells of it.
fn begun(mut room: Box<dyn TensorRoom>) -> Bytes {
    let missing = room.missing();
    while room.missing() > 0 {
        room.write(&ZEROS[..room.missing().min(ZEROS.len())]);
    }
    let mut bytes = room.freeze();
    bytes.truncate(bytes.len() - missing);
    bytes
}

/// Takes apart a message that is all there. What is no large tensor stays where it lies.
pub(super) fn whole(mut data: Bytes, rooms: &Rooms) -> Pieces {
    let mut scanner = Scanner::new(data.len(), rooms.threshold());
    let (mut pieces, mut plain, mut open) = (Pieces::default(), 0, None);
    while plain < data.len() {
        match (scanner.next(&data[plain..]), open.take()) {
            (Step::Tensor(len), _) => open = rooms.take(len),
            (Step::Bytes(taken), None) => plain += taken,
            (Step::Bytes(taken), Some(room)) => {
                pieces.push(data.split_to(plain));
                pieces.push(moved(&data.split_to(taken), room));
                plain = 0;
            }
        }
    }
    pieces.push(data);
    pieces
}

fn moved(tensor: &[u8], mut room: Box<dyn TensorRoom>) -> Bytes {
    room.write(tensor);
    room.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::compression::Encoding;
    use super::super::framing::{FrameLimits, Message, Messages};
    use super::*;
    use crate::body::Chunks;
    use crate::budget::Budget;
    use crate::rooms::shelf::Shelf;
    use anyserve_core::Code;
    use anyserve_proto::inference::infer_parameter::ParameterChoice;
    use anyserve_proto::inference::model_infer_request::InferInputTensor;
    use anyserve_proto::inference::{InferParameter, ModelInferRequest};
    use futures_util::{FutureExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use prost::Message as _;
    use std::convert::Infallible;
    use std::sync::Arc;

    const LARGE: usize = 50;
    const MAX: usize = 100_000;

    fn shelf() -> Arc<Shelf> {
        Shelf::new(LARGE, usize::MAX)
    }

    fn budget(shelf: &Arc<Shelf>, max: usize) -> Budget {
        Budget::new(max, Rooms::new(Some(shelf.memory())))
    }

    fn framed(message: &[u8], flag: u8) -> Bytes {
        let len = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag], &len[..], message].concat().into()
    }

    fn split(mut bytes: Bytes, sizes: &[usize]) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for size in sizes.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            frames.push(bytes.split_to((*size).min(bytes.len())));
        }
        frames
    }

    /// The message that the frames are; all is there, so nothing is ever pending.
    fn receive(frames: Vec<Bytes>, encoding: Encoding, budget: Budget) -> Result<Message, Error> {
        let frames = frames.into_iter().map(|data| Ok::<_, Infallible>(Frame::data(data)));
        let limits = FrameLimits { max_message: MAX, encoding, budget };
        let mut messages = Messages::new(StreamBody::new(stream::iter(frames)), limits);
        messages.next().now_or_never().unwrap().map(Option::unwrap)
    }

    fn compressed(message: &[u8]) -> Vec<u8> {
        let mut chunks = Chunks::default();
        chunks.push(Bytes::copy_from_slice(message));
        Encoding::Gzip.compress(chunks)
    }

    /// The message on every way that it can come in, one after the other: in these frames, in one, and compressed.
    fn on_every_way(message: &[u8], sizes: &[usize], budget: &Budget) -> impl Iterator<Item = Result<Message, Error>> {
        let (plain, packed) = (framed(message, 0), framed(&compressed(message), 1));
        let ways = [
            (split(plain.clone(), sizes), Encoding::Identity),
            (vec![plain], Encoding::Identity),
            (split(packed.clone(), sizes), Encoding::Gzip),
            (vec![packed], Encoding::Gzip),
        ];
        ways.into_iter().map(|(frames, encoding)| receive(frames, encoding, budget.clone()))
    }

    fn decoded(message: Result<Message, Error>) -> Result<ModelInferRequest, prost::DecodeError> {
        message.unwrap().data.decode()
    }

    fn request(raws: Vec<Vec<u8>>, note: &str) -> ModelInferRequest {
        let input = |place| InferInputTensor { name: format!("x{place}"), shape: vec![place], ..Default::default() };
        let value = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(note.into())) };
        ModelInferRequest {
            model_name: note.into(),
            parameters: [(note.to_owned(), value)].into(),
            inputs: (0..3).map(input).collect(),
            raw_input_contents: raws.into_iter().map(Bytes::from).collect(),
            ..Default::default()
        }
    }

    fn raw(len: usize) -> Vec<u8> {
        request(vec![vec![1; len]], "").encode_to_vec()
    }

    #[test]
    fn tensors_are_in_rooms_from_the_threshold_on() {
        for (len, large) in [(LARGE - 1, false), (LARGE, true), (LARGE + 1, true)] {
            let shelf = shelf();
            for message in on_every_way(&raw(len), &[7], &budget(&shelf, MAX)) {
                let request = decoded(message).unwrap();
                assert_eq!(shelf.has(&request.raw_input_contents[0]), large, "{len}");
                assert_eq!(shelf.held(), if large { len } else { 0 });
            }
            assert_eq!(shelf.held(), 0);
        }
    }

    #[test]
    fn in_one_frame_nothing_but_large_tensors_is_moved() {
        let shelf = shelf();
        let frame = framed(&request(vec![vec![1; 40], vec![2; 60], vec![3; 40]], "m").encode_to_vec(), 0);
        let message = receive(vec![frame.clone()], Encoding::Identity, budget(&shelf, 0));
        let raws = decoded(message).unwrap().raw_input_contents;
        let lies = |raw: &Bytes| frame.as_ptr_range().contains(&raw.as_ptr());
        assert_eq!((lies(&raws[0]), shelf.has(&raws[1]), lies(&raws[2])), (true, true, true));
    }

    #[test]
    fn tensors_in_rooms_are_not_charged_and_those_without_room_are() {
        let (message, sizes) = (raw(1000), [300]);
        let charged = |room: usize, heap: usize| {
            let shelf = Shelf::new(LARGE, room);
            let frames = split(framed(&message, 0), &sizes);
            receive(frames, Encoding::Identity, budget(&shelf, heap)).map(|message| message.data)
        };
        assert!(charged(1000, message.len() - 1000).is_ok());
        assert_eq!(charged(1000, message.len() - 1001).unwrap_err().code, Code::Overloaded);
        assert!(charged(999, message.len()).is_ok());
        assert_eq!(charged(999, message.len() - 1).unwrap_err().code, Code::Overloaded);
    }

    #[test]
    fn memory_without_room_is_as_good_as_none() {
        let message = request(vec![vec![1; 70], vec![2; 40], vec![3; 60]], "m");
        let shelf = Shelf::new(LARGE, 69);
        for received in on_every_way(&message.encode_to_vec(), &[11], &budget(&shelf, MAX)) {
            let received = decoded(received).unwrap();
            let places: Vec<_> = received.raw_input_contents.iter().map(|raw| shelf.has(raw)).collect();
            assert_eq!((places, received), (vec![false, false, true], message.clone()));
        }
    }

    #[test]
    fn a_promise_takes_one_room_and_no_heap_and_is_given_back_with_what_has_come() {
        const PROMISE: usize = 1 << 30;
        // Nothing of it is written to: a shelf that only counts would hold it, a real one takes real memory.
        let shelf = Shelf::new(LARGE, 1 << 20);
        let budget = budget(&shelf, MAX);
        let key_and_len = [58, 0x80, 0x80, 0x80, 0x80, 4, 1];
        let mut gather = Gather::new(PROMISE + 6, budget.charge());
        gather.feed(&key_and_len[..6]).unwrap();
        assert_eq!((shelf.asked(), gather.reserved() < 100), (0, true));
        gather.feed(&key_and_len[6..]).unwrap();
        assert_eq!((shelf.asked(), shelf.held()), (1, 0));
        assert!(gather.reserved() <= 2 * MAX_AHEAD);

        let mut gather = Gather::new((1 << 20) + 4, budget.charge());
        gather.feed(&[58, 0x80, 0x80, 0x40, 1]).unwrap();
        assert_eq!((shelf.asked(), shelf.held(), gather.reserved() < 100), (2, 1 << 20, true));
        gather.feed(&[1; 1000]).unwrap();
        assert_eq!((shelf.asked(), gather.reserved() < 100), (2, true));
        drop(gather);
        assert_eq!(shelf.held(), 0);
    }

    #[test]
    fn a_small_compressed_message_cannot_ask_for_a_large_room() {
        let shelf = Shelf::new(LARGE, usize::MAX);
        // 90 000 bytes are announced, 8 are there: not even as zeros could so few bytes become as many.
        let broken = [58, 0x90, 0xbf, 5, 1, 1, 1, 1];
        let frame = framed(&compressed(&broken), 1);
        assert!(frame.len() * 1032 < 90_000);
        let message = receive(vec![frame], Encoding::Gzip, budget(&shelf, MAX));
        assert_eq!(decoded(message), ModelInferRequest::decode(&broken[..]));
        assert_eq!(shelf.asked(), 0);
    }

    #[test]
    fn a_compressed_message_that_ends_in_a_tensor_is_refused_as_without_rooms() {
        let shelf = shelf();
        let whole = raw(1000);
        let broken = &whole[..whole.len() - 1];
        for message in on_every_way(broken, &[100], &budget(&shelf, MAX)) {
            assert_eq!(decoded(message), ModelInferRequest::decode(broken));
        }
        assert_eq!((shelf.asked(), shelf.held()), (2, 0));
    }

    prop_compose! {
        /// A message as a client may send it: with tensors around the threshold and with fields that there are not.
        fn any_message()(
            lens in proptest::collection::vec(prop_oneof![0..10_usize, LARGE - 2..LARGE + 3, 200..2000_usize], 0..6),
            note in ".{0,70}",
            unknown in prop_oneof![
                Just(vec![]),
                Just(vec![0xa0, 1, 0x96, 1]),
                Just(vec![0xa2, 1, 3, 58, 60, 1]),
                Just(vec![0xa1, 1, 1, 2, 3, 4, 5, 6, 7, 8]),
            ],
        ) -> Vec<u8> {
            let raws = lens.iter().enumerate().map(|(place, len)| vec![u8::try_from(place).unwrap(); *len]).collect();
            let message = request(raws, &note);
            let tail = ModelInferRequest { raw_input_contents: message.raw_input_contents.clone(), ..Default::default() };
            [message.encode_to_vec(), unknown, tail.encode_to_vec()].concat()
        }
    }

    proptest! {
        #[test]
        fn any_message_is_received_as_prost_reads_it(
            message in any_message(),
            sizes in proptest::collection::vec(1..300_usize, 1..20),
        ) {
            let shelf = shelf();
            let expected = ModelInferRequest::decode(&*message).unwrap();
            for received in on_every_way(&message, &sizes, &budget(&shelf, MAX)) {
                let received = decoded(received).unwrap();
                for raw in &received.raw_input_contents {
                    prop_assert!(shelf.has(raw) == (raw.len() >= LARGE));
                }
                prop_assert_eq!(received, expected.clone());
            }
            prop_assert_eq!(shelf.held(), 0);
        }

        #[test]
        fn a_broken_message_is_refused_as_prost_refuses_it(
            mut message in any_message(),
            sizes in proptest::collection::vec(1..300_usize, 1..20),
            breaks in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
            end in 0..10_usize,
        ) {
            let shelf = shelf();
            message.truncate(message.len() - end.min(message.len()));
            for (place, byte) in breaks {
                let len = message.len().max(1);
                if let Some(own) = message.get_mut(place % len) {
                    *own = byte;
                }
            }
            let expected = ModelInferRequest::decode(&*message);
            for received in on_every_way(&message, &sizes, &budget(&shelf, MAX)) {
                prop_assert_eq!(decoded(received), expected.clone());
            }
            prop_assert_eq!(shelf.held(), 0);
        }
    }
}
