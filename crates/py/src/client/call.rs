//! `_core.Call`: an inference as Python asks for it, checked and ready to be sent.

use std::time::Duration;

use anyserve_core::{Capability, Datatype, Error, Parameter, Parameters, Tensor, Value};
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use super::buffer;
use crate::errors;
use crate::kserve::InferInput;

/// One inference. Tensors are `(name, datatype, shape, data, parameters)`, where `data` is a C-contiguous buffer of raw
/// elements, an `InferInput` or, for BYTES, a list of `bytes` and `str`.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Call(pub(crate) anyserve_client::Call);

type Row<'py> = (String, String, Vec<i64>, Bound<'py, PyAny>, Option<Bound<'py, PyDict>>);

#[pymethods]
impl Call {
    #[new]
    #[pyo3(signature = (model, inputs, *, version="", id="", capability=None, outputs=vec![], parameters=None, headers=vec![], timeout_s=None))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // A request has that many fields.
    fn new(
        py: Python<'_>,
        model: String,
        inputs: Vec<Row<'_>>,
        version: &str,
        id: &str,
        capability: Option<Bound<'_, PyDict>>,
        outputs: Vec<String>,
        parameters: Option<Bound<'_, PyDict>>,
        headers: Vec<(String, String)>,
        timeout_s: Option<f64>,
    ) -> PyResult<Self> {
        let checked = || -> Result<_, Failure> {
            Ok(anyserve_client::Call {
                model,
                version: version.to_owned(),
                id: id.to_owned(),
                capability: capability.as_ref().map(self::capability).transpose()?,
                inputs: inputs.into_iter().map(tensor).collect::<Result<_, _>>()?,
                outputs,
                parameters: parameters.as_ref().map_or(Ok(vec![]), |given| self::parameters(given, "the request"))?,
                headers,
                timeout: timeout_s.map(timeout).transpose()?,
            })
        };
        checked().map(Self).map_err(|failure| failure.into_py(py))
    }
}

/// Either of the closed set, or an exception of Python's own.
enum Failure {
    Core(Error),
    Python(PyErr),
}

// === impl Failure ===

impl Failure {
    fn into_py(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Core(error) => errors::to_py(py, &error),
            Self::Python(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// Seconds as a duration; a number too large for one is as good as the largest.
///
/// # Errors
/// `INVALID_INPUT` for zero, a negative number and NaN.
pub(crate) fn timeout(seconds: f64) -> Result<Duration, Error> {
    if seconds > 0.0 {
        return Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    Err(Error::invalid(format!("timeout_s is {seconds}: it is a number of seconds above 0, or None to wait for ever")))
}

/// The capability that these keys and values are.
pub(super) fn capability_of(py: Python<'_>, given: &Bound<'_, PyDict>) -> PyResult<Capability> {
    capability(given).map_err(|failure| failure.into_py(py))
}

fn tensor((name, datatype, shape, data, parameters): Row<'_>) -> Result<Tensor, Failure> {
    let datatype = Datatype::from_name(&datatype)
        .ok_or_else(|| Error::invalid(format!("input '{name}' has the unknown datatype '{datatype}'")))?;
    let data = raw(&data)?;
    let expected = Tensor::expected_len(datatype, &shape);
    let expected = expected.map_err(|error| Error::invalid(format!("input '{name}': {error}")))?;
    if let Some(expected) = expected.filter(|expected| *expected != data.len()) {
        let have = data.len();
        let message =
            format!("input '{name}' of datatype {datatype} and shape {shape:?} has {have} bytes, not {expected}");
        return Err(Error::invalid(message).into());
    }
    let parameters = parameters.map_or(Ok(vec![]), |given| self::parameters(&given, &format!("input '{name}'")))?;
    Ok(Tensor { name, datatype, shape, data, parameters })
}

fn raw(data: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(input) = data.cast::<InferInput>() {
        return input.get().to_tensor(data.py()).map(|tensor| tensor.data);
    }
    if data.is_instance_of::<PyList>() { buffer::framed(data) } else { buffer::of(data) }
}

/// A number, a text or a truth value of Python.
fn scalar(value: &Bound<'_, PyAny>) -> PyResult<Option<Parameter>> {
    Ok(Some(if let Ok(truth) = value.cast::<PyBool>() {
        Parameter::Bool(truth.is_true())
    } else if value.is_instance_of::<PyInt>() {
        match (value.extract::<i64>(), value.extract::<u64>()) {
            (Ok(number), _) => Parameter::Int(number),
            (_, Ok(number)) => Parameter::Uint(number),
            _ => return Ok(None),
        }
    } else if let Ok(number) = value.cast::<PyFloat>() {
        Parameter::Double(number.extract()?)
    } else if let Ok(text) = value.cast::<PyString>() {
        Parameter::Text(text.to_cow()?.into_owned())
    } else {
        return Ok(None);
    }))
}

fn parameters(given: &Bound<'_, PyDict>, whose: &str) -> Result<Parameters, Failure> {
    let mut list = Parameters::with_capacity(given.len());
    for (name, value) in given {
        let Some(parameter) = scalar(&value)? else {
            let message =
                format!("parameter '{name}' of {whose} is {value}: it is a str, a bool, a float or a 64-bit int");
            return Err(Error::invalid(message).into());
        };
        list.push((name.extract()?, parameter));
    }
    Ok(list)
}

fn capability(given: &Bound<'_, PyDict>) -> Result<Capability, Failure> {
    let mut pairs = Vec::with_capacity(given.len());
    for (key, value) in given {
        let value = match scalar(&value)? {
            Some(Parameter::Text(text)) => Value::Text(text),
            Some(Parameter::Int(number)) => Value::Int(number),
            Some(Parameter::Double(number)) => Value::Float(number),
            Some(Parameter::Bool(truth)) => Value::Bool(truth),
            Some(Parameter::Uint(_)) | None => {
                let message =
                    format!("capability key '{key}' is {value}: it is a str, a bool, a float or a 64-bit int");
                return Err(Error::invalid(message).into());
            }
        };
        pairs.push((key.extract()?, value));
    }
    Ok(Capability::try_new(pairs).map_err(|error| Error::invalid(error.to_string()))?)
}
