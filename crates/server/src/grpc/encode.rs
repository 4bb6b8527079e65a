//! From the runtime's response to framed protobuf, without an intermediate message: names and shapes are written from
//! where they are, and a large tensor is not copied but written from where it is.
//!
//! Source: the Protocol Buffers encoding; field numbers of `ModelInferResponse` and `ModelStreamInferResponse`.

use anyserve_core::header::HAND_BACK;
use anyserve_core::{Code, Error, Parameter, Parameters, Response, Tensor};
use bytes::{BufMut, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::compression::Encoding;
use super::framing::PREFIX;
use super::parameters::to_proto;
use super::status;
use crate::body::{Chunks, LARGE};

/// What a message is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// A `ModelInferResponse` by itself.
    Unary,
    /// A `ModelInferResponse` in a `ModelStreamInferResponse`.
    Stream,
}

/// How messages of one call are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoder {
    /// What a response is put into.
    pub(super) envelope: Envelope,
    /// How it is compressed.
    pub(super) encoding: Encoding,
    /// Longest message in bytes.
    pub(super) max_message: usize,
}

// Keys of fields: the number, and that a length follows.
const MODEL_NAME: u8 = key(1);
const MODEL_VERSION: u8 = key(2);
const ID: u8 = key(3);
const PARAMETERS: u8 = key(4);
const OUTPUTS: u8 = key(5);
const RAW_OUTPUT_CONTENTS: u8 = key(6);
const TENSOR_NAME: u8 = key(1);
const TENSOR_DATATYPE: u8 = key(2);
const TENSOR_SHAPE: u8 = key(3);
const ENTRY_KEY: u8 = key(1);
const ENTRY_VALUE: u8 = key(2);
const STREAM_ERROR: u8 = key(1);
const STREAM_RESPONSE: u8 = key(2);

const fn key(field: u8) -> u8 {
    field << 3 | 2
}

// === impl Encoder ===

impl Encoder {
    /// Adds a response, framed.
    ///
    /// # Errors
    /// `INTERNAL` for a response beyond the limit; nothing is added then.
    pub(super) fn response(&self, response: Response, out: &mut Chunks) -> Result<(), Error> {
        let sizes = Sizes::of(&response);
        let len = match self.envelope {
            Envelope::Unary => sizes.message,
            Envelope::Stream => field_len(sizes.message),
        };
        self.check(len, &response.model)?;
        if self.encoding == Encoding::Identity {
            out.reserve(PREFIX + len - sizes.apart);
            put_prefix(out.buffer(), false, len);
            self.write(response, &sizes, out);
            return Ok(());
        }
        let mut message = Chunks::default();
        self.write(response, &sizes, &mut message);
        self.compressed(message, out);
        Ok(())
    }

    /// Adds the error of one request of a stream, framed.
    pub(super) fn error(&self, error: &Error, id: &str, out: &mut Chunks) {
        let mut parameters = vec![(status::CODE.to_owned(), Parameter::Text(error.code.name().into()))];
        if let Some(after) = error.retry_after {
            let ms = i64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
            parameters.push((status::RETRY_AFTER.to_owned(), Parameter::Int(ms)));
        }
        if let Some(selector) = status::hand_back(error) {
            parameters.push((HAND_BACK.to_owned(), Parameter::Text(selector)));
        }
        let response = Response { id: id.to_owned(), parameters, ..Response::default() };
        let sizes = Sizes::of(&response);
        let mut message = Chunks::default();
        put_field(message.buffer(), STREAM_ERROR, error.message.as_bytes());
        self.write(response, &sizes, &mut message);
        self.compressed(message, out);
    }

    fn check(&self, len: usize, model: &str) -> Result<(), Error> {
        // Four bytes are all that the prefix has for a length.
        let max = self.max_message.min(u32::MAX as usize);
        if len <= max {
            return Ok(());
        }
        Err(Error::new(Code::HandlerError, format!("response of model '{model}' has {len} bytes, the limit is {max}")))
    }

    fn compressed(&self, message: Chunks, out: &mut Chunks) {
        let data = self.encoding.compress(message);
        put_prefix(out.buffer(), self.encoding != Encoding::Identity, data.len());
        out.push(data.into());
    }

    fn write(&self, response: Response, sizes: &Sizes, out: &mut Chunks) {
        let buffer = out.buffer();
        if self.envelope == Envelope::Stream {
            put_key(buffer, STREAM_RESPONSE, sizes.message);
        }
        put_text(buffer, MODEL_NAME, &response.model);
        put_text(buffer, MODEL_VERSION, &response.version);
        put_text(buffer, ID, &response.id);
        put_parameters(buffer, &response.parameters);
        for output in &response.outputs {
            put_output(buffer, output);
        }
        for output in response.outputs {
            put_key(out.buffer(), RAW_OUTPUT_CONTENTS, output.data.len());
            out.push(output.data);
        }
    }
}

