//! What is sent for a request: metadata and where its bytes lie.

use anyserve_core::{Code, Error, Limits, Parameters};
use anyserve_wire::{Frame, Kind, flags, message};
use bytes::Bytes;
use prost::Message;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::deliver::deliver;
use super::outbox::Outgoing;
use super::session::Session;
use super::share::{Shared, share};
use crate::kserve::{
    Borrowed, InferOutput, Label, ModelInferRequest, ModelInferResponse, Payload, check_len, parameters_of,
};

/// A response that is ready to be sent. It holds on to the arrays that its bytes are in.
pub(super) struct Encoded {
    meta: Bytes,
    pieces: Vec<Piece>,
    /// Bytes of tensors that are in shared memory.
    shared: usize,
}

/// The bytes of one tensor.
pub(super) enum Piece {
    Bytes(Bytes),
    Borrowed(Borrowed),
}

/// A frame about one request, ready to be sent.
pub(super) struct Reply {
    kind: Kind,
    flags: u16,
    encoded: Encoded,
}

/// What a handler returned as a response; `anyserve.handlers.to_response` says what else than one may be returned.
pub(super) fn response_of<'py>(
    value: &Bound<'py, PyAny>,
    request: &Bound<'py, ModelInferRequest>,
) -> PyResult<Bound<'py, ModelInferResponse>> {
    static CONVERT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Ok(response) = value.cast::<ModelInferResponse>() {
        return Ok(response.clone());
    }
    let py = value.py();
    let convert = CONVERT.import(py, "anyserve.handlers", "to_response")?;
    Ok(convert.call1((value, request))?.cast_into::<ModelInferResponse>()?)
}

/// Checks a response, puts its large tensors into the arena, and makes its metadata.
///
/// # Errors
/// `ValueError` or `TypeError`, which reach the caller as the handler's error: an output whose shape does not fit its
/// bytes, that stands twice, or a response beyond the limits.
pub(super) fn encode(
    response: &Bound<'_, ModelInferResponse>,
    session: &Session,
    destinations: &[message::Destination],
    compute_ns: u64,
) -> PyResult<Encoded> {
    let py = response.py();
    let response = response.borrow();
    let outputs = response.output_list(py);
    let mut meta = message::Response {
        outputs: Vec::with_capacity(outputs.len()),
        parameters: response
            .parameters_dict(py)
            .map_or_else(|| Ok(Vec::new()), |dict| key_values(&parameters_of(dict)?))?,
        compute_ns,
        ..Default::default()
    };
    let mut pieces = Vec::with_capacity(outputs.len());
    for item in outputs.iter() {
        let output = item.cast::<InferOutput>().map_err(|_| no_output(&item))?;
        let (tensor, piece) = encode_output(py, &output.borrow())?;
        check_name(&tensor, &meta.outputs)?;
        meta.outputs.push(tensor);
        pieces.push(piece);
    }
    let pieces = deliver(py, &session.link.memory, destinations, &mut meta, pieces)?;
    check_size(&meta, &pieces, &session.link.limits)?;
    let Shared { inline, places, len } = share(py, session, pieces)?;
    meta.places = places;
    let meta = Frame::with_meta(Kind::Done, 0, &meta).meta;
    Ok(Encoded { meta, pieces: inline, shared: len })
}

fn encode_output(py: Python<'_>, output: &InferOutput) -> PyResult<(message::Tensor, Piece)> {
    let piece = Piece::of(py, output)?;
    check_len(py, Label::Output(&output.name), output.datatype, &output.shape, piece.as_slice())?;
    let tensor = message::Tensor {
        name: output.name.clone(),
        datatype: output.datatype.number(),
        shape: output.shape.clone(),
        len: piece.len() as u64,
        parameters: key_values(&output.given_parameters(py)?)?,
    };
    Ok((tensor, piece))
}

#[allow(clippy::unnecessary_wraps)] // It stands where a dict is read, which may fail.
fn key_values(parameters: &Parameters) -> PyResult<Vec<message::KeyValue>> {
    let pair = |(key, value)| message::KeyValue { key, value };
    Ok(parameters.iter().map(|(key, value)| pair((key.clone(), Some(value.into())))).collect())
}

