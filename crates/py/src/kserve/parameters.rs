//! Parameters between `core` and Python's dicts.

use anyserve_core::{Parameter, Parameters};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};

/// The parameters as a new dict.
pub(crate) fn dict_of<'py>(py: Python<'py>, parameters: &Parameters) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in parameters {
        match value {
            Parameter::Bool(value) => dict.set_item(key, value)?,
            Parameter::Int(value) => dict.set_item(key, value)?,
            Parameter::Uint(value) => dict.set_item(key, value)?,
            Parameter::Double(value) => dict.set_item(key, value)?,
            Parameter::Text(value) => dict.set_item(key, value)?,
        }
    }
    Ok(dict)
}

/// The parameters in a dict.
///
/// # Errors
/// `TypeError` for a key that is no text and a value that no parameter can have.
pub(crate) fn parameters_of(dict: &Bound<'_, PyDict>) -> PyResult<Parameters> {
    dict.iter()
        .map(|(key, value)| {
            let Ok(key) = key.extract::<String>() else {
                return Err(PyTypeError::new_err(format!("the name of a parameter is a text, not {key:?}")));
            };
            let value = parameter_of(&key, &value)?;
            Ok((key, value))
        })
        .collect()
}

fn parameter_of(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Parameter> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Parameter::Text(text.to_str()?.to_owned()));
    }
    // A bool is an int to Python: it is asked for first. NumPy's scalars are none of the classes, but convert.
    if value.is_instance_of::<PyBool>() || !value.is_instance_of::<PyInt>() && value.extract::<bool>().is_ok() {
        return value.extract().map(Parameter::Bool);
    }
    if value.is_instance_of::<PyFloat>() {
        return value.extract().map(Parameter::Double);
    }
    let number = whole_number(key, value);
    if number.is_ok() || value.is_instance_of::<PyInt>() {
        return number;
    }
    number.or_else(|error| value.extract().map(Parameter::Double).map_err(|_| error))
}

fn whole_number(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Parameter> {
    let int = value.extract().map(Parameter::Int);
    int.or_else(|_| value.extract().map(Parameter::Uint)).map_err(|_| {
        let text =
            format!("parameter '{key}' is {value:?}; a parameter is a bool, an int of 64 bits, a float or a str");
        PyTypeError::new_err(text)
    })
}
