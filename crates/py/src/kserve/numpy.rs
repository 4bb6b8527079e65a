//! NumPy arrays from tensors and tensors from NumPy arrays.

use anyserve_core::Datatype;
use bytes::Bytes;
use half::bf16;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyList};
use pyo3::{IntoPyObjectExt, intern};

use super::buffer::{Borrowed, Buffer};
use super::contents::Payload;
use super::element;
use super::tensor::{Label, datatype_named, tuple_of};
use crate::objref::ObjRef;

/// What is needed of NumPy, looked up once.
pub(crate) struct Numpy {
    ndarray: Py<PyAny>,
    array: Py<PyAny>,
    asarray: Py<PyAny>,
    pub(super) contiguous: Py<PyAny>,
    /// The type that `as_numpy` gives, by the datatype's number.
    dtypes: Vec<Py<PyAny>>,
}

/// A tensor as it was made of an array.
pub(crate) struct FromArray {
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    pub(crate) payload: Payload,
}

const DTYPES: [&str; 14] = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "object", "float32",
];

/// NumPy, imported at the first array.
pub(super) fn numpy(py: Python<'_>) -> PyResult<&'static Numpy> {
    static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();
    NUMPY.get_or_try_init(py, || Numpy::import(py))
}

/// The tensor as a read-only array: a view for the fixed-size datatypes, a copy for BYTES and BF16.
///
/// The bytes were checked against datatype and shape.
pub(super) fn view<'py>(
    py: Python<'py>,
    datatype: Datatype,
    shape: &[i64],
    data: Bytes,
) -> PyResult<Bound<'py, PyAny>> {
    match datatype {
        Datatype::Bytes => objects(py, shape, &data),
        Datatype::Bf16 => ndarray(py, datatype, shape, widened(&data)),
        _ => ndarray(py, datatype, shape, aligned(datatype, data)),
    }
}

/// A tensor of an array, of a reference, or of what NumPy makes an array of.
///
/// Arrays of fixed-size datatypes are held and read when they are sent; those that have to be converted (byte order,
/// text, BF16) are copied here.
///
/// # Errors
/// The label's error for a type that no datatype has, and for another datatype than the one asked for.
pub(super) fn from_array(value: &Bound<'_, PyAny>, wanted: Option<Datatype>, label: Label<'_>) -> PyResult<FromArray> {
    let (py, numpy) = (value.py(), numpy(value.py())?);
    if value.get_type().is(&numpy.ndarray) || value.is_instance(numpy.ndarray.bind(py))? {
        return numpy.convert(value, wanted, label);
    }
    if let Ok(objref) = value.cast::<ObjRef>() {
        return match wanted {
            None | Some(Datatype::Bytes) => Ok(objref.get().to_tensor()),
            Some(wanted) => Err(label.error(py, &format!("is a reference, which is BYTES and not {wanted}"))),
        };
    }
    let array = numpy.array_of(value, wanted)?;
    numpy.convert(&array, wanted, label)
}

fn ndarray<'py>(py: Python<'py>, datatype: Datatype, shape: &[i64], data: Bytes) -> PyResult<Bound<'py, PyAny>> {
    let numpy = numpy(py)?;
    let dtype = numpy.dtypes[datatype as usize].bind(py);
    numpy.ndarray.bind(py).call1((tuple_of(py, shape)?, dtype, Buffer::new(data)))
}

fn objects<'py>(py: Python<'py>, shape: &[i64], data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let numpy = numpy(py)?;
    let (list, dtype) = (element::byte_list(py, data)?, numpy.dtypes[Datatype::Bytes as usize].bind(py));
    let array = numpy.array.bind(py).call1((list, dtype))?.call_method1(intern!(py, "reshape"), (shape,))?;
    let read_only = [(intern!(py, "write"), false)].into_py_dict(py)?;
    array.call_method(intern!(py, "setflags"), (), Some(&read_only))?;
    Ok(array)
}

/// The same bytes where the datatype may lie: the second tensor of a body starts where the first one ends.
fn aligned(datatype: Datatype, data: Bytes) -> Bytes {
    let size = datatype.size().unwrap_or(1);
    if data.as_ptr().addr().is_multiple_of(size) { data } else { Bytes::copy_from_slice(&data) }
}

fn widened(data: &[u8]) -> Bytes {
    let single = |pair: &[u8; 2]| bf16::from_le_bytes(*pair).to_f32().to_le_bytes();
    data.as_chunks().0.iter().flat_map(single).collect()
}

/// FP32 to BF16, to the nearest, ties to even.
fn narrowed(data: &[u8]) -> Bytes {
    let brain = |four: &[u8; 4]| bf16::from_f32(f32::from_le_bytes(*four)).to_le_bytes();
    data.as_chunks().0.iter().flat_map(brain).collect()
}

// === impl Numpy ===

impl Numpy {
    fn import(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("numpy")?;
        let get = |name: &str| module.getattr(name).map(Bound::unbind);
        let dtype = module.getattr("dtype")?;
        let dtypes = DTYPES.iter().map(|name| dtype.call1((name,)).map(Bound::unbind)).collect::<PyResult<_>>()?;
        Ok(Self {
            ndarray: get("ndarray")?,
            array: get("array")?,
            asarray: get("asarray")?,
            contiguous: get("ascontiguousarray")?,
            dtypes,
        })
    }

