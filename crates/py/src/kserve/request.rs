//! The request as a handler gets it.

use anyserve_core::{Parameters, Tensor};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};

use super::input::{InferInput, check_names};
use super::parameters::{dict_of, parameters_of};
use super::tensor::invalid_input;

/// A request of KServe v2.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct ModelInferRequest {
    parts: RequestParts,
    inputs: PyOnceLock<Py<PyList>>,
    parameters: PyOnceLock<Py<PyDict>>,
    outputs: PyOnceLock<Py<PyList>>,
}

/// What a request is made of.
#[derive(Default)]
pub(crate) struct RequestParts {
    /// The model name that the caller used.
    pub(crate) model: String,
    /// The version that the caller asked for.
    pub(crate) version: String,
    /// The caller's id.
    pub(crate) id: String,
    /// Input tensors, checked.
    pub(crate) inputs: Vec<Tensor>,
    /// Wanted outputs.
    pub(crate) outputs: Vec<String>,
    /// Parameters of the request.
    pub(crate) parameters: Parameters,
}

// === impl ModelInferRequest ===

impl ModelInferRequest {
    /// A request that was received, and checked.
    pub(crate) fn received(parts: RequestParts) -> Self {
        Self { parts, inputs: PyOnceLock::new(), parameters: PyOnceLock::new(), outputs: PyOnceLock::new() }
    }

    /// The caller's id; empty if none was given.
    pub(crate) fn caller_id(&self) -> &str {
        &self.parts.id
    }

    /// The parameters, as the one dict that everybody who asks gets.
    pub(crate) fn parameters_dict<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        let dict = self.parameters.get_or_try_init(py, || dict_of(py, &self.parts.parameters).map(Bound::unbind))?;
        Ok(dict.bind(py))
    }

    fn input_list<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyList>> {
        let list = self.inputs.get_or_try_init(py, || {
            let list = PyList::empty(py);
            for tensor in &self.parts.inputs {
                list.append(Bound::new(py, InferInput::from_tensor(tensor.clone()))?)?;
            }
            Ok::<_, PyErr>(list.unbind())
        })?;
        Ok(list.bind(py))
    }
}

#[pymethods]
impl ModelInferRequest {
    #[new]
    #[pyo3(signature = (model_name="", inputs=None, *, id="", model_version="", parameters=None, outputs=None))]
    fn new(
        py: Python<'_>,
        model_name: &str,
        inputs: Option<Vec<Bound<'_, InferInput>>>,
        id: &str,
        model_version: &str,
        parameters: Option<&Bound<'_, PyDict>>,
        outputs: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let inputs = inputs.unwrap_or_default();
        let list = PyList::new(py, &inputs)?;
        let tensors = inputs.iter().map(|input| input.get().to_tensor(py)).collect::<PyResult<Vec<_>>>()?;
        check_names(py, "input", tensors.iter().map(|tensor| tensor.name.as_str()))?;
        let request = Self::received(RequestParts {
            model: model_name.to_owned(),
            version: model_version.to_owned(),
            id: id.to_owned(),
            inputs: tensors,
            outputs: outputs.unwrap_or_default(),
            parameters: parameters.map(parameters_of).transpose()?.unwrap_or_default(),
        });
        request.inputs.get_or_init(py, || list.unbind());
        Ok(request)
    }

    #[getter]
    fn model_name(&self) -> &str {
        &self.parts.model
    }

    #[getter]
    fn model_version(&self) -> &str {
        &self.parts.version
    }

    #[getter]
    fn id(&self) -> &str {
        &self.parts.id
    }

    #[getter]
    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        self.parameters_dict(py)
    }

    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyList>> {
        self.input_list(py)
    }

    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyList>> {
        let list = self.outputs.get_or_try_init(py, || PyList::new(py, &self.parts.outputs).map(Bound::unbind))?;
        Ok(list.bind(py))
    }

    /// The input with this name.
    fn input<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let inputs = &self.parts.inputs;
        if let Some(place) = inputs.iter().position(|tensor| tensor.name == name) {
            return self.input_list(py)?.get_item(place);
        }
        let names: Vec<_> = inputs.iter().map(|tensor| format!("'{}'", tensor.name)).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(invalid_input(py, &format!("input '{name}' is missing: the request has {known}")))
    }

    fn __repr__(&self) -> String {
        let names: Vec<_> = self.parts.inputs.iter().map(|tensor| tensor.name.as_str()).collect();
        format!("<ModelInferRequest model_name={:?} id={:?} inputs={names:?}>", self.parts.model, self.parts.id)
    }
}
