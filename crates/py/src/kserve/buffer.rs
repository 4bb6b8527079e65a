//! Bytes of ours lent to Python, and bytes of Python's lent to us. The one place of this crate with `unsafe`.

use std::ffi::c_int;

use bytes::Bytes;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use super::numpy::numpy;

/// Read-only bytes of a tensor. An array that views them keeps them alive.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Buffer {
    data: Bytes,
}

/// An array's memory, borrowed: it can neither move nor go away until this is dropped.
pub(crate) struct Borrowed {
    buffer: PyUntypedBuffer,
}

// === impl Buffer ===

impl Buffer {
    pub(super) fn new(data: Bytes) -> Self {
        Self { data }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.data.len()
    }

    fn __repr__(&self) -> String {
        format!("<Buffer of {} bytes>", self.data.len())
    }

    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(slf: &Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let data = &slf.get().data;
        let len = ffi::Py_ssize_t::try_from(data.len())?;
        let start = data.as_ptr().cast_mut().cast();
        // SAFETY: `view` is the interpreter's. The bytes are immutable, so they are lent read-only (the 1), and live as
        // long as `slf`, to which the view holds a reference.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

// === impl Borrowed ===

impl Borrowed {
    /// Borrows an array of a fixed-size datatype, or a contiguous copy of it if it has gaps.
    pub(crate) fn of_array(array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = array.py();
        if array.getattr(intern!(py, "ndim"))?.extract::<usize>()? == 0 {
            // The buffer of an array without dimensions has no shape, which cannot be read.
            let flat = array.call_method1(intern!(py, "reshape"), (1,))?;
            return Ok(Self { buffer: PyUntypedBuffer::get(&flat)? });
        }
        let buffer = PyUntypedBuffer::get(array)?;
        if buffer.is_c_contiguous() {
            return Ok(Self { buffer });
        }
        let copy = numpy(py)?.contiguous.bind(py).call1((array,))?;
        Ok(Self { buffer: PyUntypedBuffer::get(&copy)? })
    }

    /// Borrows the bytes of anything that has some; `None` if they are not contiguous.
    pub(super) fn of_bytes(object: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let buffer = PyUntypedBuffer::get(object)?;
        Ok(Some(Self { buffer }).filter(|own| own.buffer.is_c_contiguous()))
    }

    /// The bytes, in row-major order.
    #[allow(unsafe_code)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        let len = self.buffer.len_bytes();
        if len == 0 {
            return &[];
        }
        // SAFETY: the buffer is C-contiguous, so it is `len` initialised bytes from its start, and the export that
        // `self` holds pins them. Another Python thread may write to the array meanwhile, as with every buffer: then
        // the bytes that are sent are old, new or mixed, but never anybody else's; nothing here reads a byte twice.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast(), len) }
    }
}
