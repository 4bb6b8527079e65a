//! The KServe v2 messages as handlers and clients see them.
//!
//! Bytes stay where they arrived: an input lends them to NumPy, an output lends NumPy's to the socket, and between the
//! two a reference moves. Typed lists are made only for those who ask.

mod buffer;
mod contents;
mod element;
mod input;
mod numpy;
mod output;
mod parameters;
mod request;
mod response;
mod tensor;

pub(crate) use buffer::Borrowed;
pub(crate) use contents::Payload;
pub(crate) use input::InferInput;
pub(crate) use numpy::FromArray;
pub(crate) use output::InferOutput;
pub(crate) use parameters::parameters_of;
pub(crate) use request::{ModelInferRequest, RequestParts};
pub(crate) use response::ModelInferResponse;
pub(crate) use tensor::{Label, check_len, errors_class, invalid_input};

use pyo3::prelude::*;

/// Adds the classes to `anyserve._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<buffer::Buffer>()?;
    module.add_class::<contents::Contents>()?;
    module.add_class::<InferInput>()?;
    module.add_class::<InferOutput>()?;
    module.add_class::<ModelInferRequest>()?;
    module.add_class::<ModelInferResponse>()
}
