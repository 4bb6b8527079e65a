//! The elements of one tensor: raw bytes, an array that will be read when it is sent, or a typed list.

use anyserve_core::Datatype;
use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::buffer::Borrowed;
use super::element::{self, Field};
use super::numpy::list_of;
use super::tensor::{Label, invalid_input};

/// Where the raw bytes of a tensor are.
pub(crate) enum Payload {
    /// Here, and they do not change.
    Bytes(Bytes),
    /// In an array of a fixed-size datatype, until it is sent.
    Array(Py<PyAny>),
}

/// The elements of one tensor.
#[pyclass(module = "anyserve._core")]
pub(crate) struct Contents {
    /// Of the tensor that they belong to; unknown until they are part of one.
    datatype: Option<Datatype>,
    state: State,
}

enum State {
    Empty,
    Raw(Payload),
    Typed(Field, Py<PyList>),
}

// === impl Payload ===

impl Payload {
    /// Looks at the bytes, wherever they are.
    pub(crate) fn read<R>(&self, py: Python<'_>, look: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
        match self {
            Self::Bytes(bytes) => Ok(look(bytes)),
            Self::Array(array) => Ok(look(Borrowed::of_array(array.bind(py))?.as_slice())),
        }
    }

    /// The bytes as they are now.
    pub(crate) fn to_bytes(&self, py: Python<'_>) -> PyResult<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Array(_) => self.read(py, Bytes::copy_from_slice),
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::Array(array) => Self::Array(array.clone_ref(py)),
        }
    }
}

// === impl Contents ===

impl Contents {
    /// Contents without elements, of a tensor with this datatype.
    pub(super) fn empty(datatype: Datatype) -> Self {
        Self { datatype: Some(datatype), state: State::Empty }
    }

    /// The contents of a tensor with this datatype.
    pub(super) fn of(datatype: Datatype, payload: Payload) -> Self {
        Self { datatype: Some(datatype), state: State::Raw(payload) }
    }

    /// The raw bytes for a tensor with this datatype.
    ///
    /// # Errors
    /// The label's error if these are the elements of another datatype.
    pub(super) fn payload(&self, py: Python<'_>, datatype: Datatype, label: Label<'_>) -> PyResult<Payload> {
        match &self.state {
            State::Empty => Ok(Payload::Bytes(Bytes::new())),
            State::Raw(payload) => match self.datatype {
                Some(own) if own != datatype => {
                    Err(label.error(py, &format!("has datatype {datatype}, but its contents are {own}")))
                }
                _ => Ok(payload.clone_ref(py)),
            },
            State::Typed(field, list) => {
                check_field(py, *field, datatype, label)?;
                Ok(Payload::Bytes(element::raw(list.bind(py), datatype, label)?.into()))
            }
        }
    }

    /// They are part of a tensor with this datatype from now on, unless they are of another.
    pub(super) fn join(&mut self, datatype: Datatype) {
        self.datatype.get_or_insert(datatype);
    }

    fn list<'py>(&mut self, py: Python<'py>, field: Field) -> PyResult<Bound<'py, PyList>> {
        match &self.state {
            State::Typed(own, list) if *own == field => return Ok(list.bind(py).clone()),
            State::Typed(_, list) if !list.bind(py).is_empty() => return Ok(PyList::empty(py)),
            State::Raw(payload) => {
                let Some(datatype) = self.datatype.filter(|own| Field::of(*own) == Some(field)) else {
                    return Ok(PyList::empty(py));
                };
                let list = payload.read(py, |data| element::list(py, datatype, data))??;
                self.state = State::Typed(field, list.clone().unbind());
                return Ok(list);
            }
            State::Typed(..) | State::Empty => {}
        }
        // Whoever appends to the list that they get here fills the contents.
        let list = PyList::empty(py);
        self.state = State::Typed(field, list.clone().unbind());
        Ok(list)
    }

    fn set(&mut self, field: Field, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state = State::Typed(field, list_of(values)?.unbind());
        Ok(())
    }

    fn count(&self, py: Python<'_>) -> PyResult<String> {
        Ok(match &self.state {
            State::Empty => "nothing".to_owned(),
            State::Raw(payload) => format!("{} raw bytes", payload.read(py, <[u8]>::len)?),
            State::Typed(field, list) => format!("{} {}", list.bind(py).len(), field.name()),
        })
    }
}

