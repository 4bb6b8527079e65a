//! Objects are read as they were written, and any bytes are an object or an error.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

use anyserve_core::{Datatype, elements};
use anyserve_shm::object::{Kind, MAX_PARTS, MAX_RANK, Object, ObjectError, Part, Plan};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

/// A part that owns what it is made of.
#[derive(Clone, Debug)]
struct Made {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    data: Vec<u8>,
    plain: bool,
}

impl Made {
    fn new(datatype: Datatype, shape: &[i64], seed: u64) -> Self {
        let count = elements(shape).unwrap();
        let data = match datatype.size() {
            Some(size) => bytes_of(seed, count * size),
            None => (0..count).flat_map(|item| framed(&bytes_of(seed, item * 3 % 20))).collect(),
        };
        Self { name: String::new(), datatype, shape: shape.to_vec(), data, plain: false }
    }

    fn plain(content: &[u8]) -> Self {
        let shape = vec![i64::try_from(content.len()).unwrap()];
        Self { name: String::new(), datatype: Datatype::Uint8, shape, data: content.to_vec(), plain: true }
    }

    fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    fn part(&self) -> Part<'_> {
        let Self { name, datatype, shape, data, plain } = self;
        Part { name, datatype: *datatype, shape, data, plain: *plain }
    }
}

fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|place| seed.wrapping_mul(place * 2 + 0x9E37_79B9).to_le_bytes()[3]).collect()
}

fn framed(item: &[u8]) -> Vec<u8> {
    [&u32::try_from(item.len()).unwrap().to_le_bytes(), item].concat()
}

fn plan(kind: Kind, parts: &[Made], sum: bool) -> Result<Plan, ObjectError> {
    Plan::of(kind, &parts.iter().map(Made::part).collect::<Vec<_>>(), sum)
}

