//! The elements of a tensor: from a JSON list, flat or nested, to raw bytes, and what an untyped one is made of.

use std::fmt;

use anyserve_core::Datatype;
use half::{bf16, f16};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Elements as raw bytes, and the shape that the lists have.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Elements {
    pub(super) raw: Vec<u8>,
    pub(super) shape: Vec<i64>,
    pub(super) count: usize,
}

/// Bounds of one tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Dimensions.
    pub(super) rank: usize,
    /// Bytes.
    pub(super) len: usize,
}

/// What takes the elements of a list, in their order.
trait Sink {
    fn truth(&mut self, value: bool) -> Result<(), String>;
    fn signed(&mut self, value: i64) -> Result<(), String>;
    fn unsigned(&mut self, value: u64) -> Result<(), String>;
    fn float(&mut self, value: f64) -> Result<(), String>;
    fn text(&mut self, value: &str) -> Result<(), String>;
}

/// Which kinds of elements there are.
#[derive(Debug, Default)]
struct Kinds {
    truths: bool,
    texts: bool,
    floats: bool,
    /// The least and the greatest whole number.
    wholes: Option<(i128, i128)>,
}

/// Writes elements of one datatype.
#[derive(Debug)]
struct Writer {
    datatype: Datatype,
    raw: Vec<u8>,
    max: usize,
    count: usize,
}

/// A list, or an element, at a depth of lists.
struct Walk<'a, S> {
    sink: &'a mut S,
    shape: &'a mut Shape,
    depth: usize,
}

/// The shape of lists, as far as they were seen.
#[derive(Debug)]
struct Shape {
    /// Lengths by depth; `None` while the first list of that depth is read.
    dims: Vec<Option<i64>>,
    /// The depth at which the elements are.
    leaves: Option<usize>,
    max_rank: usize,
}

/// The elements of a list as raw bytes. Without a datatype it is the one that they suggest.
///
/// # Errors
/// A sentence that names the element and what is wrong with it.
pub(super) fn read(
    data: &RawValue,
    datatype: Option<Datatype>,
    bounds: Bounds,
) -> Result<(Datatype, Elements), String> {
    let datatype = match datatype {
        Some(datatype) => datatype,
        None => suggested(data, bounds)?,
    };
    let mut writer = Writer { datatype, raw: Vec::new(), max: bounds.len, count: 0 };
    let shape = walk(data, &mut writer, bounds)?;
    Ok((datatype, Elements { raw: writer.raw, shape, count: writer.count }))
}

/// Texts are BYTES, truth values BOOL, whole numbers INT64, others FP64; an empty list is FP64.
fn suggested(data: &RawValue, bounds: Bounds) -> Result<Datatype, String> {
    let mut kinds = Kinds::default();
    walk(data, &mut kinds, bounds)?;
    kinds.datatype().ok_or_else(|| "its elements are of several kinds: say which datatype it has".to_owned())
}

fn walk<S: Sink>(data: &RawValue, sink: &mut S, bounds: Bounds) -> Result<Vec<i64>, String> {
    let mut shape = Shape { dims: Vec::new(), leaves: None, max_rank: bounds.rank };
    let mut deserializer = serde_json::Deserializer::from_str(data.get());
    let seed = Walk { sink, shape: &mut shape, depth: 0 };
    seed.deserialize(&mut deserializer).map_err(|error| reason(&error.to_string()))?;
    shape.finish()
}

/// What is wrong, without the line and column: they are of the input and not of the body.
fn reason(error: &str) -> String {
    error.rsplit_once(" at line ").map_or(error, |(reason, _)| reason).to_owned()
}

// === impl Walk ===

impl<'de, S: Sink> DeserializeSeed<'de> for Walk<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<S: Sink> Walk<'_, S> {
    fn leaf<E: Error>(self, put: impl FnOnce(&mut S) -> Result<(), String>) -> Result<(), E> {
        self.shape.leaf(self.depth).and_then(|()| put(self.sink)).map_err(E::custom)
    }
}

