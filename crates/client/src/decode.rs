//! KServe messages to core types. What a server says is checked before it is believed.

use anyserve_core::{
    BytesReader, Code, Datatype, Error, Parameter, Parameters, Response, Tensor, TensorSpec, elements,
};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use anyserve_proto::inference::model_metadata_response::TensorMetadata;
use anyserve_proto::inference::{InferParameter, InferTensorContents, ModelInferResponse};
use bytes::{BufMut, Bytes, BytesMut};

/// The answer of a server as core's response. Raw contents are shared, typed ones are written out.
///
/// # Errors
/// `INTERNAL` where the answer breaks the protocol: the fault is the server's.
pub(crate) fn response(message: ModelInferResponse) -> Result<Response, Error> {
    let ModelInferResponse { model_name, model_version, id, parameters: named, outputs, raw_output_contents } = message;
    let (have, raw) = (outputs.len(), raw_output_contents.len());
    if raw > 0 && raw != have {
        return Err(broken(&format!("{have} outputs and {raw} raw contents")));
    }
    let mut raw = raw_output_contents.into_iter();
    let outputs = outputs.into_iter().map(|output| tensor(output, raw.next())).collect::<Result<_, _>>()?;
    Ok(Response { id, model: model_name, version: model_version, outputs, parameters: parameters(named) })
}

/// A declared input or output.
pub(crate) fn spec(declared: TensorMetadata) -> Result<TensorSpec, Error> {
    let datatype = datatype(&declared.name, &declared.datatype)?;
    Ok(TensorSpec { name: declared.name, datatype, shape: declared.shape })
}

/// Parameters in the order of their names; one without a value is left out.
fn parameters(named: impl IntoIterator<Item = (String, InferParameter)>) -> Parameters {
    let value = |(name, parameter): (String, InferParameter)| Some((name, value(parameter.parameter_choice?)));
    named.into_iter().filter_map(value).collect()
}

fn value(choice: ParameterChoice) -> Parameter {
    match choice {
        ParameterChoice::BoolParam(truth) => Parameter::Bool(truth),
        ParameterChoice::Int64Param(number) => Parameter::Int(number),
        ParameterChoice::Uint64Param(number) => Parameter::Uint(number),
        ParameterChoice::DoubleParam(number) => Parameter::Double(number),
        ParameterChoice::StringParam(text) => Parameter::Text(text),
    }
}

fn broken(what: &str) -> Error {
    Error::new(Code::Internal, format!("the answer breaks the protocol: {what}"))
}

fn datatype(name: &str, datatype: &str) -> Result<Datatype, Error> {
    Datatype::from_name(datatype).ok_or_else(|| broken(&format!("tensor '{name}' has the datatype '{datatype}'")))
}

fn tensor(output: InferOutputTensor, raw: Option<Bytes>) -> Result<Tensor, Error> {
    let InferOutputTensor { name, datatype: type_name, shape, parameters: named, contents } = output;
    let datatype = datatype(&name, &type_name)?;
    let data = match raw {
        Some(data) => data,
        None => typed(datatype, &contents.unwrap_or_default())
            .ok_or_else(|| broken(&format!("output '{name}' has contents that are not {datatype}")))?,
    };
    let tensor = Tensor { name, datatype, shape, data, parameters: parameters(named) };
    check_len(&tensor)?;
    Ok(tensor)
}

fn check_len(tensor: &Tensor) -> Result<(), Error> {
    let Tensor { name, datatype, shape, data, .. } = tensor;
    let expected =
        Tensor::expected_len(*datatype, shape).map_err(|error| broken(&format!("output '{name}': {error}")))?;
    let (have, expected, unit) = if let Some(expected) = expected {
        (data.len(), expected, "bytes")
    } else {
        let have = BytesReader::new(data).try_fold(0_usize, |count, item| item.map(|_| count + 1));
        let have = have.map_err(|error| broken(&format!("output '{name}': {error}")))?;
        (have, elements(shape).unwrap_or_default(), "elements")
    };
    if have == expected {
        return Ok(());
    }
    Err(broken(&format!(
        "output '{name}' of datatype {datatype} and shape {shape:?} has {have} {unit}, not {expected}"
    )))
}

