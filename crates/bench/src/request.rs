//! The request, built once from the options: KServe's message, its tensors and their bytes.

use std::io;
use std::path::{Path, PathBuf};

use anyserve_core::Datatype;
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_request::InferInputTensor;
use anyserve_proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use prost::Message;

use crate::messages;
use crate::options::GrpcOptions;

/// Tensors are capped well above what a server takes, below what ends this process.
const MAX_TENSOR: usize = 1 << 30;

/// What is wrong with the request asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RequestError {
    #[error("input {input:?} is not name:DATATYPE:shape[=values], as in x:FP32:1,16")]
    NoInput { input: String },
    #[error("input {input:?}: unknown datatype {datatype:?}")]
    UnknownDatatype { input: String, datatype: String },
    #[error("input {input:?}: the shape has a dimension that is no number from 0 on, or is too large")]
    BadShape { input: String },
    #[error("input {input:?}: {value:?} is no {datatype}")]
    BadValue { input: String, value: String, datatype: Datatype },
    #[error("input {input:?}: the shape has {expected} elements, {found} values are given")]
    WrongCount { input: String, expected: usize, found: usize },
    #[error("parameter {0:?} is not key=value")]
    NoParameter(String),
    #[error("header {0:?} is not name:value")]
    NoHeader(String),
    #[error("{0:?} is no server address such as localhost:8000")]
    NoTarget(String),
    #[error("{0:?} is no address such as http://localhost:8000/inference")]
    NoUrl(String),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no serialized ModelInferRequest: {source}")]
    NoMessage { path: PathBuf, source: prost::DecodeError },
    #[error("a message of {0} bytes exceeds gRPC's 4 GiB")]
    TooLarge(usize),
}

/// The bytes of a gRPC message with its prefix, and what an echo of it must carry.
#[derive(Clone, Debug)]
pub(crate) struct GrpcRequest {
    pub(crate) framed: Bytes,
    raw_inputs: Vec<Bytes>,
}

// === impl GrpcRequest ===

impl GrpcRequest {
    pub(crate) fn try_from_options(options: &GrpcOptions) -> Result<Self, RequestError> {
        let message = match &options.payload {
            Some(path) => ModelInferRequest::decode(read(path)?)
                .map_err(|source| RequestError::NoMessage { path: path.clone(), source })?,
            None => build(options)?,
        };
        let framed = messages::frame(&message.encode_to_vec()).map_err(RequestError::TooLarge)?;
        Ok(Self { framed, raw_inputs: message.raw_input_contents })
    }

    /// Whether `answer`, a message with its prefix, carries the inputs as raw outputs.
    pub(crate) fn is_echoed_by(&self, answer: &[u8]) -> bool {
        let Some(message) = answer.get(messages::PREFIX..) else { return false };
        ModelInferResponse::decode(message).is_ok_and(|response| response.raw_output_contents == self.raw_inputs)
    }
}

fn build(options: &GrpcOptions) -> Result<ModelInferRequest, RequestError> {
    let mut request = ModelInferRequest {
        model_name: options.model.clone(),
        model_version: options.model_version.clone(),
        ..Default::default()
    };
    for parameter in &options.parameters {
        let (key, value) = parameter.split_once('=').ok_or_else(|| RequestError::NoParameter(parameter.clone()))?;
        request.parameters.insert(key.to_owned(), parameter_value(value));
    }
    for input in &options.inputs {
        let (tensor, data) = tensor(input, options.zeros)?;
        request.inputs.push(tensor);
        request.raw_input_contents.push(data);
    }
    Ok(request)
}

/// Reads the whole file.
pub(crate) fn read(path: &Path) -> Result<Bytes, RequestError> {
    std::fs::read(path).map(Bytes::from).map_err(|source| RequestError::Read { path: path.to_owned(), source })
}

