//! `_core.ObjRef`: a reference to an object as Python has it, and how it stands in a tensor.
//!
//! ```text
//! a reference             BYTES, shape [1], objref = true      the element is its text
//! what it was resolved to the object's datatype, shape, bytes  objref = the reference's text
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};

use anyserve_core::{BytesReader, Datatype, Parameter, Parameters};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::kserve::{FromArray, Label, Payload, invalid_input};

/// The parameter of a tensor that says that it is, or was, a reference.
const MARK: &str = "objref";

/// A reference to an object of the object plane.
#[pyclass(frozen, eq, from_py_object, module = "anyserve._core")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjRef(pub(crate) anyserve_core::ObjRef);

/// Adds the class to `anyserve._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ObjRef>()
}

/// Whether a tensor with these parameters is a reference, and not what one was resolved to.
pub(crate) fn is_reference(parameters: &Parameters) -> bool {
    mark(parameters) == Some(&Parameter::Bool(true))
}

/// Says of a tensor with these parameters that it is a reference.
pub(crate) fn set_mark(parameters: &mut Parameters) {
    parameters.retain(|(name, _)| name != MARK);
    parameters.push((MARK.to_owned(), Parameter::Bool(true)));
}

/// A dict with the same parameters, which says of a tensor that it is a reference.
pub(crate) fn with_mark<'py>(py: Python<'py>, given: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
    let parameters = given.map_or_else(|| Ok(PyDict::new(py)), PyDictMethods::copy)?;
    parameters.set_item(MARK, true)?;
    Ok(parameters)
}

fn mark(parameters: &Parameters) -> Option<&Parameter> {
    parameters.iter().find(|(name, _)| name == MARK).map(|(_, value)| value)
}

// === impl ObjRef ===

impl ObjRef {
    /// The reference that a tensor is, or was resolved from; `None` if it is neither.
    ///
    /// # Errors
    /// The label's error for a tensor that has the mark and no reference.
    pub(crate) fn marked(
        py: Python<'_>,
        label: Label<'_>,
        parameters: &Parameters,
        element: impl FnOnce() -> PyResult<Self>,
    ) -> PyResult<Option<Self>> {
        match mark(parameters) {
            None | Some(Parameter::Bool(false)) => Ok(None),
            Some(Parameter::Bool(true)) => element().map(Some),
            Some(Parameter::Text(text)) => Self::parsed(py, label, text).map(Some),
            Some(_) => Err(label.error(py, "has a number as its parameter objref: it is true, or a reference's text")),
        }
    }

    /// The reference that is the one element of a tensor.
    ///
    /// # Errors
    /// The label's error for any other tensor.
    pub(crate) fn element(
        py: Python<'_>,
        label: Label<'_>,
        datatype: Datatype,
        shape: &[i64],
        data: &[u8],
    ) -> PyResult<Self> {
        if datatype != Datatype::Bytes || shape != [1] {
            let text =
                format!("has the parameter objref, but {datatype} with shape {shape:?}: it takes BYTES with [1]");
            return Err(label.error(py, &text));
        }
        let mut elements = BytesReader::new(data);
        let (Some(Ok(element)), None) = (elements.next(), elements.next()) else {
            return Err(label.error(py, "has the parameter objref, but not one element of BYTES"));
        };
        Self::parsed(py, label, &String::from_utf8_lossy(element))
    }

    /// The tensor that a reference travels as; the mark is for whoever has its parameters.
    pub(crate) fn to_tensor(self) -> FromArray {
        let text = self.0.to_string();
        // Texts of references have 49 characters, always.
        let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
        let data: Bytes = [&[len, 0, 0, 0], text.as_bytes()].concat().into();
        FromArray { datatype: Datatype::Bytes, shape: vec![1], payload: Payload::Bytes(data) }
    }

    fn parsed(py: Python<'_>, label: Label<'_>, text: &str) -> PyResult<Self> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|error: anyserve_core::ObjRefError| label.error(py, &format!("is no reference: {error}")))
    }
}

#[pymethods]
impl ObjRef {
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<Self> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|error: anyserve_core::ObjRefError| invalid_input(py, &error.to_string()))
    }

    /// The store that it was made in, as 16 hexadecimal digits.
    #[getter]
    fn store(&self) -> String {
        self.0.store.to_string()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("ObjRef('{}')", self.0)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Pickled as its text: a reference has nothing else.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (String,)) {
        (py.get_type::<Self>(), (self.0.to_string(),))
    }
}