impl<'de, S: Sink> Visitor<'de> for Walk<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, a truth value, or a list of them")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.leaf(|sink| sink.truth(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.leaf(|sink| sink.signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.leaf(|sink| sink.unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.leaf(|sink| sink.float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.leaf(|sink| sink.text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { sink, shape, depth } = self;
        shape.enter(depth).map_err(A::Error::custom)?;
        let mut len = 0;
        while list.next_element_seed(Walk { sink, shape, depth: depth + 1 })?.is_some() {
            len += 1;
        }
        shape.leave(depth, len).map_err(A::Error::custom)
    }
}

// === impl Shape ===

impl Shape {
    fn enter(&mut self, depth: usize) -> Result<(), String> {
        if depth >= self.max_rank {
            return Err(format!("more than {} dimensions", self.max_rank));
        }
        if self.leaves.is_some_and(|leaves| leaves <= depth) {
            return Err(ragged());
        }
        if self.dims.len() == depth {
            self.dims.push(None);
        }
        Ok(())
    }

    fn leave(&mut self, depth: usize, len: i64) -> Result<(), String> {
        match &mut self.dims[depth] {
            Some(known) if *known != len => Err(ragged()),
            known => {
                *known = Some(len);
                Ok(())
            }
        }
    }

    fn leaf(&mut self, depth: usize) -> Result<(), String> {
        let fits = *self.leaves.get_or_insert(depth) == depth && self.dims.len() == depth;
        if fits { Ok(()) } else { Err(ragged()) }
    }

    fn finish(self) -> Result<Vec<i64>, String> {
        self.dims.into_iter().collect::<Option<_>>().ok_or_else(ragged)
    }
}

fn ragged() -> String {
    "its lists differ in length or depth".to_owned()
}

// === impl Kinds ===

impl Kinds {
    fn datatype(&self) -> Option<Datatype> {
        match (self.truths, self.texts, self.wholes, self.floats) {
            (true, false, None, false) => Some(Datatype::Bool),
            (false, true, None, false) => Some(Datatype::Bytes),
            (false, false, Some((_, greatest)), false) if i64::try_from(greatest).is_ok() => Some(Datatype::Int64),
            (false, false, Some((least, _)), false) if least >= 0 => Some(Datatype::Uint64),
            (false, false, _, _) => Some(Datatype::Fp64),
            _ => None,
        }
    }

    fn whole(&mut self, value: i128) {
        let (least, greatest) = self.wholes.unwrap_or((value, value));
        self.wholes = Some((least.min(value), greatest.max(value)));
    }
}

impl Sink for Kinds {
    fn truth(&mut self, _: bool) -> Result<(), String> {
        self.truths = true;
        Ok(())
    }

    fn signed(&mut self, value: i64) -> Result<(), String> {
        self.whole(value.into());
        Ok(())
    }

    fn unsigned(&mut self, value: u64) -> Result<(), String> {
        self.whole(value.into());
        Ok(())
    }

    fn float(&mut self, _: f64) -> Result<(), String> {
        self.floats = true;
        Ok(())
    }

    fn text(&mut self, _: &str) -> Result<(), String> {
        self.texts = true;
        Ok(())
    }
}

// === impl Writer ===

impl Writer {
    /// Takes an element in; one that does not fit is told with its place.
    fn element(&mut self, put: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        put(self).map_err(|why| format!("element {}: {why}", self.count))?;
        self.count += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), String> {
        let len = self.raw.len().saturating_add(bytes.len());
        if len > self.max {
            return Err(format!("more than {} bytes", self.max));
        }
        self.raw.extend_from_slice(bytes);
        Ok(())
    }