/// Typed contents as raw bytes; `None` if a number does not fit the datatype, or the datatype has no typed form.
fn typed(datatype: Datatype, contents: &InferTensorContents) -> Option<Bytes> {
    match datatype {
        Datatype::Bool => put(&contents.bool_contents, |truth| Some([u8::from(truth)])),
        Datatype::Int8 => put(&contents.int_contents, |number| i8::try_from(number).ok().map(i8::to_le_bytes)),
        Datatype::Int16 => put(&contents.int_contents, |number| i16::try_from(number).ok().map(i16::to_le_bytes)),
        Datatype::Int32 => put(&contents.int_contents, |number| Some(number.to_le_bytes())),
        Datatype::Int64 => put(&contents.int64_contents, |number| Some(number.to_le_bytes())),
        Datatype::Uint8 => put(&contents.uint_contents, |number| u8::try_from(number).ok().map(u8::to_le_bytes)),
        Datatype::Uint16 => put(&contents.uint_contents, |number| u16::try_from(number).ok().map(u16::to_le_bytes)),
        Datatype::Uint32 => put(&contents.uint_contents, |number| Some(number.to_le_bytes())),
        Datatype::Uint64 => put(&contents.uint64_contents, |number| Some(number.to_le_bytes())),
        Datatype::Fp32 => put(&contents.fp32_contents, |number| Some(number.to_le_bytes())),
        Datatype::Fp64 => put(&contents.fp64_contents, |number| Some(number.to_le_bytes())),
        Datatype::Bytes => framed(&contents.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => None,
    }
}

fn put<T: Copy, const N: usize>(items: &[T], bytes: impl Fn(T) -> Option<[u8; N]>) -> Option<Bytes> {
    let mut raw = BytesMut::with_capacity(items.len() * N);
    for item in items {
        raw.put_slice(&bytes(*item)?);
    }
    Some(raw.freeze())
}

fn framed(items: &[Bytes]) -> Option<Bytes> {
    let mut raw = BytesMut::with_capacity(items.iter().map(|item| item.len() + 4).sum());
    for item in items {
        raw.put_u32_le(u32::try_from(item.len()).ok()?);
        raw.put_slice(item);
    }
    Some(raw.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferOutputTensor {
        let (datatype, shape) = (datatype.to_owned(), shape.to_vec());
        InferOutputTensor { name: "y".into(), datatype, shape, contents: Some(contents), ..Default::default() }
    }

    fn answer(outputs: Vec<InferOutputTensor>, raw: &[&'static [u8]]) -> Result<Response, Error> {
        let raw_output_contents = raw.iter().map(|data| Bytes::from_static(data)).collect();
        response(ModelInferResponse { outputs, raw_output_contents, ..Default::default() })
    }

    #[test]
    fn raw_contents_are_taken_as_they_are_and_typed_ones_written_out() {
        let raw = answer(vec![output("INT16", &[2], InferTensorContents::default())], &[&[1, 0, 2, 0]]).unwrap();
        let contents = InferTensorContents { int_contents: vec![1, 2], ..Default::default() };
        assert_eq!(answer(vec![output("INT16", &[2], contents)], &[]), Ok(raw));
        let contents =
            InferTensorContents { bytes_contents: vec![Bytes::from("ab"), Bytes::new()], ..Default::default() };
        let typed = answer(vec![output("BYTES", &[2, 1], contents)], &[]).unwrap();
        assert_eq!(typed.outputs[0].data.as_ref(), b"\x02\0\0\0ab\0\0\0\0");
    }

    #[test]
    fn an_answer_that_breaks_the_protocol_is_the_servers_fault() {
        let empty = InferTensorContents::default;
        let wide = InferTensorContents { int_contents: vec![300], ..Default::default() };
        for (output, raw, part) in [
            (output("FP32", &[2], empty()), vec![&b"1234"[..]], "shape [2] has 4 bytes, not 8"),
            (output("FP32", &[-1], empty()), vec![&b"1234"[..]], "is negative"),
            (output("FP32", &[i64::MAX, 9], empty()), vec![&b""[..]], "more elements"),
            (output("STRING", &[1], empty()), vec![&b""[..]], "datatype 'STRING'"),
            (output("BYTES", &[1], empty()), vec![&b"\x05\0\0\0ab"[..]], "5 bytes by its prefix"),
            (output("BYTES", &[2], empty()), vec![&b"\0\0\0\0"[..]], "has 1 elements, not 2"),
            (output("FP32", &[0], empty()), vec![&b""[..], &b""[..]], "1 outputs and 2 raw"),
            (output("INT8", &[1], wide), vec![], "not INT8"),
            (output("FP16", &[1], empty()), vec![], "not FP16"),
        ] {
            let error = answer(vec![output], &raw).unwrap_err();
            assert_eq!(error.code, Code::Internal);
            assert!(error.message.contains(part), "{error}");
        }
    }
}
