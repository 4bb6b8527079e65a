//! Where the large tensors of a `ModelInferRequest` stand, told while its bytes arrive.
//!
//! ```text
//! Key ─┬─► Value ────────────────► Key         a varint
//!      ├─► Field(4 or 8) ────────► Key         a number of fixed size
//!      ├─► Length ─┬─► Field(n) ─► Key         anything else with a length
//!      │           └─► Found(n) ─► Tensor(n) ─► Key    raw_input_contents from the threshold on
//!      └─► Opaque                              whatever is not understood, up to the message's end
//! ```
//!
//! Only the top level of the message is looked at, and nothing is judged: bytes that are no message are opaque, and
//! prost says later what is wrong with them. It holds no bytes and reserves nothing.

/// Walks over one message. Whatever it is fed with, it comes to an end.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// Bytes that the message can still have.
    left: usize,
    threshold: usize,
}

/// What the bytes are that the scanner was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes, at least one, belong together: to a tensor that was told of before, or to none.
    Bytes(usize),
    /// Next comes a tensor of so many bytes, which the message can still have. No byte was taken.
    Tensor(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a field's key.
    Key(Varint),
    /// In the value of a varint field.
    Value(Varint),
    /// In the length of a field.
    Length { raw: bool, varint: Varint },
    /// So many bytes of a field are to come.
    Field(usize),
    /// A large tensor comes, and nobody was told yet.
    Found(usize),
    /// So many bytes of a large tensor are to come.
    Tensor(usize),
    /// No more is understood.
    Opaque,
}

/// A varint of which some bytes have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Varint {
    value: u64,
    bytes: u32,
}

/// What a byte made of a varint.
enum Grown {
    Partial(Varint),
    Whole(u64),
    Broken,
}

/// Field 7 with a length: `raw_input_contents`.
const RAW: u64 = 7 << 3 | 2;

/// Where every field begins.
const KEY: State = State::Key(Varint { value: 0, bytes: 0 });

/// The longest varint.
const MAX_VARINT: u32 = 10;

// === impl Scanner ===

impl Scanner {
    /// For a message of at most `len` bytes, in which tensors are large from `threshold` bytes on.
    pub(super) fn new(len: usize, threshold: usize) -> Self {
        // A tensor has a key and a length: one as long as the message does not fit in.
        let state = if len > threshold { KEY } else { State::Opaque };
        Self { state, left: len, threshold }
    }

    /// For `len` bytes that nothing is to be known of.
    pub(super) fn opaque(len: usize) -> Self {
        Self { state: State::Opaque, left: len, threshold: usize::MAX }
    }

    /// Bytes of the field in which the taken bytes end that are still to come, as its length says.
    pub(super) fn announced(&self) -> usize {
        match self.state {
            State::Field(left) | State::Tensor(left) => left,
            State::Opaque => self.left,
            State::Key(_) | State::Value(_) | State::Length { .. } | State::Found(_) => 0,
        }
    }

    /// What comes next. `data` is what follows the bytes that were taken so far, and not empty.
    pub(super) fn next(&mut self, data: &[u8]) -> Step {
        if let State::Found(len) = self.state {
            self.state = State::Tensor(len);
            return Step::Tensor(len);
        }
        let in_tensor = matches!(self.state, State::Tensor(_));
        let mut taken = self.take(data);
        while !in_tensor && taken < data.len() && !matches!(self.state, State::Found(_)) {
            taken += self.take(&data[taken..]);
        }
        Step::Bytes(taken)
    }

    /// Takes some of `data`, which is not empty.
    fn take(&mut self, data: &[u8]) -> usize {
        let taken = match self.state {
            State::Field(left) | State::Tensor(left) => left.min(data.len()),
            State::Opaque => data.len(),
            State::Key(_) | State::Value(_) | State::Length { .. } | State::Found(_) => 1,
        };
        self.left = self.left.saturating_sub(taken);
        self.state = self.after(taken, data[0]);
        taken
    }

    /// The state after so many bytes, of which a varint reads the first.
    fn after(&self, taken: usize, byte: u8) -> State {
        match self.state {
            State::Key(varint) => match varint.grown(byte) {
                Grown::Partial(varint) => State::Key(varint),
                Grown::Whole(key) => of_key(key),
                Grown::Broken => State::Opaque,
            },
            State::Value(varint) => match varint.grown(byte) {
                Grown::Partial(varint) => State::Value(varint),
                Grown::Whole(_) => KEY,
                Grown::Broken => State::Opaque,
            },
            State::Length { raw, varint } => match varint.grown(byte) {
                Grown::Partial(varint) => State::Length { raw, varint },
                Grown::Whole(len) => self.of_length(raw, len),
                Grown::Broken => State::Opaque,
            },
            State::Field(left) if left > taken => State::Field(left - taken),
            State::Tensor(left) if left > taken => State::Tensor(left - taken),
            State::Field(_) | State::Tensor(_) => KEY,
            State::Found(_) | State::Opaque => self.state,
        }
    }

    fn of_length(&self, raw: bool, len: u64) -> State {
        match usize::try_from(len) {
            Ok(0) => KEY,
            Ok(len) if len > self.left => State::Opaque,
            Ok(len) if raw && len >= self.threshold => State::Found(len),
            Ok(len) => State::Field(len),
            Err(_) => State::Opaque,
        }
    }
}