/// Reads `name:value`.
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), RequestError> {
    let no_header = || RequestError::NoHeader(text.to_owned());
    let (name, value) = text.split_once(':').ok_or_else(no_header)?;
    let name = name.trim().parse().map_err(|_| no_header())?;
    let value = value.trim().parse().map_err(|_| no_header())?;
    Ok((name, value))
}

fn parameter_value(text: &str) -> InferParameter {
    let choice = if let Ok(value) = text.parse::<bool>() {
        ParameterChoice::BoolParam(value)
    } else if let Ok(value) = text.parse::<i64>() {
        ParameterChoice::Int64Param(value)
    } else if let Ok(value) = text.parse::<f64>() {
        ParameterChoice::DoubleParam(value)
    } else {
        ParameterChoice::StringParam(text.to_owned())
    };
    InferParameter { parameter_choice: Some(choice) }
}

fn tensor(input: &str, zeros: bool) -> Result<(InferInputTensor, Bytes), RequestError> {
    let (spec, values) = match input.split_once('=') {
        Some((spec, values)) => (spec, Some(values)),
        None => (input, None),
    };
    let mut parts = spec.splitn(3, ':');
    let (Some(name), Some(datatype), Some(shape)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(RequestError::NoInput { input: input.to_owned() });
    };
    let kind = Datatype::from_name(datatype)
        .ok_or_else(|| RequestError::UnknownDatatype { input: input.to_owned(), datatype: datatype.to_owned() })?;
    let (dims, elements) = read_shape(shape, kind).ok_or_else(|| RequestError::BadShape { input: input.to_owned() })?;
    let data = match values {
        Some(values) => given(input, values, kind, elements)?,
        None if zeros => Bytes::from(vec![0; elements * kind.size().unwrap_or(4)]),
        None => ramp(kind, elements),
    };
    let tensor =
        InferInputTensor { name: name.to_owned(), datatype: datatype.to_owned(), shape: dims, ..Default::default() };
    Ok((tensor, data))
}

/// Dimensions and the number of elements; an empty text is a scalar.
fn read_shape(text: &str, datatype: Datatype) -> Option<(Vec<i64>, usize)> {
    let sizes: Vec<usize> =
        text.split(',').filter(|dim| !dim.is_empty()).map(str::parse).collect::<Result<_, _>>().ok()?;
    let elements = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    let bytes = elements.checked_mul(datatype.size().unwrap_or(4))?;
    let dims = sizes.into_iter().map(i64::try_from).collect::<Result<_, _>>().ok()?;
    (bytes <= MAX_TENSOR).then_some((dims, elements))
}

fn given(input: &str, values: &str, datatype: Datatype, expected: usize) -> Result<Bytes, RequestError> {
    let mut data = BytesMut::new();
    let mut found = 0;
    for value in values.split(',') {
        found += 1;
        put(&mut data, datatype, value).ok_or_else(|| RequestError::BadValue {
            input: input.to_owned(),
            value: value.to_owned(),
            datatype,
        })?;
    }
    if found != expected {
        return Err(RequestError::WrongCount { input: input.to_owned(), expected, found });
    }
    Ok(data.freeze())
}

/// Elements 0, 1, 2 … that wrap before the narrowest datatype would.
fn ramp(datatype: Datatype, elements: usize) -> Bytes {
    let wrap = if datatype == Datatype::Bool { 2 } else { 128 };
    let period = (0..wrap).map(|element: u8| element.to_string());
    let mut data = BytesMut::with_capacity(elements * datatype.size().unwrap_or(8));
    for value in period.cycle().take(elements) {
        put(&mut data, datatype, &value).expect("small whole numbers are values of every datatype");
    }
    data.freeze()
}

