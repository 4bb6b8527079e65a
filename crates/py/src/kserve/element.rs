//! Elements of tensors as Python's values: the typed lists of KServe, and the framing of BYTES.

use anyserve_core::{BytesReader, Datatype};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use super::tensor::Label;

/// One of the typed lists of KServe's `InferTensorContents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Bool,
    Int,
    Int64,
    Uint,
    Uint64,
    Fp32,
    Fp64,
    Bytes,
}

// === impl Field ===

impl Field {
    pub(super) const ALL: [Self; 8] =
        [Self::Bool, Self::Int, Self::Int64, Self::Uint, Self::Uint64, Self::Fp32, Self::Fp64, Self::Bytes];

    /// The list that holds this datatype; FP16 and BF16 have none.
    pub(super) fn of(datatype: Datatype) -> Option<Self> {
        Some(match datatype {
            Datatype::Bool => Self::Bool,
            Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Self::Int,
            Datatype::Int64 => Self::Int64,
            Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Self::Uint,
            Datatype::Uint64 => Self::Uint64,
            Datatype::Fp32 => Self::Fp32,
            Datatype::Fp64 => Self::Fp64,
            Datatype::Bytes => Self::Bytes,
            Datatype::Fp16 | Datatype::Bf16 => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool_contents",
            Self::Int => "int_contents",
            Self::Int64 => "int64_contents",
            Self::Uint => "uint_contents",
            Self::Uint64 => "uint64_contents",
            Self::Fp32 => "fp32_contents",
            Self::Fp64 => "fp64_contents",
            Self::Bytes => "bytes_contents",
        }
    }
}

/// The raw bytes of a tensor as a list of Python's values. A remainder that is no whole element is left out.
pub(super) fn list<'py>(py: Python<'py>, datatype: Datatype, data: &[u8]) -> PyResult<Bound<'py, PyList>> {
    match datatype {
        Datatype::Bool => PyList::new(py, data.iter().map(|byte| *byte != 0)),
        Datatype::Uint8 => PyList::new(py, data.iter().copied()),
        Datatype::Int8 => PyList::new(py, numbers(data, i8::from_le_bytes)),
        Datatype::Uint16 => PyList::new(py, numbers(data, u16::from_le_bytes)),
        Datatype::Int16 => PyList::new(py, numbers(data, i16::from_le_bytes)),
        Datatype::Uint32 => PyList::new(py, numbers(data, u32::from_le_bytes)),
        Datatype::Int32 => PyList::new(py, numbers(data, i32::from_le_bytes)),
        Datatype::Uint64 => PyList::new(py, numbers(data, u64::from_le_bytes)),
        Datatype::Int64 => PyList::new(py, numbers(data, i64::from_le_bytes)),
        Datatype::Fp32 => PyList::new(py, numbers(data, f32::from_le_bytes)),
        Datatype::Fp64 => PyList::new(py, numbers(data, f64::from_le_bytes)),
        Datatype::Bytes => byte_list(py, data),
        Datatype::Fp16 | Datatype::Bf16 => Ok(PyList::empty(py)),
    }
}

fn numbers<T, const N: usize>(data: &[u8], read: fn([u8; N]) -> T) -> impl ExactSizeIterator<Item = T> {
    data.as_chunks().0.iter().map(move |chunk| read(*chunk))
}

/// The elements of BYTES data.
pub(super) fn byte_list<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let elements: Vec<_> = BytesReader::new(data).flatten().map(|element| PyBytes::new(py, element)).collect();
    PyList::new(py, elements)
}

/// A typed list as raw bytes of this datatype, whose list it is.
///
/// # Errors
/// The label's error for an element that the datatype cannot hold; it names the place.
pub(super) fn raw(list: &Bound<'_, PyList>, datatype: Datatype, label: Label<'_>) -> PyResult<Vec<u8>> {
    match datatype {
        Datatype::Bool => packed(list, datatype, label, |truth: bool| [u8::from(truth)]),
        Datatype::Uint8 => packed(list, datatype, label, u8::to_le_bytes),
        Datatype::Int8 => packed(list, datatype, label, i8::to_le_bytes),
        Datatype::Uint16 => packed(list, datatype, label, u16::to_le_bytes),
        Datatype::Int16 => packed(list, datatype, label, i16::to_le_bytes),
        Datatype::Uint32 => packed(list, datatype, label, u32::to_le_bytes),
        Datatype::Int32 => packed(list, datatype, label, i32::to_le_bytes),
        Datatype::Uint64 => packed(list, datatype, label, u64::to_le_bytes),
        Datatype::Int64 => packed(list, datatype, label, i64::to_le_bytes),
        Datatype::Fp32 => packed(list, datatype, label, f32::to_le_bytes),
        Datatype::Fp64 => packed(list, datatype, label, f64::to_le_bytes),
        Datatype::Bytes => framed(list.iter(), list.len(), label),
        Datatype::Fp16 | Datatype::Bf16 => Ok(Vec::new()),
    }
}

fn packed<'py, T, const N: usize>(
    list: &Bound<'py, PyList>,
    datatype: Datatype,
    label: Label<'_>,
    write: impl Fn(T) -> [u8; N],
) -> PyResult<Vec<u8>>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    let mut out = Vec::with_capacity(list.len() * N);
    for (place, item) in list.iter().enumerate() {
        let Ok(value) = item.extract::<T>() else {
            return Err(label.error(list.py(), &format!("has {item:?} at {place}, which {datatype} cannot hold")));
        };
        out.extend_from_slice(&write(value));
    }
    Ok(out)
}

/// An array of text or objects as BYTES data, row by row.
pub(super) fn framed_array(array: &Bound<'_, PyAny>, label: Label<'_>) -> PyResult<Bytes> {
    let list = array.call_method0("ravel")?.call_method0("tolist")?.cast_into::<PyList>()?;
    Ok(framed(list.iter(), list.len(), label)?.into())
}

fn framed<'py>(items: impl Iterator<Item = Bound<'py, PyAny>>, count: usize, label: Label<'_>) -> PyResult<Vec<u8>> {
    let mut out = Vec::with_capacity(count * 16);
    for (place, item) in items.enumerate() {
        let bytes = bytes_of(&item, place, label)?;
        let len = u32::try_from(bytes.len())
            .map_err(|_| label.error(item.py(), &format!("has an element of 4 GiB or more at {place}")))?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

fn bytes_of<'a>(item: &'a Bound<'_, PyAny>, place: usize, label: Label<'_>) -> PyResult<&'a [u8]> {
    if let Ok(bytes) = item.cast::<PyBytes>() {
        return Ok(bytes.as_bytes());
    }
    if let Ok(text) = item.cast::<PyString>() {
        return Ok(text.to_str()?.as_bytes());
    }
    let kind = item.get_type().name()?.to_string();
    let text = format!(
        "has an element of type {kind} at {place}: an element of BYTES is bytes, or a str, which is sent as UTF-8"
    );
    Err(label.error(item.py(), &text))
}