    fn whole(&mut self, value: i128) -> Result<(), String> {
        let out_of_range = |_| self.out_of_range(&value);
        match self.datatype {
            Datatype::Bool => match value {
                0 => self.put(&[0]),
                1 => self.put(&[1]),
                _ => Err(format!("{value} is neither true nor false")),
            },
            Datatype::Uint8 => self.put(&u8::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Uint16 => self.put(&u16::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Uint32 => self.put(&u32::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Uint64 => self.put(&u64::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Int8 => self.put(&i8::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Int16 => self.put(&i16::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Int32 => self.put(&i32::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Int64 => self.put(&i64::try_from(value).map_err(out_of_range)?.to_le_bytes()),
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => self.real(nearest(value)),
            Datatype::Bytes => Err(self.wrong(&value)),
        }
    }

    /// A number of a datatype with a fraction, rounded to the nearest. One that is finite stays so.
    fn real(&mut self, value: f64) -> Result<(), String> {
        let rounded = match self.datatype {
            Datatype::Fp16 => f16::from_f64(value).to_f64(),
            Datatype::Bf16 => bf16::from_f64(value).to_f64(),
            Datatype::Fp32 => single(value).into(),
            _ => value,
        };
        if value.is_finite() && !rounded.is_finite() {
            return Err(self.out_of_range(&format_args!("{value:e}")));
        }
        match self.datatype {
            Datatype::Fp16 => self.put(&f16::from_f64(value).to_le_bytes()),
            Datatype::Bf16 => self.put(&bf16::from_f64(value).to_le_bytes()),
            Datatype::Fp32 => self.put(&single(value).to_le_bytes()),
            Datatype::Fp64 => self.put(&value.to_le_bytes()),
            _ => Err(self.wrong(&format_args!("{value:?}"))),
        }
    }

    fn string(&mut self, value: &str) -> Result<(), String> {
        let special = match value {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        };
        match (self.datatype, special) {
            (Datatype::Bytes, _) => {
                let len = u32::try_from(value.len()).map_err(|_| "a text of 4 GiB or more".to_owned())?;
                self.put(&len.to_le_bytes())?;
                self.put(value.as_bytes())
            }
            (_, Some(number)) => self.real(number),
            _ => Err(self.wrong(&format_args!("'{}'", value.chars().take(40).collect::<String>()))),
        }
    }

    fn wrong(&self, value: &dyn fmt::Display) -> String {
        format!("{value} is no element of {}", self.datatype)
    }

    fn out_of_range(&self, value: &dyn fmt::Display) -> String {
        format!("{value} is out of range for {}", self.datatype)
    }
}

#[allow(clippy::cast_precision_loss, reason = "rounded to the nearest, as every number that JSON writes")]
fn nearest(value: i128) -> f64 {
    value as f64
}

#[allow(clippy::cast_possible_truncation, reason = "rounded to the nearest, as every number that JSON writes")]
fn single(value: f64) -> f32 {
    value as f32
}

impl Sink for Writer {
    fn truth(&mut self, value: bool) -> Result<(), String> {
        self.element(|writer| match writer.datatype {
            Datatype::Bool => writer.whole(i128::from(value)),
            _ => Err(writer.wrong(&value)),
        })
    }

    fn signed(&mut self, value: i64) -> Result<(), String> {
        self.element(|writer| writer.whole(i128::from(value)))
    }

    fn unsigned(&mut self, value: u64) -> Result<(), String> {
        self.element(|writer| writer.whole(i128::from(value)))
    }

    fn float(&mut self, value: f64) -> Result<(), String> {
        self.element(|writer| writer.real(value))
    }

    fn text(&mut self, value: &str) -> Result<(), String> {
        self.element(|writer| writer.string(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { rank: 3, len: 100 };

    fn try_read(text: &str, datatype: Option<Datatype>) -> Result<(Datatype, Elements), String> {
        read(serde_json::from_str(text).unwrap(), datatype, BOUNDS)
    }

    fn suggests(text: &str) -> Option<(&'static str, Vec<i64>)> {
        try_read(text, None).ok().map(|(datatype, elements)| (datatype.name(), elements.shape))
    }

    #[test]
    fn untyped_lists_have_the_datatype_and_shape_of_their_elements() {
        assert_eq!(suggests(r#"["a", "b"]"#), Some(("BYTES", vec![2])));
        assert_eq!(suggests("[[1, 2, -3]]"), Some(("INT64", vec![1, 3])));
        assert_eq!(suggests("[1, 2.5]"), Some(("FP64", vec![2])));
        assert_eq!(suggests("[[true], [false]]"), Some(("BOOL", vec![2, 1])));
        assert_eq!(suggests("[18446744073709551615, 0]"), Some(("UINT64", vec![2])));
        assert_eq!(suggests("[18446744073709551615, -1]"), Some(("FP64", vec![2])));
        assert_eq!(suggests("7"), Some(("INT64", vec![])));
        assert_eq!(suggests("[]"), Some(("FP64", vec![0])));
        assert_eq!(suggests("[[], []]"), Some(("FP64", vec![2, 0])));
        for text in [r#"["a", 1]"#, "[true, 1]", "[null]", "[{}]"] {
            assert_eq!(suggests(text), None, "{text}");
        }
    }

    #[test]
    fn lists_that_differ_in_length_or_depth_and_too_many_dimensions_are_refused() {
        for text in ["[[1], [1, 2]]", "[1, [1]]", "[[1], 1]", "[[], 1]", "[[], [1]]", "[[[]], []]"] {
            assert_eq!(try_read(text, None).unwrap_err(), ragged(), "{text}");
        }
        for (text, fits) in [("[[1]]", true), ("[[[1]]]", true), ("[[[[1]]]]", false)] {
            assert_eq!(try_read(text, None).is_ok(), fits, "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(serde_json::from_str::<&RawValue>(&deep).is_err());
    }

    #[test]
    fn numbers_are_written_in_their_datatype_up_to_its_limits() {
        use Datatype::{Bf16, Fp16, Fp32, Int8, Uint8};
        let raw = |text: &str, datatype| try_read(text, Some(datatype)).map(|(_, elements)| elements.raw);
        assert_eq!(raw("[-128, 127]", Int8), Ok(vec![0x80, 0x7f]));
        assert_eq!(raw("[0, 255]", Uint8), Ok(vec![0, 0xff]));
        for (text, datatype) in [("[-129]", Int8), ("[128]", Int8), ("[-1]", Uint8), ("[256]", Uint8), ("[1.5]", Uint8)]
        {
            assert!(raw(text, datatype).is_err(), "{text}");
        }
        assert_eq!(raw("[1, -2]", Fp16), Ok(vec![0, 0x3c, 0, 0xc0]));
        assert_eq!(raw("[1]", Bf16), Ok(vec![0x80, 0x3f]));
        assert_eq!(raw(r#"["-Infinity"]"#, Fp32), Ok(f32::NEG_INFINITY.to_le_bytes().to_vec()));
        assert_eq!(raw("[true, 0]", Datatype::Bool), Ok(vec![1, 0]));
        for (text, datatype, fits) in [
            ("[3.4028234e38]", Fp32, true),
            ("[-3.5e38]", Fp32, false),
            ("[65504]", Fp16, true),
            ("[65520]", Fp16, false),
            ("[1e300]", Bf16, false),
        ] {
            assert_eq!(raw(text, datatype).is_ok(), fits, "{text}");
        }
        assert!(raw("[2]", Datatype::Bool).is_err() && raw("[true]", Fp32).is_err() && raw(r#"["1"]"#, Fp32).is_err());
    }

    #[test]
    fn an_element_that_does_not_fit_is_told_with_its_place_and_the_datatype() {
        let why = |text: &str, datatype| try_read(text, Some(datatype)).unwrap_err();
        assert_eq!(why("[[1, 2], [3, 300]]", Datatype::Uint8), "element 3: 300 is out of range for UINT8");
        assert_eq!(why("[1e39]", Datatype::Fp32), "element 0: 1e39 is out of range for FP32");
        assert_eq!(why("[1, 2.5]", Datatype::Int32), "element 1: 2.5 is no element of INT32");
        assert_eq!(why(r#"["hi at line 3"]"#, Datatype::Fp32), "element 0: 'hi at line 3' is no element of FP32");
    }

    #[test]
    fn a_tensor_may_be_as_long_as_its_limit_and_no_longer() {
        let texts = |len: usize| format!("[\"{}\"]", "x".repeat(len));
        for (len, fits) in [(95, true), (96, true), (97, false)] {
            assert_eq!(try_read(&texts(len), Some(Datatype::Bytes)).is_ok(), fits, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(text in r#"[\[\],0-9a"tru.e-]{0,20}"#) {
            if let Ok(data) = serde_json::from_str::<&RawValue>(&text) {
                for datatype in Datatype::all().map(Some).chain([None]) {
                    if let Ok((datatype, elements)) = read(data, datatype, BOUNDS) {
                        let expected: i64 = elements.shape.iter().product();
                        prop_assert_eq!(i64::try_from(elements.count).unwrap(), expected);
                        let size = datatype.size().map(|size| size * elements.count);
                        prop_assert!(size.is_none_or(|size| size == elements.raw.len()));
                    }
                }
            }
        }
    }
}
