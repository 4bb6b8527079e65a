//! Typed contents of an input, turned into raw bytes: in the runtime's memory if they are large.

use anyserve_core::{Datatype, Error, TensorRoom};
use anyserve_proto::inference::InferTensorContents;
use bytes::{Bytes, BytesMut};

use super::raw::Named;
use crate::rooms::Rooms;

/// Turns the typed contents of an input of `count` elements into raw bytes.
///
/// # Errors
/// `INVALID_INPUT` where another field than the datatype's is filled, the number of elements is another, or an
/// element is outside of the datatype.
pub(super) fn to_raw(
    named: Named<'_>,
    datatype: Datatype,
    count: usize,
    contents: InferTensorContents,
    rooms: &Rooms,
) -> Result<Bytes, Error> {
    let got = check_field(named, datatype, &contents)?;
    if got != count {
        let field = field_of(datatype).unwrap_or("contents");
        return Err(Error::invalid(format!("{named} has {got} elements in {field}, expected {count}")));
    }
    pack(datatype, contents, rooms).map_err(|odd| odd.error(named, datatype))
}

/// The field that elements of a datatype stand in; FP16 and BF16 have none.
fn field_of(datatype: Datatype) -> Option<&'static str> {
    match datatype {
        Datatype::Bool => Some("bool_contents"),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Some("int_contents"),
        Datatype::Int64 => Some("int64_contents"),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Some("uint_contents"),
        Datatype::Uint64 => Some("uint64_contents"),
        Datatype::Fp32 => Some("fp32_contents"),
        Datatype::Fp64 => Some("fp64_contents"),
        Datatype::Bytes => Some("bytes_contents"),
        Datatype::Fp16 | Datatype::Bf16 => None,
    }
}

