//! The response that a handler makes.

use anyserve_core::Response;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::numpy::{from_array, name_or_array};
use super::output::InferOutput;
use super::parameters::dict_of;
use super::tensor::{Label, shape_of};
use crate::objref::{self, ObjRef};

/// A response of KServe v2.
#[pyclass(module = "anyserve._core")]
pub(crate) struct ModelInferResponse {
    /// What the caller called.
    #[pyo3(get, set)]
    model_name: String,
    /// The version that served it.
    #[pyo3(get, set)]
    model_version: String,
    /// The request's id.
    #[pyo3(get, set)]
    id: String,
    outputs: Py<PyList>,
    parameters: Option<Py<PyDict>>,
}

// === impl ModelInferResponse ===

impl ModelInferResponse {
    /// A response that was received, and checked.
    pub(crate) fn received(py: Python<'_>, response: Response) -> PyResult<Self> {
        let outputs = PyList::empty(py);
        for tensor in response.outputs {
            outputs.append(Bound::new(py, InferOutput::from_tensor(py, tensor)?)?)?;
        }
        Ok(Self {
            model_name: response.model,
            model_version: response.version,
            id: response.id,
            outputs: outputs.unbind(),
            parameters: Some(dict_of(py, &response.parameters)?.unbind()),
        })
    }

    /// The list of outputs; a handler may have put anything into it.
    pub(crate) fn output_list<'py>(&self, py: Python<'py>) -> &Bound<'py, PyList> {
        self.outputs.bind(py)
    }

    /// The parameters, if there are any.
    pub(crate) fn parameters_dict<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyDict>> {
        self.parameters.as_ref().map(|dict| dict.bind(py))
    }
}

#[pymethods]
impl ModelInferResponse {
    #[new]
    #[pyo3(signature = (model_name="", id="", model_version="", parameters=None))]
    fn new(
        py: Python<'_>,
        model_name: &str,
        id: &str,
        model_version: &str,
        parameters: Option<Bound<'_, PyDict>>,
    ) -> Self {
        Self {
            model_name: model_name.to_owned(),
            model_version: model_version.to_owned(),
            id: id.to_owned(),
            outputs: PyList::empty(py).unbind(),
            parameters: parameters.map(Bound::unbind),
        }
    }

    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> &Bound<'py, PyList> {
        self.outputs.bind(py)
    }

    #[getter]
    fn parameters<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.parameters.get_or_insert_with(|| PyDict::new(py).unbind()).bind(py).clone()
    }

    /// Adds an output.
    #[pyo3(signature = (name, datatype_or_array=None, shape=None, *, datatype=None, parameters=None))]
    fn add_output<'py>(
        &self,
        py: Python<'py>,
        name: String,
        datatype_or_array: Option<Bound<'py, PyAny>>,
        shape: Option<Bound<'py, PyAny>>,
        datatype: Option<&str>,
        parameters: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, InferOutput>> {
        let label = Label::Output(&name);
        let is_reference = datatype_or_array.as_ref().is_some_and(PyAnyMethods::is_instance_of::<ObjRef>);
        let (datatype, array) = name_or_array(datatype_or_array, datatype, label, py)?;
        let mut output = match (datatype, array, shape) {
            (datatype, Some(array), None) => {
                let made = from_array(&array, datatype, label)?;
                InferOutput::of(name, made)
            }
            (Some(datatype), None, Some(shape)) => {
                let shape = shape_of(&shape, label)?;
                InferOutput::bare(name, datatype, shape)
            }
            (_, Some(_), Some(_)) => return Err(label.error(py, "is given as an array, which has a shape of its own")),
            (_, None, _) => return Err(label.error(py, "needs an array, or a datatype and a shape")),
        };
        output.set_parameters(if is_reference {
            Some(objref::with_mark(py, parameters.as_ref())?)
        } else {
            parameters
        });
        let output = Bound::new(py, output)?;
        self.outputs.bind(py).append(&output)?;
        Ok(output)
    }

    /// The output with this name.
    fn output<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, InferOutput>> {
        let mut names = Vec::new();
        for item in self.outputs.bind(py).iter() {
            let Ok(output) = item.cast_into::<InferOutput>() else {
                return Err(PyValueError::new_err("outputs holds something that is no InferOutput: use add_output"));
            };
            if output.borrow().name == name {
                return Ok(output);
            }
            names.push(format!("'{}'", output.borrow().name));
        }
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(PyKeyError::new_err(format!("there is no output '{name}'; the response has {known}")))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let count = self.outputs.bind(py).len();
        format!("<ModelInferResponse model_name={:?} id={:?} outputs={count}>", self.model_name, self.id)
    }
}