fn no_output(item: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!("outputs of a response holds {item:?}: add outputs with response.add_output(…)"))
}

fn check_name(tensor: &message::Tensor, others: &[message::Tensor]) -> PyResult<()> {
    if others.iter().any(|other| other.name == tensor.name) {
        return Err(PyValueError::new_err(format!("output '{}' stands twice in the response", tensor.name)));
    }
    Ok(())
}

/// Longest encoding of a tensor's place, in bytes.
pub(super) const PLACE_LEN: usize = 64;

fn check_size(meta: &message::Response, pieces: &[(u32, Piece)], limits: &Limits) -> PyResult<()> {
    let body: usize = pieces.iter().map(|(_, piece)| piece.len()).sum();
    // Places are added to it later, at most so many bytes for each tensor.
    let meta_len = meta.encoded_len() + PLACE_LEN * pieces.len();
    let (what, len, max) = match (meta_len, body) {
        (len, _) if len > limits.max_meta => ("metadata", len, limits.max_meta),
        (_, len) if len > limits.max_message => ("tensors", len, limits.max_message),
        _ => return Ok(()),
    };
    Err(PyValueError::new_err(format!("the response has {len} bytes of {what}, at most {max} are allowed")))
}

// === impl Reply ===

impl Reply {
    /// One response of a stream.
    pub(super) fn chunk(encoded: Encoded) -> Self {
        Self { kind: Kind::Chunk, flags: 0, encoded }
    }

    /// The response to an ordinary request.
    pub(super) fn done(encoded: Encoded) -> Self {
        Self { kind: Kind::Done, flags: flags::RESPONSE, encoded }
    }

    /// The end of a stream.
    pub(super) fn end(compute_ns: u64) -> Self {
        let frame = Frame::with_meta(Kind::Done, 0, &message::Response { compute_ns, ..Default::default() });
        Self { kind: Kind::Done, flags: 0, encoded: Encoded::bare(frame) }
    }

    /// The end in an error.
    pub(super) fn failed(error: &Error, compute_ns: u64) -> Self {
        let failed = message::Failed { compute_ns, ..message::Failed::from(error) };
        Self { kind: Kind::Failed, flags: 0, encoded: Encoded::bare(Frame::with_meta(Kind::Failed, 0, &failed)) }
    }

    /// The runtime took the request back before its handler started.
    pub(super) fn taken_back() -> Self {
        let error = Error::new(Code::Cancelled, "the request was taken back before its handler started");
        Self { flags: flags::NOT_STARTED, ..Self::failed(&error, 0) }
    }

    /// The request's time was over before its handler started.
    pub(super) fn too_late() -> Self {
        let error = Error::new(Code::Deadline, "the deadline passed before its handler started");
        Self { flags: flags::NOT_STARTED, ..Self::failed(&error, 0) }
    }

    /// The frame of the request with this id.
    pub(super) fn outgoing(&self, id: u64) -> Outgoing<'_> {
        Outgoing::new(self.kind, self.flags, id, &self.encoded.meta, self.encoded.body())
    }

    /// Bytes on the wire without the header, and those in shared memory.
    pub(super) fn len(&self) -> usize {
        let Encoded { meta, pieces, shared } = &self.encoded;
        meta.len() + shared + pieces.iter().map(Piece::len).sum::<usize>()
    }
}

// === impl Encoded ===

impl Encoded {
    fn bare(frame: Frame) -> Self {
        Self { meta: frame.meta, pieces: Vec::new(), shared: 0 }
    }

    /// The bytes of every tensor, in order.
    fn body(&self) -> Vec<&[u8]> {
        self.pieces.iter().map(Piece::as_slice).collect()
    }
}

// === impl Piece ===

impl Piece {
    /// The bytes of an output, where they are.
    pub(super) fn of(py: Python<'_>, output: &InferOutput) -> PyResult<Self> {
        Ok(match output.payload(py)? {
            Payload::Bytes(bytes) => Self::Bytes(bytes),
            Payload::Array(array) => Self::Borrowed(Borrowed::of_array(array.bind(py))?),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Borrowed(borrowed) => borrowed.as_slice(),
        }
    }
}