/// Lengths that stand before what they measure.
struct Sizes {
    /// Bytes of the `ModelInferResponse`.
    message: usize,
    /// How many of those are tensors that are written by themselves.
    apart: usize,
}

// === impl Sizes ===

impl Sizes {
    fn of(response: &Response) -> Self {
        let texts = [&response.model, &response.version, &response.id];
        let mut message: usize = texts.map(|text| text_len(text)).into_iter().sum();
        message += parameters_len(&response.parameters);
        let mut apart = 0;
        for output in &response.outputs {
            message += field_len(output_len(output)) + field_len(output.data.len());
            apart += if output.data.len() < LARGE { 0 } else { output.data.len() };
        }
        Self { message, apart }
    }
}

/// A field of `len` bytes with its key, which is always one byte here.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// A text that is left out where it is empty.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { field_len(text.len()) }
}

fn output_len(output: &Tensor) -> usize {
    let shape = shape_len(&output.shape);
    let shape = if output.shape.is_empty() { 0 } else { field_len(shape) };
    text_len(&output.name) + field_len(output.datatype.name().len()) + shape + parameters_len(&output.parameters)
}

fn shape_len(shape: &[i64]) -> usize {
    shape.iter().map(|size| encoded_len_varint(size.cast_unsigned())).sum()
}

fn parameters_len(parameters: &Parameters) -> usize {
    parameters.iter().map(|(name, value)| field_len(entry_len(name, to_proto(value).encoded_len()))).sum()
}

fn entry_len(name: &str, value: usize) -> usize {
    text_len(name) + field_len(value)
}

fn put_prefix(out: &mut BytesMut, compressed: bool, len: usize) {
    out.put_u8(u8::from(compressed));
    out.put_u32(u32::try_from(len).expect("messages are checked to be shorter than that"));
}

fn put_key(out: &mut BytesMut, key: u8, len: usize) {
    out.put_u8(key);
    encode_varint(len as u64, out);
}

fn put_field(out: &mut BytesMut, key: u8, data: &[u8]) {
    put_key(out, key, data.len());
    out.extend_from_slice(data);
}

fn put_text(out: &mut BytesMut, key: u8, text: &str) {
    if !text.is_empty() {
        put_field(out, key, text.as_bytes());
    }
}

fn put_output(out: &mut BytesMut, output: &Tensor) {
    put_key(out, OUTPUTS, output_len(output));
    put_text(out, TENSOR_NAME, &output.name);
    put_text(out, TENSOR_DATATYPE, output.datatype.name());
    if !output.shape.is_empty() {
        put_key(out, TENSOR_SHAPE, shape_len(&output.shape));
        for size in &output.shape {
            encode_varint(size.cast_unsigned(), out);
        }
    }
    put_parameters(out, &output.parameters);
}