/// Every field with its number of elements.
fn fields(contents: &InferTensorContents) -> [(&'static str, usize); 8] {
    [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ]
}

/// Refuses every filled field but the datatype's own, whose number of elements it returns.
fn check_field(named: Named<'_>, datatype: Datatype, contents: &InferTensorContents) -> Result<usize, Error> {
    let own = field_of(datatype);
    let mut got = 0;
    for (field, len) in fields(contents).into_iter().filter(|(_, len)| *len > 0) {
        match own {
            Some(own) if own == field => got = len,
            Some(own) => {
                return Err(Error::invalid(format!("{named} is {datatype}: it belongs in {own}, not in {field}")));
            }
            None => {
                return Err(Error::invalid(format!("{named} is {datatype}: only raw_input_contents can carry it")));
            }
        }
    }
    Ok(got)
}

/// An element that its datatype cannot hold.
struct Odd {
    element: usize,
    value: String,
}

impl Odd {
    fn error(self, named: Named<'_>, datatype: Datatype) -> Error {
        let Self { element, value } = self;
        Error::invalid(format!("element {element} of {named} is {value}: out of range for {datatype}"))
    }
}

/// Where elements are packed to.
enum Packed {
    Heap(BytesMut),
    Room {
        room: Box<dyn TensorRoom>,
        /// Elements are gathered before they are written: a room is far away, and one element is small.
        stage: BytesMut,
    },
}

/// Bytes that are gathered.
const STAGE: usize = 4 << 10;

fn pack(datatype: Datatype, contents: InferTensorContents, rooms: &Rooms) -> Result<Bytes, Odd> {
    match datatype {
        Datatype::Bool => Ok(all(contents.bool_contents, |value| [u8::from(value)], rooms)),
        Datatype::Int8 => narrow(contents.int_contents, i8::to_le_bytes, rooms),
        Datatype::Int16 => narrow(contents.int_contents, i16::to_le_bytes, rooms),
        Datatype::Int32 => Ok(all(contents.int_contents, i32::to_le_bytes, rooms)),
        Datatype::Int64 => Ok(all(contents.int64_contents, i64::to_le_bytes, rooms)),
        Datatype::Uint8 => narrow(contents.uint_contents, u8::to_le_bytes, rooms),
        Datatype::Uint16 => narrow(contents.uint_contents, u16::to_le_bytes, rooms),
        Datatype::Uint32 => Ok(all(contents.uint_contents, u32::to_le_bytes, rooms)),
        Datatype::Uint64 => Ok(all(contents.uint64_contents, u64::to_le_bytes, rooms)),
        Datatype::Fp32 => Ok(all(contents.fp32_contents, f32::to_le_bytes, rooms)),
        Datatype::Fp64 => Ok(all(contents.fp64_contents, f64::to_le_bytes, rooms)),
        Datatype::Bytes => framed(&contents.bytes_contents, rooms),
        Datatype::Fp16 | Datatype::Bf16 => Ok(Bytes::new()),
    }
}

fn all<T, const N: usize>(values: Vec<T>, to_le: impl Fn(T) -> [u8; N], rooms: &Rooms) -> Bytes {
    let mut packed = Packed::new(values.len() * N, rooms);
    for value in values {
        packed.write(&to_le(value));
    }
    packed.freeze()
}

fn narrow<T, U, const N: usize>(values: Vec<T>, to_le: impl Fn(U) -> [u8; N], rooms: &Rooms) -> Result<Bytes, Odd>
where
    T: Copy + std::fmt::Display,
    U: TryFrom<T>,
{
    let mut packed = Packed::new(values.len() * N, rooms);
    for (element, value) in values.into_iter().enumerate() {
        let small = U::try_from(value).map_err(|_| Odd { element, value: value.to_string() })?;
        packed.write(&to_le(small));
    }
    Ok(packed.freeze())
}

fn framed(values: &[Bytes], rooms: &Rooms) -> Result<Bytes, Odd> {
    let len: usize = values.iter().map(|value| value.len() + 4).sum();
    let mut packed = Packed::new(len, rooms);
    for (element, value) in values.iter().enumerate() {
        let len = u32::try_from(value.len());
        let len = len.map_err(|_| Odd { element, value: format!("{} bytes long", value.len()) })?;
        packed.write(&len.to_le_bytes());
        packed.write(value);
    }
    Ok(packed.freeze())
}

// === impl Packed ===

impl Packed {
    /// For exactly `len` bytes.
    fn new(len: usize, rooms: &Rooms) -> Self {
        match rooms.take(len) {
            Some(room) => Self::Room { room, stage: BytesMut::with_capacity(STAGE) },
            None => Self::Heap(BytesMut::with_capacity(len)),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Heap(packed) => packed.extend_from_slice(bytes),
            Self::Room { stage, .. } if stage.len() + bytes.len() <= STAGE => stage.extend_from_slice(bytes),
            Self::Room { room, stage } => {
                room.write(stage);
                room.write(bytes);
                stage.clear();
            }
        }
    }

    fn freeze(self) -> Bytes {
        match self {
            Self::Heap(packed) => packed.freeze(),
            Self::Room { mut room, stage } => {
                room.write(&stage);
                room.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::shelf::Shelf;

    const NAMED: Named<'_> = Named { input: "x", model: "m" };

    fn raw(datatype: Datatype, count: usize, contents: InferTensorContents) -> Result<Vec<u8>, String> {
        to_raw(NAMED, datatype, count, contents, &Rooms::new(None)).map(Vec::from).map_err(|error| error.message)
    }

    fn ints(values: &[i32]) -> InferTensorContents {
        InferTensorContents { int_contents: values.to_vec(), ..Default::default() }
    }

    fn uints(values: &[u32]) -> InferTensorContents {
        InferTensorContents { uint_contents: values.to_vec(), ..Default::default() }
    }

    #[test]
    fn every_datatype_with_a_field_is_packed_little_endian() {
        let contents = InferTensorContents {
            bool_contents: vec![true],
            int64_contents: vec![-2],
            uint64_contents: vec![3],
            fp32_contents: vec![1.5],
            fp64_contents: vec![-0.25],
            bytes_contents: vec![Bytes::from_static(b"a\0")],
            ..Default::default()
        };
        let only = |datatype| {
            let mut one = contents.clone();
            one.bool_contents.truncate(usize::from(datatype == Datatype::Bool));
            one.int64_contents.truncate(usize::from(datatype == Datatype::Int64));
            one.uint64_contents.truncate(usize::from(datatype == Datatype::Uint64));
            one.fp32_contents.truncate(usize::from(datatype == Datatype::Fp32));
            one.fp64_contents.truncate(usize::from(datatype == Datatype::Fp64));
            one.bytes_contents.truncate(usize::from(datatype == Datatype::Bytes));
            raw(datatype, 1, one).unwrap()
        };
        assert_eq!(only(Datatype::Bool), [1]);
        assert_eq!(only(Datatype::Int64), (-2_i64).to_le_bytes());
        assert_eq!(only(Datatype::Uint64), 3_u64.to_le_bytes());
        assert_eq!(only(Datatype::Fp32), 1.5_f32.to_le_bytes());
        assert_eq!(only(Datatype::Fp64), (-0.25_f64).to_le_bytes());
        assert_eq!(only(Datatype::Bytes), [2, 0, 0, 0, b'a', 0]);
        assert_eq!(raw(Datatype::Int32, 1, ints(&[-5])).unwrap(), (-5_i32).to_le_bytes());
        assert_eq!(raw(Datatype::Uint32, 1, uints(&[5])).unwrap(), 5_u32.to_le_bytes());
    }

    #[test]
    fn narrow_integers_go_to_their_bounds_and_no_further() {
        assert_eq!(raw(Datatype::Int8, 2, ints(&[-128, 127])).unwrap(), [0x80, 0x7f]);
        assert_eq!(raw(Datatype::Uint8, 2, uints(&[0, 255])).unwrap(), [0, 255]);
        assert_eq!(raw(Datatype::Int16, 1, ints(&[-32768])).unwrap(), [0, 0x80]);
        assert_eq!(raw(Datatype::Uint16, 1, uints(&[65535])).unwrap(), [255, 255]);
        let error = "element 1 of input 'x' for model 'm' is 128: out of range for INT8";
        assert_eq!(raw(Datatype::Int8, 2, ints(&[0, 128])).unwrap_err(), error);
        assert!(raw(Datatype::Int8, 1, ints(&[-129])).is_err());
        assert!(raw(Datatype::Int16, 1, ints(&[32768])).is_err());
        assert!(raw(Datatype::Uint8, 1, uints(&[256])).is_err());
        assert!(raw(Datatype::Uint16, 1, uints(&[65536])).is_err());
    }

    #[test]
    fn another_field_or_a_second_one_is_an_error() {
        let error = "input 'x' for model 'm' is FP32: it belongs in fp32_contents, not in int_contents";
        assert_eq!(raw(Datatype::Fp32, 1, ints(&[1])).unwrap_err(), error);
        let both = InferTensorContents { fp32_contents: vec![1.0], ..ints(&[1]) };
        assert_eq!(raw(Datatype::Fp32, 1, both).unwrap_err(), error);
    }

    #[test]
    fn half_floats_are_only_raw() {
        for datatype in [Datatype::Fp16, Datatype::Bf16] {
            let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
            assert!(raw(datatype, 1, contents).unwrap_err().contains("only raw_input_contents can carry it"));
            assert!(raw(datatype, 1, InferTensorContents::default()).unwrap_err().contains("has 0 elements"));
        }
    }

    #[test]
    fn the_number_of_elements_must_be_the_shapes() {
        let error = "input 'x' for model 'm' has 2 elements in int_contents, expected 3";
        assert_eq!(raw(Datatype::Int32, 3, ints(&[1, 2])).unwrap_err(), error);
        assert_eq!(raw(Datatype::Int32, 0, InferTensorContents::default()).unwrap(), [0; 0]);
    }

    fn floats(count: usize) -> InferTensorContents {
        InferTensorContents { fp32_contents: vec![1.5; count], ..Default::default() }
    }

    #[test]
    fn contents_are_packed_into_a_room_from_the_threshold_on() {
        let shelf = Shelf::new(40_000, usize::MAX);
        let rooms = Rooms::new(Some(shelf.memory()));
        for (count, large) in [(9_999, false), (10_000, true), (10_001, true)] {
            let data = to_raw(NAMED, Datatype::Fp32, count, floats(count), &rooms).unwrap();
            assert_eq!(shelf.has(&data), large);
            assert_eq!(data, 1.5_f32.to_le_bytes().repeat(count));
        }
        let contents = InferTensorContents {
            bytes_contents: vec![Bytes::from(vec![7; 39_991]), Bytes::from_static(b"a")],
            ..Default::default()
        };
        let data = to_raw(NAMED, Datatype::Bytes, 2, contents, &rooms).unwrap();
        assert!(shelf.has(&data) && data.ends_with(&[7, 1, 0, 0, 0, b'a']));
        drop(data);
        assert_eq!(shelf.held(), 0);
    }

    #[test]
    fn a_room_is_given_back_where_an_element_is_odd_and_the_heap_serves_where_there_is_none() {
        let shelf = Shelf::new(4, 4);
        let rooms = Rooms::new(Some(shelf.memory()));
        assert!(to_raw(NAMED, Datatype::Int8, 4, ints(&[1, 2, 3, 128]), &rooms).is_err());
        assert_eq!((shelf.asked(), shelf.held()), (1, 0));
        let data = to_raw(NAMED, Datatype::Int8, 5, ints(&[1, 2, 3, 4, 5]), &rooms).unwrap();
        assert!(data == [1, 2, 3, 4, 5][..] && !shelf.has(&data));
    }
}
