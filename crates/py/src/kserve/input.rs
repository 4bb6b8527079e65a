//! One input tensor of a request.

use std::borrow::Cow;

use anyserve_core::{Datatype, Parameters, Tensor};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::contents::{Contents, Payload};
use super::numpy::{from_array, name_or_array, view};
use super::parameters::{dict_of, parameters_of};
use super::tensor::{Label, check_len, invalid_input, shape_of};
use crate::objref::{self, ObjRef};

/// One input tensor of a request.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct InferInput {
    /// Its name.
    #[pyo3(get)]
    name: String,
    datatype: Datatype,
    /// Its dimensions.
    #[pyo3(get)]
    shape: Vec<i64>,
    payload: Payload,
    given: Parameters,
    parameters: PyOnceLock<Py<PyDict>>,
    contents: PyOnceLock<Py<Contents>>,
    array: PyOnceLock<Py<PyAny>>,
}

// === impl InferInput ===

impl InferInput {
    /// An input that was received, and checked.
    pub(crate) fn from_tensor(tensor: Tensor) -> Self {
        let Tensor { name, datatype, shape, data, parameters } = tensor;
        Self::assemble(name, datatype, shape, Payload::Bytes(data), parameters)
    }

    /// The tensor to send; an array is read now.
    pub(crate) fn to_tensor(&self, py: Python<'_>) -> PyResult<Tensor> {
        let data = self.payload.to_bytes(py)?;
        let parameters = self.parameters_now(py)?.into_owned();
        Ok(Tensor { name: self.name.clone(), datatype: self.datatype, shape: self.shape.clone(), data, parameters })
    }

    /// The parameters: the dict's once somebody has it, who may have changed it.
    fn parameters_now(&self, py: Python<'_>) -> PyResult<Cow<'_, Parameters>> {
        match self.parameters.get(py) {
            Some(dict) => parameters_of(dict.bind(py)).map(Cow::Owned),
            None => Ok(Cow::Borrowed(&self.given)),
        }
    }

    fn reference(&self, py: Python<'_>) -> PyResult<ObjRef> {
        let label = Label::Input(&self.name);
        self.payload.read(py, |data| ObjRef::element(py, label, self.datatype, &self.shape, data))?
    }

    fn assemble(name: String, datatype: Datatype, shape: Vec<i64>, payload: Payload, given: Parameters) -> Self {
        let (parameters, contents, array) = (PyOnceLock::new(), PyOnceLock::new(), PyOnceLock::new());
        Self { name, datatype, shape, payload, given, parameters, contents, array }
    }

    fn payload_of_contents(
        py: Python<'_>,
        contents: Option<&Bound<'_, Contents>>,
        datatype: Datatype,
        label: Label<'_>,
    ) -> PyResult<Payload> {
        contents
            .map_or_else(|| Ok(Payload::Bytes(bytes::Bytes::new())), |own| own.borrow().payload(py, datatype, label))
    }
}

#[pymethods]
impl InferInput {
    #[new]
    #[pyo3(signature = (name, datatype_or_array=None, shape=None, *, datatype=None, contents=None, parameters=None))]
    fn new(
        py: Python<'_>,
        name: String,
        datatype_or_array: Option<Bound<'_, PyAny>>,
        shape: Option<Bound<'_, PyAny>>,
        datatype: Option<&str>,
        contents: Option<&Bound<'_, Contents>>,
        parameters: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let label = Label::Input(&name);
        let mut given = parameters.map(parameters_of).transpose()?.unwrap_or_default();
        let (datatype, array) = name_or_array(datatype_or_array, datatype, label, py)?;
        if let Some(array) = array {
            if shape.is_some() || contents.is_some() {
                return Err(label.error(py, "is given as an array, which has shape and contents of its own"));
            }
            let made = from_array(&array, datatype, label)?;
            if array.is_instance_of::<ObjRef>() {
                objref::set_mark(&mut given);
            }
            return Ok(Self::assemble(name, made.datatype, made.shape, made.payload, given));
        }
        let (Some(datatype), Some(shape)) = (datatype, shape) else {
            return Err(label.error(py, "needs an array, or a datatype and a shape"));
        };
        let shape = shape_of(&shape, label)?;
        let payload = Self::payload_of_contents(py, contents, datatype, label)?;
        payload.read(py, |data| check_len(py, label, datatype, &shape, data))??;
        Ok(Self::assemble(name, datatype, shape, payload, given))
    }

    #[getter]
    fn datatype(&self) -> &'static str {
        self.datatype.name()
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        let dict = self.parameters.get_or_try_init(py, || dict_of(py, &self.given).map(Bound::unbind))?;
        Ok(dict.bind(py))
    }

    #[getter]
    fn contents<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, Contents>> {
        let contents = self.contents.get_or_try_init(py, || {
            let payload = Payload::Bytes(self.payload.to_bytes(py)?);
            Py::new(py, Contents::of(self.datatype, payload))
        })?;
        Ok(contents.bind(py))
    }

    /// The tensor as a read-only array.
    fn as_numpy<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let array = self.array.get_or_try_init(py, || {
            let data = self.payload.to_bytes(py)?;
            view(py, self.datatype, &self.shape, data).map(Bound::unbind)
        })?;
        Ok(array.bind(py))
    }

    /// The reference that it is, or that it was resolved from.
    #[getter]
    fn objref(&self, py: Python<'_>) -> PyResult<Option<ObjRef>> {
        let parameters = self.parameters_now(py)?;
        ObjRef::marked(py, Label::Input(&self.name), &parameters, || self.reference(py))
    }

    /// What a handler that takes inputs by name gets: the array, or the reference to an object that is none.
    fn _value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if objref::is_reference(&*self.parameters_now(py)?) {
            return Ok(Bound::new(py, self.reference(py)?)?.into_any());
        }
        self.as_numpy(py).cloned()
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(other) = other.cast::<Self>() else { return Ok(false) };
        Ok(self.to_tensor(py)? == other.get().to_tensor(py)?)
    }

    fn __repr__(&self) -> String {
        format!("InferInput(name={:?}, datatype=\"{}\", shape={:?})", self.name, self.datatype, self.shape)
    }
}

/// Refuses a name that stands twice.
pub(super) fn check_names<'a>(py: Python<'_>, what: &str, names: impl Iterator<Item = &'a str>) -> PyResult<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(invalid_input(py, &format!("{what} '{name}' stands twice")));
        }
    }
    Ok(())
}