fn check_field(py: Python<'_>, field: Field, datatype: Datatype, label: Label<'_>) -> PyResult<()> {
    match Field::of(datatype) {
        Some(own) if own == field => Ok(()),
        Some(own) => {
            let (own, field) = (own.name(), field.name());
            Err(label.error(py, &format!("has datatype {datatype}, which takes {own}, but its contents are {field}")))
        }
        None => {
            Err(label.error(py, &format!("has datatype {datatype}, which has no typed list: set .raw or an array")))
        }
    }
}

/// Bytes of ours, sharing the memory of a `bytes` object.
fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if value.is_instance_of::<PyBytes>() {
        return Ok(Bytes::from_owner(value.extract::<PyBackedBytes>()?));
    }
    match Borrowed::of_bytes(value)? {
        Some(borrowed) => Ok(Bytes::copy_from_slice(borrowed.as_slice())),
        None => Err(PyValueError::new_err("raw contents are contiguous bytes; use numpy.ascontiguousarray")),
    }
}

#[pymethods]
impl Contents {
    #[new]
    #[pyo3(signature = (*, raw=None, **lists))]
    fn new(py: Python<'_>, raw: Option<&Bound<'_, PyAny>>, lists: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut contents = Self { datatype: None, state: State::Empty };
        let given = lists.map_or(0, PyDictMethods::len) + usize::from(raw.is_some());
        if given > 1 {
            return Err(invalid_input(py, "contents are raw bytes or one typed list, not several"));
        }
        if let Some(raw) = raw {
            contents.set_raw(raw)?;
        }
        for (name, values) in lists.into_iter().flat_map(PyDictMethods::iter) {
            let name: String = name.extract()?;
            let Some(field) = Field::ALL.into_iter().find(|field| field.name() == name) else {
                let text = format!("there are no contents {name:?}: there are raw and {}", field_names());
                return Err(pyo3::exceptions::PyTypeError::new_err(text));
            };
            contents.set(field, &values)?;
        }
        Ok(contents)
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let State::Raw(payload) = &self.state else {
            let Some(datatype) = self.datatype else {
                return Err(PyValueError::new_err("contents have no raw form before they are part of a tensor"));
            };
            let payload = self.payload(py, datatype, Label::Output("contents"))?;
            return payload.read(py, |data| PyBytes::new(py, data));
        };
        payload.read(py, |data| PyBytes::new(py, data))
    }

    #[setter]
    fn set_raw(&mut self, raw: &Bound<'_, PyAny>) -> PyResult<()> {
        self.state = State::Raw(Payload::Bytes(bytes_of(raw)?));
        Ok(())
    }

    #[getter]
    fn bool_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Bool)
    }

    #[setter]
    fn set_bool_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Bool, values)
    }

    #[getter]
    fn int_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Int)
    }

    #[setter]
    fn set_int_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Int, values)
    }

    #[getter]
    fn int64_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Int64)
    }

    #[setter]
    fn set_int64_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Int64, values)
    }

    #[getter]
    fn uint_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Uint)
    }

    #[setter]
    fn set_uint_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Uint, values)
    }

    #[getter]
    fn uint64_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Uint64)
    }

    #[setter]
    fn set_uint64_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Uint64, values)
    }

    #[getter]
    fn fp32_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Fp32)
    }

    #[setter]
    fn set_fp32_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Fp32, values)
    }

    #[getter]
    fn fp64_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Fp64)
    }

    #[setter]
    fn set_fp64_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Fp64, values)
    }

    #[getter]
    fn bytes_contents<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.list(py, Field::Bytes)
    }

    #[setter]
    fn set_bytes_contents(&mut self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(Field::Bytes, values)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Contents: {}>", self.count(py)?))
    }
}

fn field_names() -> String {
    Field::ALL.map(Field::name).join(", ")
}