/// Field 4 of responses and of their outputs alike.
fn put_parameters(out: &mut BytesMut, parameters: &Parameters) {
    for (name, value) in parameters {
        let value = to_proto(value);
        let len = value.encoded_len();
        put_key(out, PARAMETERS, entry_len(name, len));
        put_text(out, ENTRY_KEY, name);
        put_key(out, ENTRY_VALUE, len);
        value.encode_raw(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::Datatype;
    use anyserve_proto::inference::{ModelInferResponse, ModelStreamInferResponse};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn encoder(envelope: Envelope) -> Encoder {
        Encoder { envelope, encoding: Encoding::Identity, max_message: 1 << 30 }
    }

    fn message<M: Message + Default>(chunks: Chunks) -> M {
        let bytes = chunks.concat();
        let len = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!((bytes[0], usize::try_from(len).unwrap()), (0, bytes.len() - PREFIX));
        M::decode(&bytes[PREFIX..]).unwrap()
    }

    fn decoded(response: &Response) -> ModelInferResponse {
        let mut chunks = Chunks::default();
        encoder(Envelope::Unary).response(response.clone(), &mut chunks).unwrap();
        message(chunks)
    }

    fn tensor(name: &str, shape: &[i64], data: Bytes) -> Tensor {
        let parameters = vec![("p".to_owned(), Parameter::Bool(true))];
        Tensor { name: name.into(), datatype: Datatype::Uint8, shape: shape.to_vec(), data, parameters }
    }

    fn response() -> Response {
        let outputs = vec![tensor("a", &[1, 3], Bytes::from_static(&[1, 2, 3])), tensor("b", &[], Bytes::new())];
        let parameters = vec![("n".to_owned(), Parameter::Int(-1)), ("t".to_owned(), Parameter::Text("é".into()))];
        Response { id: "i".into(), model: "m".into(), version: "1".into(), outputs, parameters }
    }

    #[test]
    fn a_response_is_read_as_it_was_written() {
        let read = decoded(&response());
        assert_eq!((&*read.model_name, &*read.model_version, &*read.id), ("m", "1", "i"));
        assert_eq!(read.parameters["n"], to_proto(&Parameter::Int(-1)));
        assert_eq!(read.parameters["t"], to_proto(&Parameter::Text("é".into())));
        assert_eq!((&*read.outputs[0].name, &*read.outputs[0].datatype), ("a", "UINT8"));
        assert_eq!((&*read.outputs[0].shape, &*read.outputs[1].shape), (&[1, 3][..], &[][..]));
        assert_eq!(read.outputs[0].parameters["p"], to_proto(&Parameter::Bool(true)));
        assert_eq!(read.raw_output_contents, [Bytes::from_static(&[1, 2, 3]), Bytes::new()]);
    }

    #[test]
    fn large_tensors_are_written_from_where_they_are() {
        let data = Bytes::from(vec![9; LARGE]);
        let mut chunks = Chunks::default();
        let outputs = vec![tensor("a", &[1], data.clone()), tensor("b", &[1], Bytes::from_static(&[1]))];
        encoder(Envelope::Unary).response(Response { outputs, ..response() }, &mut chunks).unwrap();
        let (_, second) = (chunks.pop().unwrap(), chunks.pop().unwrap());
        assert_eq!(second.as_ptr(), data.as_ptr());
        assert_eq!(chunks.pop().unwrap(), [RAW_OUTPUT_CONTENTS, 1, 1].as_slice());
    }

    #[test]
    fn a_stream_carries_responses_and_errors_with_their_id() {
        let mut chunks = Chunks::default();
        encoder(Envelope::Stream).response(response(), &mut chunks).unwrap();
        let read: ModelStreamInferResponse = message(chunks);
        assert_eq!((read.error_message, read.infer_response), (String::new(), Some(decoded(&response()))));
        let mut chunks = Chunks::default();
        let full = Error::new(Code::Overloaded, "full").with_retry_after(std::time::Duration::from_micros(1001));
        encoder(Envelope::Stream).error(&full, "7", &mut chunks);
        let read: ModelStreamInferResponse = message(chunks);
        let inner = read.infer_response.unwrap();
        assert_eq!((&*read.error_message, &*inner.id), ("full", "7"));
        assert_eq!(inner.parameters[status::CODE], to_proto(&Parameter::Text("OVERLOADED".into())));
        assert_eq!(inner.parameters[status::RETRY_AFTER], to_proto(&Parameter::Int(2)));
    }

    #[test]
    fn a_compressed_response_is_read_as_it_was_written() {
        let mut chunks = Chunks::default();
        let encoder = Encoder { encoding: Encoding::Gzip, ..encoder(Envelope::Unary) };
        encoder.response(response(), &mut chunks).unwrap();
        let bytes = chunks.concat();
        assert_eq!(bytes[0], 1);
        let mut plain = Vec::new();
        let put = |piece: &[u8]| {
            plain.extend_from_slice(piece);
            Ok(())
        };
        Encoding::Gzip.decompress(&bytes[PREFIX..], 1000, put).unwrap();
        assert_eq!(ModelInferResponse::decode(&*plain).unwrap(), decoded(&response()));
    }

    #[test]
    fn a_response_may_be_as_long_as_the_limit_and_no_longer() {
        let len = Sizes::of(&response()).message;
        let try_with = |max_message| {
            let encoder = Encoder { max_message, ..encoder(Envelope::Unary) };
            encoder.response(response(), &mut Chunks::default())
        };
        assert!(try_with(len + 1).is_ok() && try_with(len).is_ok());
        assert_eq!(try_with(len - 1).unwrap_err().code, Code::HandlerError);
    }

    proptest! {
        #[test]
        fn any_response_is_read_as_it_was_written(
            texts in proptest::collection::vec(".{0,200}", 4),
            shape in proptest::collection::vec(any::<i64>(), 0..5),
            lens in proptest::collection::vec(0..2 * LARGE, 0..4),
        ) {
            let outputs = lens.iter().map(|len| tensor(&texts[3], &shape, vec![1; *len].into())).collect();
            let [model, version, id, _] = texts.clone().try_into().unwrap();
            let written = Response { id, model, version, outputs, parameters: Vec::new() };
            let read = decoded(&written);
            prop_assert_eq!(&read.id, &written.id);
            prop_assert_eq!(read.outputs.len(), lens.len());
            for (output, raw) in written.outputs.iter().zip(&read.raw_output_contents) {
                prop_assert_eq!(&output.data, raw);
            }
            prop_assert!(read.outputs.iter().all(|output| output.shape == shape && output.name == texts[3]));
        }
    }
}