fn of_key(key: u64) -> State {
    // A key has 32 bits, and there is no field 0.
    if u32::try_from(key).is_err() || key >> 3 == 0 {
        return State::Opaque;
    }
    match key & 7 {
        0 => State::Value(Varint::default()),
        1 => State::Field(8),
        2 => State::Length { raw: key == RAW, varint: Varint::default() },
        5 => State::Field(4),
        _ => State::Opaque,
    }
}

// === impl Varint ===

impl Varint {
    fn grown(self, byte: u8) -> Grown {
        let value = self.value | u64::from(byte & 0x7f) << (7 * self.bytes);
        let bytes = self.bytes + 1;
        match byte {
            // The tenth byte has room for one bit.
            2.. if bytes == MAX_VARINT => Grown::Broken,
            0x80.. => Grown::Partial(Self { value, bytes }),
            _ => Grown::Whole(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: [usize; 0] = [];

    fn raw(len: u8) -> Vec<u8> {
        [&[58, len][..], &vec![1; usize::from(len)]].concat()
    }

    /// Lengths of the tensors that are found in a message which comes in pieces of `size` bytes.
    fn walk(message: &[u8], threshold: usize, size: usize) -> Vec<usize> {
        let mut scanner = Scanner::new(message.len(), threshold);
        let (mut found, mut open, mut walked) = (Vec::new(), 0, 0);
        for mut piece in message.chunks(size) {
            while !piece.is_empty() {
                match scanner.next(piece) {
                    Step::Tensor(len) => {
                        assert_eq!(open, 0);
                        open = len;
                        found.push(len);
                    }
                    Step::Bytes(taken) => {
                        assert!(taken > 0 && (open == 0 || taken <= open));
                        open -= taken.min(open);
                        walked += taken;
                        piece = &piece[taken..];
                    }
                }
            }
        }
        assert_eq!((walked, open), (message.len(), 0));
        found
    }

    fn tensors(message: &[u8], threshold: usize) -> Vec<usize> {
        let found = walk(message, threshold, message.len().max(1));
        assert_eq!(walk(message, threshold, 1), found);
        found
    }

    #[test]
    fn tensors_are_found_from_the_threshold_on() {
        let message = [raw(9), vec![10, 1, b'm'], raw(10), raw(0), raw(11)].concat();
        assert_eq!(tensors(&message, 10), [10, 11]);
        assert_eq!(tensors(&message, 12), NONE);
    }

    #[test]
    fn fields_of_every_wire_type_are_passed_over() {
        let before: [&[u8]; 5] =
            [&[0x48, 0xff, 1], &[0x49, 1, 2, 3, 4, 5, 6, 7, 8], &[0x4d, 1, 2, 3, 4], &[0x4a, 2, 58, 9], &[0x4a, 0]];
        for before in before {
            assert_eq!(tensors(&[before, &raw(9)].concat(), 9), [9], "{before:?}");
        }
    }

    #[test]
    fn what_is_not_understood_makes_the_rest_opaque() {
        let group: &[u8] = &[0x4b, 0x4c];
        let broken: &[u8] = &[0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        let large_key: &[u8] = &[0x88, 0x80, 0x80, 0x80, 0x10, 1];
        for odd in [&[0, 0], &[7, 0], &[0x4e, 0], &[0x4f, 0], group, broken, large_key, &[0x4a, 0x7f]] {
            assert_eq!(tensors(&[odd, &raw(9)].concat(), 9), NONE, "{odd:?}");
        }
        let longest: &[u8] = &[0x48, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(tensors(&[longest, &raw(9)].concat(), 9), [9]);
    }

    #[test]
    fn a_tensor_may_be_as_long_as_the_message_has_left_and_no_longer() {
        let promise = |left: usize| [&[58, 50][..], &vec![0; left]].concat();
        assert_eq!(tensors(&promise(51), 20), [50]);
        assert_eq!(tensors(&promise(50), 20), [50]);
        assert_eq!(tensors(&promise(49), 20), NONE);
        let boundless = [58, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(tensors(&boundless, 5), NONE);
    }

    #[test]
    fn only_bytes_that_belong_to_a_known_field_are_announced() {
        let mut scanner = Scanner::new(200, 20);
        assert_eq!((scanner.next(&[10]), scanner.announced()), (Step::Bytes(1), 0));
        assert_eq!((scanner.next(&[100, 1]), scanner.announced()), (Step::Bytes(2), 99));
        assert_eq!((scanner.next(&[0; 99]), scanner.announced()), (Step::Bytes(99), 0));
        assert_eq!((scanner.next(&[58, 60, 1]), scanner.announced()), (Step::Bytes(2), 0));
        assert_eq!((scanner.next(&[1]), scanner.announced()), (Step::Tensor(60), 60));
        assert_eq!((scanner.next(&[1]), scanner.announced()), (Step::Bytes(1), 59));
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_over_to_the_end(
            data in proptest::collection::vec(prop_oneof![any::<u8>(), Just(58), 0..9_u8], 0..100),
            size in 1..30_usize,
            threshold in 1..20_usize,
        ) {
            prop_assert_eq!(walk(&data, threshold, size), tensors(&data, threshold));
        }
    }
}
