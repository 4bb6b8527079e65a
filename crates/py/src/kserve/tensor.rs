//! What inputs and outputs have in common: how an error names them, and whether shape and bytes agree.

use anyserve_core::{BytesReader, Datatype, Tensor, elements};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple, PyType};

/// A tensor in an error message, and whose mistake an error in it is.
#[derive(Clone, Copy)]
pub(crate) enum Label<'a> {
    /// An input, of this name: the caller's.
    Input(&'a str),
    /// An output, of this name: the handler's own.
    Output(&'a str),
}

/// The exception of `anyserve.errors` with this name.
pub(crate) fn errors_class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("anyserve.errors").map(Bound::unbind))?;
    Ok(module.bind(py).getattr(name)?.cast_into::<PyType>()?)
}

/// `InvalidInput` with this message.
pub(crate) fn invalid_input(py: Python<'_>, message: &str) -> PyErr {
    errors_class(py, "InvalidInput").map_or_else(|error| error, |class| PyErr::from_type(class, (message.to_owned(),)))
}

/// The datatype with this name, or an error that lists them.
pub(super) fn datatype_named(py: Python<'_>, name: &str, label: Label<'_>) -> PyResult<Datatype> {
    Datatype::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Datatype::all().map(Datatype::name).collect();
        label.error(py, &format!("has the unknown datatype {name:?}: use one of {}", known.join(", ")))
    })
}

/// A shape as it came from Python; negative dimensions are refused.
pub(super) fn shape_of(shape: &Bound<'_, PyAny>, label: Label<'_>) -> PyResult<Vec<i64>> {
    let py = shape.py();
    let dimensions: Result<Vec<i64>, _> = match shape.cast::<PyList>() {
        Ok(list) => list.iter().map(|item| item.extract()).collect(),
        Err(_) => shape.try_iter()?.map(|item| item?.extract()).collect(),
    };
    let dimensions = dimensions
        .map_err(|_: PyErr| label.error(py, &format!("has shape {shape}, expected a list of whole numbers")))?;
    elements(&dimensions).map_err(|error| label.error(py, &format!("has no possible shape: {error}")))?;
    Ok(dimensions)
}

/// A shape as a tuple, as NumPy takes it.
pub(super) fn tuple_of<'py>(py: Python<'py>, shape: &[i64]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, shape)
}

/// Checks that raw bytes are what datatype and shape say.
pub(crate) fn check_len(
    py: Python<'_>,
    label: Label<'_>,
    datatype: Datatype,
    shape: &[i64],
    data: &[u8],
) -> PyResult<()> {
    let wrong = |text: &str| Err(label.error(py, text));
    match Tensor::expected_len(datatype, shape) {
        Err(error) => wrong(&format!("has no possible shape: {error}")),
        Ok(Some(expected)) if expected == data.len() => Ok(()),
        Ok(Some(expected)) => {
            let got = data.len();
            wrong(&format!("has {got} bytes, but {datatype} with shape {shape:?} takes {expected}"))
        }
        Ok(None) => check_bytes(py, label, shape, data),
    }
}

fn check_bytes(py: Python<'_>, label: Label<'_>, shape: &[i64], data: &[u8]) -> PyResult<()> {
    let mut count = 0_usize;
    for element in BytesReader::new(data) {
        element.map_err(|error| label.error(py, &format!("is no BYTES data: {error}")))?;
        count += 1;
    }
    if elements(shape) == Ok(count) {
        return Ok(());
    }
    let expected = elements(shape).unwrap_or(usize::MAX);
    Err(label.error(py, &format!("has {count} BYTES elements, but shape {shape:?} takes {expected}")))
}

// === impl Label ===

impl Label<'_> {
    /// The exception that says this of the tensor: `InvalidInput` for an input; `ValueError`, which reaches the caller
    /// as the handler's error, for an output.
    pub(crate) fn error(self, py: Python<'_>, text: &str) -> PyErr {
        match self {
            Self::Input(name) => invalid_input(py, &format!("input '{name}' {text}")),
            Self::Output(name) => PyValueError::new_err(format!("output '{name}' {text}")),
        }
    }
}
