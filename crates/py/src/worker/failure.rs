//! What a handler raised, as an error of the closed set.

use std::time::Duration;

use anyserve_core::{Code, Error};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Longest text of a message or traceback, in bytes; more helps nobody and would not fit a frame.
const LONGEST: usize = 64 << 10;

/// The error that the caller gets for what was raised.
pub(super) fn error_of(py: Python<'_>, raised: &PyErr) -> Error {
    describe(py, raised).unwrap_or_else(|_| Error::new(Code::HandlerError, raised.to_string()))
}

/// Tells the log that a batch raised and is run again in halves.
pub(super) fn note_halves(py: Python<'_>, raised: &PyErr, function: &str, requests: usize) {
    static NOTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let value = raised.clone_ref(py).into_value(py);
    let noted = NOTE
        .import(py, "anyserve.worker._process", "note_halves")
        .and_then(|note| note.call1((value, function, requests)));
    if let Err(error) = noted {
        error.write_unraisable(py, None);
    }
}

fn describe(py: Python<'_>, raised: &PyErr) -> PyResult<Error> {
    static DESCRIBE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let describe = DESCRIBE.import(py, "anyserve.worker._process", "describe")?;
    let (code, message, traceback, retry_after_s): (String, String, Option<String>, Option<f64>) =
        describe.call1((raised.clone_ref(py).into_value(py),))?.extract()?;
    let mut error = Error::new(Code::from_name(&code).unwrap_or(Code::HandlerError), shortened(message));
    error.traceback = traceback.map(shortened);
    error.retry_after = retry_after_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(error)
}

/// A text of a length that fits a frame.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