/// The object's bytes, as whoever follows the plan writes them.
fn written(kind: Kind, parts: &[Made], sum: bool) -> Vec<u8> {
    let plan = plan(kind, parts, sum).unwrap();
    let mut bytes = vec![0xEE; usize::try_from(plan.len).unwrap()];
    bytes[..plan.header.len()].copy_from_slice(&plan.header);
    for (part, offset) in parts.iter().zip(plan.offsets) {
        let offset = usize::try_from(offset).unwrap();
        if let Some(prefix) = part.part().prefix() {
            bytes[offset - 4..offset].copy_from_slice(&prefix);
        }
        bytes[offset..offset + part.data.len()].copy_from_slice(&part.data);
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<Object, ObjectError> {
    Object::read(&Bytes::copy_from_slice(bytes))
}

/// Reads bytes of any kind, and looks at all that comes of it.
fn survives(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(object) = Object::read(&bytes) else { return };
    let range = bytes.as_ptr_range();
    for part in &object.parts {
        let data = part.tensor.data.as_ptr_range();
        assert!(data.is_empty() || range.start <= data.start && data.end <= range.end, "a part is outside");
        if let Some(size) = part.tensor.datatype.size() {
            assert_eq!(elements(&part.tensor.shape).unwrap() * size, part.tensor.data.len());
        }
    }
    let _ = object.verify();
}

fn is_read_as_written(kind: Kind, parts: &[Made], sum: bool) {
    let object = read(&written(kind, parts, sum)).unwrap();
    assert_eq!((object.kind, object.checksum.is_some(), object.parts.len()), (kind, sum, parts.len()));
    for (read, made) in object.parts.iter().zip(parts) {
        let tensor = &read.tensor;
        assert_eq!((&tensor.name, tensor.datatype, &tensor.shape), (&made.name, made.datatype, &made.shape));
        assert!(tensor.data == made.data && tensor.parameters.is_empty());
        assert_eq!(read.framed.as_deref().map(<[u8]>::to_vec), made.plain.then(|| framed(&made.data)));
    }
    object.verify().unwrap();
}

fn made() -> impl Strategy<Value = Made> {
    let shape = prop_oneof![
        8 => prop::collection::vec(0..5_i64, 0..4),
        1 => (0..=MAX_RANK).prop_map(|rank| vec![1; rank]),
        1 => Just(vec![i64::MAX, 0, i64::MAX]),
    ];
    let array = (0..14_u32, shape, any::<u64>())
        .prop_map(|(number, shape, seed)| Made::new(Datatype::from_number(number).unwrap(), &shape, seed));
    let plain = prop::collection::vec(any::<u8>(), 0..200).prop_map(|content| Made::plain(&content));
    prop_oneof![4 => array, 1 => plain]
}

fn dict() -> impl Strategy<Value = Vec<Made>> {
    let name = |(place, (made, name)): (usize, (Made, String))| made.named(&format!("{name}{place}"));
    let parts = prop::collection::vec((made(), "[a-zäß 字]{0,8}"), 0..12);
    parts.prop_map(move |parts| parts.into_iter().enumerate().map(name).collect())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_object_is_read_as_it_was_written(parts in dict(), sum: bool) {
        is_read_as_written(Kind::Dict, &parts, sum);
        if let Some(part) = parts.first() {
            is_read_as_written(if part.plain { Kind::Bytes } else { Kind::Array }, &parts[..1], sum);
        }
    }

    #[test]
    fn a_flipped_bit_of_an_array_is_found_by_the_checksum(parts in dict(), pick: usize, bit in 0..8_u32) {
        let mut bytes = written(Kind::Dict, &parts, true);
        let offsets = plan(Kind::Dict, &parts, true).unwrap().offsets;
        // The lengths within BYTES are looked at before; a flipped one is an error of its own.
        let fixed = |(part, offset): (&Made, u64)| {
            let offset = usize::try_from(offset).unwrap();
            if part.datatype.size().is_some() { offset..offset + part.data.len() } else { 0..0 }
        };
        let places: Vec<_> = parts.iter().zip(offsets).flat_map(fixed).collect();
        prop_assume!(!places.is_empty());
        bytes[places[pick % places.len()]] ^= 1 << bit;
        let error = read(&bytes).unwrap().verify().unwrap_err();
        let wrong = matches!(error, ObjectError::Checksum { got, expected } if got != expected);
        prop_assert!(wrong, "{}", error);
    }

    #[test]
    fn any_bytes_are_an_object_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
        for (kind, count) in [(0, 1), (1, 1), (2, bytes.len() % 5)] {
            let head = [b'A', b'O', b'B', b'J', 1, kind, u8::try_from(count).unwrap(), 0];
            let len = u32::try_from(bytes.len() + 12).unwrap().to_le_bytes();
            survives(&[&head[..], &len, &bytes].concat());
        }
    }

    #[test]
    fn a_changed_object_is_an_object_or_an_error(parts in dict(), changes in prop::collection::vec(any::<(usize, u8)>(), 1..4)) {
        let mut bytes = written(Kind::Dict, &parts, true);
        let len = bytes.len();
        for (place, byte) in changes {
            bytes[place % len] = byte;
        }
        survives(&bytes);
    }
}

fn sample() -> Vec<Made> {
    vec![
        Made::new(Datatype::Fp32, &[3, 5], 7).named("weights"),
        Made::new(Datatype::Bytes, &[2, 2], 8).named("words"),
        Made::plain(b"text").named("plain"),
        Made::new(Datatype::Int8, &[70], 9).named("last"),
    ]
}

#[test]
fn each_bit_of_a_header_may_be_wrong_and_each_byte_may_be_anything() {
    let good = written(Kind::Dict, &sample(), true);
    let header = plan(Kind::Dict, &sample(), true).unwrap().header.len();
    for place in 0..header {
        for value in [0, 1, 2, 14, 31, 33, 0x7F, 0x80, 0xFF].into_iter().chain((0..8).map(|bit| good[place] ^ 1 << bit))
        {
            let mut bytes = good.clone();
            bytes[place] = value;
            survives(&bytes);
        }
    }
}

#[test]
fn an_object_that_is_cut_off_is_none_at_any_length() {
    let good = written(Kind::Dict, &sample(), true);
    for len in 0..good.len() {
        assert!(read(&good[..len]).is_err(), "{len} of {} bytes", good.len());
    }
    let longer = [&good[..], &[1, 2, 3]].concat();
    assert_eq!(read(&longer).unwrap().parts, read(&good).unwrap().parts, "a block may be longer than its object");
}

/// Offsets within the header of an object of one INT8 array `[4]` without a name.
fn with(changes: &[(usize, &[u8])]) -> Result<Object, ObjectError> {
    let mut bytes = written(Kind::Array, &[Made::new(Datatype::Int8, &[4], 1)], false);
    for (place, change) in changes {
        bytes[*place..place + change.len()].copy_from_slice(change);
    }
    read(&bytes)
}

#[test]
fn what_a_header_may_not_say_is_told() {
    let number = |what, number| Err(ObjectError::Number { what, number });
    assert!(with(&[]).is_ok());
    assert_eq!(with(&[(0, b"X")]), Err(ObjectError::Header { len: 68 }));
    assert_eq!(with(&[(4, &[2])]), Err(ObjectError::Version { got: 2 }));
    assert_eq!(with(&[(5, &[3])]), number("kind", 3));
    for count in [0, 2] {
        assert_eq!(with(&[(6, &[count])]), number("parts", count.into()));
    }
    assert_eq!(with(&[(12, &[1])]), number("reserved", 1));
    assert_eq!(with(&[(26, &[14])]), number("datatype", 14));
    assert_eq!(with(&[(27, &[2])]), number("flags", 2));
    assert_eq!(with(&[(28, &[33])]), number("rank", 33));
    assert_eq!(with(&[(29, &[1])]), number("reserved", 1));
    let part = |offset, len| Err(ObjectError::Part { name: String::new(), offset, len });
    assert_eq!(with(&[(32, &[65]), (40, &[3]), (48, &[3])]), part(65, 3), "not on a boundary of 64 bytes");
    assert_eq!(with(&[(32, &[0])]), part(0, 4), "that is the header");
    assert_eq!(with(&[(32, &[0xC0; 8]), (40, &[0xFF; 8])]), part(0xC0C0_C0C0_C0C0_C0C0, u64::MAX));
    assert_eq!(with(&[(40, &[5])]), part(64, 5));
    assert_eq!(with(&[(48, &[3])]), part(64, 4), "shape [3]");
    assert_eq!(with(&[(48, &[0xFF; 8])]), part(64, 4), "shape [-1]");
    assert_eq!(with(&[(27, &[1])]), part(64, 4), "plain, and no UINT8");
    assert_eq!(with(&[(5, &[1])]), part(64, 4), "bytes, and not plain");
    assert_eq!(with(&[(8, &[57])]), number("header length", 57), "a byte of the header is nothing's");
    assert!(matches!(with(&[(8, &[55])]), Err(ObjectError::Header { .. })));
    for name in [&b"\xFF"[..], b"\xC3"] {
        assert_eq!(with(&[(8, &[57]), (24, &[1]), (56, name)]), Err(ObjectError::Name { len: 1 }));
    }
}

#[test]
fn two_parts_of_one_name_are_none() {
    let parts = [Made::plain(b"1").named("same"), Made::plain(b"2").named("same")];
    assert_eq!(read(&written(Kind::Dict, &parts, false)), Err(ObjectError::Twice { name: "same".to_owned() }));
}

#[test]
fn parts_that_lie_in_each_other_are_none() {
    let parts = [Made::plain(&[1; 100]).named("a"), Made::plain(&[2; 100]).named("b")];
    let mut bytes = written(Kind::Dict, &parts, false);
    let second = 24 + 24 + 8 + 1;
    assert_eq!(bytes[second + 8..second + 10], [0, 1], "it begins at 256");
    bytes[second + 8..second + 10].copy_from_slice(&[192, 0]);
    bytes.copy_within(256.., 192);
    assert_eq!(read(&bytes), Err(ObjectError::Part { name: "b".to_owned(), offset: 192, len: 100 }));
}

#[test]
fn bytes_whose_lengths_do_not_add_up_are_none() {
    for (data, shape) in [(&[5, 0, 0, 0, 1][..], 1), (&[0, 0, 0], 1), (&[0, 0, 0, 0], 2), (&[0xFF; 8], 1), (&[], 1)] {
        let made = Made { data: data.to_vec(), ..Made::new(Datatype::Bytes, &[shape], 0) };
        let error = read(&written(Kind::Array, &[made], false)).unwrap_err();
        assert!(matches!(error, ObjectError::Part { .. }), "{data:?}: {error}");
    }
}

#[test]
fn a_dict_has_parts_names_and_dimensions_up_to_their_limits() {
    let many = |count: usize| -> Vec<_> {
        (0..count).map(|place| Made::new(Datatype::Bool, &[], 1).named(&place.to_string())).collect()
    };
    is_read_as_written(Kind::Dict, &many(MAX_PARTS - 1), true);
    is_read_as_written(Kind::Dict, &many(MAX_PARTS), true);
    let number = |what, number| Err(ObjectError::Number { what, number });
    assert_eq!(plan(Kind::Dict, &many(MAX_PARTS + 1), true), number("parts", 1025));
    assert_eq!(plan(Kind::Dict, &many(1 << 16), true), number("parts", 1 << 16));
    for kind in [Kind::Array, Kind::Bytes] {
        assert_eq!(plan(kind, &[], true), number("parts", 0));
        assert_eq!(plan(kind, &many(2), true), number("parts", 2));
    }
    let ranked = |rank| [Made::new(Datatype::Bool, &vec![1; rank], 1)];
    is_read_as_written(Kind::Array, &ranked(MAX_RANK), true);
    assert_eq!(plan(Kind::Array, &ranked(MAX_RANK + 1), true), number("rank", 33));
    let long = |len| [Made::plain(b"").named(&"n".repeat(len))];
    is_read_as_written(Kind::Bytes, &long(65_535), true);
    assert_eq!(plan(Kind::Bytes, &long(65_536), true), number("name length", 65_536));
    is_read_as_written(Kind::Dict, &[], true);
}

#[test]
fn a_header_has_a_megabyte_and_no_more() {
    // 24 bytes, then 17 parts of 24 bytes, one dimension of 8 and a name.
    let names = (1 << 20) - 24 - 17 * 32;
    let parts = |more: usize| -> Vec<_> {
        let len = |place| if place == 0 { names + more - 16 * 62_000 } else { 62_000 };
        let name = |place| format!("{place:02}{}", "n".repeat(len(place) - 2));
        (0..17).map(|place| Made::plain(b"x").named(&name(place))).collect()
    };
    is_read_as_written(Kind::Dict, &parts(0), true);
    let error = ObjectError::Number { what: "header length", number: (1 << 20) + 1 };
    assert_eq!(plan(Kind::Dict, &parts(1), true), Err(error));
}