    fn array_of<'py>(&self, value: &Bound<'py, PyAny>, wanted: Option<Datatype>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        let asarray = self.asarray.bind(py);
        if let Some(datatype) = wanted {
            return asarray.call1((value, self.dtypes[datatype as usize].bind(py)));
        }
        let array = asarray.call1((value,))?;
        // NumPy's own types for text cut zero bytes off at the end of an element.
        if matches!(kind_of(&array)?.as_str(), "S" | "U") {
            return asarray.call1((value, self.dtypes[Datatype::Bytes as usize].bind(py)));
        }
        Ok(array)
    }

    fn convert(&self, array: &Bound<'_, PyAny>, wanted: Option<Datatype>, label: Label<'_>) -> PyResult<FromArray> {
        let py = array.py();
        let shape: Vec<i64> = array.getattr(intern!(py, "shape"))?.extract()?;
        let dtype = array.getattr(intern!(py, "dtype"))?;
        let Some(datatype) = self.datatype_of(&dtype)? else { return self.convert_rare(array, &dtype, wanted, label) };
        let of = |datatype, payload| Ok(FromArray { datatype, shape, payload });
        match wanted {
            None => of(datatype, Payload::Array(array.clone().unbind())),
            Some(wanted) if wanted == datatype => of(datatype, Payload::Array(array.clone().unbind())),
            Some(Datatype::Bf16) if datatype == Datatype::Fp32 => {
                of(Datatype::Bf16, Payload::Bytes(narrowed(Borrowed::of_array(array)?.as_slice())))
            }
            Some(wanted) => Err(self.mismatch(py, &dtype, wanted, label)),
        }
    }

    /// Arrays that have to be converted first: text, another byte order, bfloat16 of the package `ml_dtypes`.
    fn convert_rare(
        &self,
        array: &Bound<'_, PyAny>,
        dtype: &Bound<'_, PyAny>,
        wanted: Option<Datatype>,
        label: Label<'_>,
    ) -> PyResult<FromArray> {
        let py = array.py();
        let shape = array.getattr(intern!(py, "shape"))?.extract()?;
        if matches!(kind_of(array)?.as_str(), "O" | "S" | "U") {
            if let Some(other) = wanted.filter(|wanted| *wanted != Datatype::Bytes) {
                return Err(self.mismatch(py, dtype, other, label));
            }
            let payload = Payload::Bytes(element::framed_array(array, label)?);
            return Ok(FromArray { datatype: Datatype::Bytes, shape, payload });
        }
        if dtype.getattr("name")?.extract::<String>()? == "bfloat16" && wanted.is_none_or(|own| own == Datatype::Bf16) {
            let words = array.call_method1("view", (self.dtypes[Datatype::Uint16 as usize].bind(py),))?;
            return Ok(FromArray { datatype: Datatype::Bf16, shape, payload: Payload::Array(words.unbind()) });
        }
        let native = dtype.call_method1("newbyteorder", ("=",))?;
        if self.datatype_of(&native)?.is_none() || native.eq(dtype)? {
            let text = format!("is an array of {dtype}, which is no KServe datatype: convert it with .astype(…)");
            return Err(label.error(py, &text));
        }
        self.convert(&array.call_method1("astype", (native,))?, wanted, label)
    }

    fn datatype_of(&self, dtype: &Bound<'_, PyAny>) -> PyResult<Option<Datatype>> {
        let py = dtype.py();
        let fixed = || Datatype::all().zip(&self.dtypes).filter(|(datatype, _)| is_native(*datatype));
        if let Some((datatype, _)) = fixed().find(|(_, own)| dtype.is(own)) {
            return Ok(Some(datatype));
        }
        // NumPy has several objects for some types, such as C's `long long` beside `int64`.
        for (datatype, own) in fixed() {
            if dtype.eq(own.bind(py))? {
                return Ok(Some(datatype));
            }
        }
        Ok(None)
    }

    fn mismatch(&self, py: Python<'_>, dtype: &Bound<'_, PyAny>, wanted: Datatype, label: Label<'_>) -> PyErr {
        let own = self.dtypes[wanted as usize].bind(py);
        label.error(
            py,
            &format!("is an array of {dtype}, but has datatype {wanted}: convert it with .astype(\"{own}\")"),
        )
    }
}

/// Datatypes whose elements NumPy stores as the protocol does.
fn is_native(datatype: Datatype) -> bool {
    !matches!(datatype, Datatype::Bytes | Datatype::Bf16)
}

fn kind_of(array: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = array.py();
    array.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "kind"))?.extract()
}

/// An argument that is a datatype's name or an array, as the constructors of inputs and outputs take it.
pub(super) fn name_or_array<'py>(
    argument: Option<Bound<'py, PyAny>>,
    datatype: Option<&str>,
    label: Label<'_>,
    py: Python<'py>,
) -> PyResult<(Option<Datatype>, Option<Bound<'py, PyAny>>)> {
    let named = |name: &str| datatype_named(py, name, label);
    match (argument, datatype) {
        (None, datatype) => Ok((datatype.map(named).transpose()?, None)),
        (Some(argument), None) => match argument.extract::<&str>() {
            Ok(name) => Ok((Some(named(name)?), None)),
            Err(_) => Ok((None, Some(argument))),
        },
        (Some(array), Some(name)) => Ok((Some(named(name)?), Some(array))),
    }
}

/// A list as Python's own, whatever it was.
pub(super) fn list_of<'py>(values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    if let Ok(list) = values.cast::<PyList>() {
        return Ok(list.clone());
    }
    let py = values.py();
    if values.hasattr(intern!(py, "tolist"))? {
        return Ok(values.call_method0(intern!(py, "tolist"))?.into_bound_py_any(py)?.cast_into()?);
    }
    let list = PyList::empty(py);
    for value in values.try_iter()? {
        list.append(value?)?;
    }
    Ok(list)
}