/// Appends one element as KServe's raw contents hold it.
fn put(data: &mut BytesMut, datatype: Datatype, text: &str) -> Option<()> {
    match datatype {
        Datatype::Bool => data.put_u8(boolean(text)?),
        Datatype::Uint8 => data.put_u8(text.parse().ok()?),
        Datatype::Uint16 => data.put_u16_le(text.parse().ok()?),
        Datatype::Uint32 => data.put_u32_le(text.parse().ok()?),
        Datatype::Uint64 => data.put_u64_le(text.parse().ok()?),
        Datatype::Int8 => data.put_i8(text.parse().ok()?),
        Datatype::Int16 => data.put_i16_le(text.parse().ok()?),
        Datatype::Int32 => data.put_i32_le(text.parse().ok()?),
        Datatype::Int64 => data.put_i64_le(text.parse().ok()?),
        Datatype::Fp16 => data.put_u16_le(half::f16::from_f64(text.parse().ok()?).to_bits()),
        Datatype::Bf16 => data.put_u16_le(half::bf16::from_f64(text.parse().ok()?).to_bits()),
        Datatype::Fp32 => data.put_f32_le(text.parse().ok()?),
        Datatype::Fp64 => data.put_f64_le(text.parse().ok()?),
        Datatype::Bytes => {
            data.put_u32_le(u32::try_from(text.len()).ok()?);
            data.put_slice(text.as_bytes());
        }
    }
    Some(())
}

fn boolean(text: &str) -> Option<u8> {
    match text {
        "0" | "false" => Some(0),
        "1" | "true" => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(input: &str) -> Vec<u8> {
        tensor(input, false).unwrap().1.to_vec()
    }

    #[test]
    fn an_input_without_values_is_a_ramp_of_its_shape() {
        let (tensor, data) = tensor("x:FP32:1,16", false).unwrap();
        assert_eq!((tensor.name.as_str(), tensor.datatype.as_str()), ("x", "FP32"));
        assert_eq!(tensor.shape, [1, 16]);
        assert_eq!(data.len(), 64);
        assert_eq!(data[60..], 15.0_f32.to_le_bytes());
    }

    #[test]
    fn every_datatype_has_a_ramp_and_zeros_of_its_size() {
        for datatype in Datatype::all().filter(|datatype| datatype.size().is_some()) {
            let input = format!("x:{datatype}:300");
            let length = 300 * datatype.size().unwrap();
            assert_eq!(tensor(&input, false).unwrap().1.len(), length, "{datatype}");
            assert_eq!(tensor(&input, true).unwrap().1, vec![0; length], "{datatype}");
        }
    }

    #[test]
    fn values_are_little_endian_and_bytes_have_their_length_before_them() {
        assert_eq!(data("n:INT32:2=1,-1"), [1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(data("h:FP16:1=1"), [0x00, 0x3c]);
        assert_eq!(data("b:BOOL:2=true,0"), [1, 0]);
        assert_eq!(data("t:BYTES:2=hi,"), [2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0]);
    }

    #[test]
    fn scalars_and_empty_tensors_are_legal() {
        assert_eq!(data("x:INT8:"), [0]);
        assert!(data("x:INT8:0,4").is_empty());
        assert_eq!(tensor("x:BYTES:2", true).unwrap().1, vec![0; 8]);
    }

    #[test]
    fn a_wrong_input_is_refused_with_its_reason() {
        for (input, reason) in [
            ("x", "is not name:DATATYPE:shape"),
            ("x:FP31:1", "unknown datatype \"FP31\""),
            ("x:FP32:-1", "dimension"),
            ("x:FP32:9999999999,9999999999", "too large"),
            ("x:INT8:1=300", "\"300\" is no INT8"),
            ("x:INT8:2=1", "2 elements, 1 values"),
        ] {
            let error = tensor(input, false).unwrap_err().to_string();
            assert!(error.contains(reason), "{input}: {error}");
        }
    }

    #[test]
    fn parameters_take_the_type_they_look_like() {
        let choice = |text| parameter_value(text).parameter_choice.unwrap();
        assert_eq!(choice("true"), ParameterChoice::BoolParam(true));
        assert_eq!(choice("7"), ParameterChoice::Int64Param(7));
        assert_eq!(choice("0.5"), ParameterChoice::DoubleParam(0.5));
        assert_eq!(choice("x"), ParameterChoice::StringParam("x".to_owned()));
    }
}
