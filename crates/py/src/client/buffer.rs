//! Bytes of a request that stay where Python has them.

use bytes::{BufMut, Bytes, BytesMut};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyString};

/// Below this many bytes a copy costs less than keeping the object's buffer exported.
const COPY_BELOW: usize = 16 << 10;

/// The memory of a Python object.
struct Borrowed {
    address: *const u8,
    len: usize,
    /// Keeps the object alive and its buffer where it is. Unlike a `PyBuffer` it can be dropped on a thread without
    /// the GIL, which the last reference to a request's bytes may well be.
    _export: Py<PyMemoryView>,
}

// SAFETY: the memory is only read, and stays valid on every thread for as long as the export lives. That nobody writes
// to an array while it is being sent is what the client asks of its callers; if one does, the bytes sent are a mixture
// of both, as with any write system call.
#[allow(unsafe_code)]
unsafe impl Send for Borrowed {}

impl AsRef<[u8]> for Borrowed {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer protocol guarantees `len` bytes at `address` while the export lives, which is as long as
        // `self`; `of` made sure that they are contiguous and that the address is not null.
        unsafe { std::slice::from_raw_parts(self.address, self.len) }
    }
}

/// The bytes of an object with the buffer protocol, row-major; large ones without a copy.
///
/// # Errors
/// `TypeError` without a buffer, `BufferError` if it is not C-contiguous.
pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>().map(PyBytesMethods::as_bytes)
        && bytes.len() < COPY_BELOW
    {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    let export = PyMemoryView::from(object)?;
    let view = PyUntypedBuffer::get(&export)?;
    if !view.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not C-contiguous"));
    }
    let (address, len) = (view.buf_ptr().cast_const().cast::<u8>(), view.len_bytes());
    if len == 0 || address.is_null() {
        return Ok(Bytes::new());
    }
    let borrowed = Borrowed { address, len, _export: export.unbind() };
    Ok(if len < COPY_BELOW { Bytes::copy_from_slice(borrowed.as_ref()) } else { Bytes::from_owner(borrowed) })
}

/// Elements of BYTES in their raw form: each a 4-byte little-endian length and as many bytes. Texts become UTF-8.
///
/// # Errors
/// `TypeError` for an element that is neither `bytes` nor `str`, `OverflowError` for one beyond 4 GiB.
pub(crate) fn framed(elements: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let mut raw = BytesMut::new();
    for element in elements.try_iter()? {
        let element = element?;
        if let Ok(text) = element.cast::<PyString>() {
            frame(&mut raw, text.to_cow()?.as_bytes())?;
        } else {
            frame(&mut raw, element.cast::<PyBytes>()?.as_bytes())?;
        }
    }
    Ok(raw.freeze())
}

fn frame(raw: &mut BytesMut, element: &[u8]) -> PyResult<()> {
    raw.put_u32_le(u32::try_from(element.len())?);
    raw.put_slice(element);
    Ok(())
}
