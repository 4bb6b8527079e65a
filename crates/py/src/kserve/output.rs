//! One output tensor of a response.

use anyserve_core::{Datatype, Parameters, Tensor};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::contents::{Contents, Payload};
use super::numpy::{FromArray, view};
use super::parameters::{dict_of, parameters_of};
use super::tensor::Label;
use crate::objref::{self, ObjRef};

/// One output tensor of a response; made by `ModelInferResponse.add_output`.
#[pyclass(module = "anyserve._core")]
pub(crate) struct InferOutput {
    /// Its name.
    #[pyo3(get)]
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// Its dimensions.
    #[pyo3(get)]
    pub(crate) shape: Vec<i64>,
    elements: Elements,
    parameters: Option<Py<PyDict>>,
}

enum Elements {
    Payload(Payload),
    Contents(Py<Contents>),
}

// === impl InferOutput ===

impl InferOutput {
    /// An output whose elements are still to be set.
    pub(super) fn bare(name: String, datatype: Datatype, shape: Vec<i64>) -> Self {
        Self::of(name, FromArray { datatype, shape, payload: Payload::Bytes(Bytes::new()) })
    }

    /// An output made of an array.
    pub(super) fn of(name: String, made: FromArray) -> Self {
        let FromArray { datatype, shape, payload } = made;
        Self { name, datatype, shape, elements: Elements::Payload(payload), parameters: None }
    }

    /// An output that was received, and checked.
    pub(super) fn from_tensor(py: Python<'_>, tensor: Tensor) -> PyResult<Self> {
        let Tensor { name, datatype, shape, data, parameters } = tensor;
        let dict = if parameters.is_empty() { None } else { Some(dict_of(py, &parameters)?.unbind()) };
        let payload = Payload::Bytes(data);
        Ok(Self { parameters: dict, ..Self::of(name, FromArray { datatype, shape, payload }) })
    }

    pub(super) fn set_parameters(&mut self, parameters: Option<Bound<'_, PyDict>>) {
        self.parameters = parameters.map(Bound::unbind);
    }

    /// Where the raw bytes are; not yet checked against the shape.
    ///
    /// # Errors
    /// `ValueError` if the contents are not of this datatype.
    pub(crate) fn payload(&self, py: Python<'_>) -> PyResult<Payload> {
        match &self.elements {
            Elements::Payload(Payload::Bytes(data)) => Ok(Payload::Bytes(data.clone())),
            Elements::Payload(Payload::Array(array)) => Ok(Payload::Array(array.clone_ref(py))),
            Elements::Contents(contents) => {
                contents.bind(py).borrow().payload(py, self.datatype, Label::Output(&self.name))
            }
        }
    }

    fn reference(&self, py: Python<'_>) -> PyResult<ObjRef> {
        let label = Label::Output(&self.name);
        let payload = self.payload(py)?;
        payload.read(py, |data| ObjRef::element(py, label, self.datatype, &self.shape, data))?
    }

    /// The parameters of this output.
    pub(crate) fn given_parameters(&self, py: Python<'_>) -> PyResult<Parameters> {
        self.parameters.as_ref().map_or_else(|| Ok(Vec::new()), |dict| parameters_of(dict.bind(py)))
    }
}

#[pymethods]
impl InferOutput {
    #[getter]
    fn datatype(&self) -> &'static str {
        self.datatype.name()
    }

    #[getter]
    fn parameters<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.parameters.get_or_insert_with(|| PyDict::new(py).unbind()).bind(py).clone()
    }

    #[getter]
    fn contents(&mut self, py: Python<'_>) -> PyResult<Py<Contents>> {
        if let Elements::Contents(contents) = &self.elements {
            return Ok(contents.clone_ref(py));
        }
        let contents = match self.payload(py)? {
            Payload::Bytes(data) if data.is_empty() => Contents::empty(self.datatype),
            payload => Contents::of(self.datatype, payload),
        };
        let contents = Py::new(py, contents)?;
        self.elements = Elements::Contents(contents.clone_ref(py));
        Ok(contents)
    }

    #[setter]
    fn set_contents(&mut self, contents: Bound<'_, Contents>) {
        contents.borrow_mut().join(self.datatype);
        self.elements = Elements::Contents(contents.unbind());
    }

    /// The tensor as a read-only array.
    fn as_numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let data = self.payload(py)?.to_bytes(py)?;
        super::tensor::check_len(py, Label::Output(&self.name), self.datatype, &self.shape, &data)?;
        view(py, self.datatype, &self.shape, data)
    }

    /// The reference that it is, or that it was resolved from.
    #[getter]
    fn objref(&self, py: Python<'_>) -> PyResult<Option<ObjRef>> {
        let parameters = self.given_parameters(py)?;
        ObjRef::marked(py, Label::Output(&self.name), &parameters, || self.reference(py))
    }

    /// What a client's result has: the array, or the reference where it is one.
    fn _value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if objref::is_reference(&self.given_parameters(py)?) {
            return Ok(Bound::new(py, self.reference(py)?)?.into_any());
        }
        self.as_numpy(py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        let other = other.borrow();
        let same = self.name == other.name && self.datatype == other.datatype && self.shape == other.shape;
        Ok(same
            && self.payload(py)?.to_bytes(py)? == other.payload(py)?.to_bytes(py)?
            && self.given_parameters(py)? == other.given_parameters(py)?)
    }

    fn __repr__(&self) -> String {
        format!("InferOutput(name={:?}, datatype=\"{}\", shape={:?})", self.name, self.datatype, self.shape)
    }
}
