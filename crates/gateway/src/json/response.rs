//! From a `ModelInferResponse` to JSON.

use std::collections::BTreeMap;
use std::io::Write;

use anyserve_core::{BytesReader, Code, Datatype, Error, Tensor, elements};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use anyserve_proto::inference::{InferParameter, ModelInferResponse};
use half::{bf16, f16};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters<'a>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    shape: &'a [i64],
    datatype: &'static str,
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters<'a>,
    data: Data<'a>,
}

struct Parameters<'a>(&'a BTreeMap<String, InferParameter>);

/// Elements, which were checked, as a flat list.
struct Data<'a> {
    datatype: Datatype,
    raw: &'a [u8],
}

/// Writes a response.
///
/// # Errors
/// `INVALID_INPUT` for what JSON cannot say: texts that are no UTF-8, tensors in shared memory. `INTERNAL` for a response
/// that is none, and where nothing can be written to `out`.
pub(super) fn render(response: &ModelInferResponse, out: impl Write) -> Result<(), Error> {
    let raws = &response.raw_output_contents;
    if raws.len() != response.outputs.len() {
        let (got, expected) = (raws.len(), response.outputs.len());
        let message = format!("{got} of {expected} outputs have raw contents: use gRPC for the others");
        return Err(Error::invalid(message));
    }
    let outputs = response.outputs.iter().zip(raws).map(|(output, raw)| Output::of(output, raw));
    let answer = Answer {
        model_name: &response.model_name,
        model_version: &response.model_version,
        id: &response.id,
        parameters: Parameters(&response.parameters),
        outputs: outputs.collect::<Result<_, _>>()?,
    };
    serde_json::to_writer(out, &answer).map_err(|error| Error::internal(format!("an answer is no JSON: {error}")))
}

// === impl Output ===

impl<'a> Output<'a> {
    fn of(output: &'a InferOutputTensor, raw: &'a [u8]) -> Result<Self, Error> {
        let datatype = check(output, raw)?;
        let (name, shape, parameters) = (&*output.name, &*output.shape, Parameters(&output.parameters));
        Ok(Self { name, shape, datatype: datatype.name(), parameters, data: Data { datatype, raw } })
    }
}

/// The datatype of an output whose bytes are what it says.
fn check(output: &InferOutputTensor, raw: &[u8]) -> Result<Datatype, Error> {
    let InferOutputTensor { name, datatype, shape, .. } = output;
    let wrong = |why: String| Error::new(Code::Internal, format!("output '{name}' of a replica: {why}"));
    let datatype = Datatype::from_name(datatype).ok_or_else(|| wrong(format!("no datatype is '{datatype}'")))?;
    let expected = Tensor::expected_len(datatype, shape).map_err(|error| wrong(error.to_string()))?;
    match expected {
        Some(len) if len == raw.len() => Ok(datatype),
        Some(len) => Err(wrong(format!("{} bytes, expected {len} for shape {shape:?} of {datatype}", raw.len()))),
        None => {
            let mut count = 0;
            for element in BytesReader::new(raw) {
                let element = element.map_err(|error| wrong(error.to_string()))?;
                std::str::from_utf8(element).map_err(|_| no_text(name, count))?;
                count += 1;
            }
            let expected = elements(shape).map_err(|error| wrong(error.to_string()))?;
            let differs = || wrong(format!("{count} elements, expected {expected} for shape {shape:?}"));
            if count == expected { Ok(datatype) } else { Err(differs()) }
        }
    }
}

fn no_text(output: &str, element: usize) -> Error {
    Error::invalid(format!("element {element} of output '{output}' is no UTF-8 text, which JSON cannot say: use gRPC"))
}

// === impl Parameters ===

impl Parameters<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Scalar(value.parameter_choice.as_ref()))))
    }
}

struct Scalar<'a>(Option<&'a ParameterChoice>);

impl Serialize for Scalar<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_none(),
            Some(ParameterChoice::BoolParam(value)) => serializer.serialize_bool(*value),
            Some(ParameterChoice::Int64Param(value)) => serializer.serialize_i64(*value),
            Some(ParameterChoice::Uint64Param(value)) => serializer.serialize_u64(*value),
            Some(ParameterChoice::DoubleParam(value)) => Real(*value).serialize(serializer),
            Some(ParameterChoice::StringParam(value)) => serializer.serialize_str(value),
        }
    }
}

// === impl Data ===

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = self.raw;
        match self.datatype {
            Datatype::Bool => serializer.collect_seq(raw.iter().map(|byte| *byte != 0)),
            Datatype::Uint8 => serializer.collect_seq(raw),
            Datatype::Int8 => serializer.collect_seq(numbers(raw, i8::from_le_bytes)),
            Datatype::Uint16 => serializer.collect_seq(numbers(raw, u16::from_le_bytes)),
            Datatype::Int16 => serializer.collect_seq(numbers(raw, i16::from_le_bytes)),
            Datatype::Uint32 => serializer.collect_seq(numbers(raw, u32::from_le_bytes)),
            Datatype::Int32 => serializer.collect_seq(numbers(raw, i32::from_le_bytes)),
            Datatype::Uint64 => serializer.collect_seq(numbers(raw, u64::from_le_bytes)),
            Datatype::Int64 => serializer.collect_seq(numbers(raw, i64::from_le_bytes)),
            Datatype::Fp16 => serializer.collect_seq(numbers(raw, |bytes| Real(f16::from_le_bytes(bytes).to_f32()))),
            Datatype::Bf16 => serializer.collect_seq(numbers(raw, |bytes| Real(bf16::from_le_bytes(bytes).to_f32()))),
            Datatype::Fp32 => serializer.collect_seq(numbers(raw, |bytes| Real(f32::from_le_bytes(bytes)))),
            Datatype::Fp64 => serializer.collect_seq(numbers(raw, |bytes| Real(f64::from_le_bytes(bytes)))),
            Datatype::Bytes => {
                let texts = BytesReader::new(raw).map_while(Result::ok);
                serializer.collect_seq(texts.map_while(|text| std::str::from_utf8(text).ok()))
            }
        }
    }
}

fn numbers<'a, T: 'a, const N: usize>(raw: &'a [u8], of: impl Fn([u8; N]) -> T + 'a) -> impl Iterator<Item = T> + 'a {
    raw.as_chunks::<N>().0.iter().map(move |bytes| of(*bytes))
}

/// A number with a fraction. Those that JSON has not are texts, as in the JSON of Protocol Buffers.
struct Real<T>(T);

impl<T: Serialize + Copy + Into<f64>> Serialize for Real<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: f64 = self.0.into();
        if value.is_finite() {
            self.0.serialize(serializer)
        } else if value.is_nan() {
            serializer.serialize_str("NaN")
        } else {
            serializer.serialize_str(if value > 0.0 { "Infinity" } else { "-Infinity" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::{Value, json};

    fn response(datatype: &str, shape: &[i64], raw: &[u8]) -> ModelInferResponse {
        let (name, datatype, shape) = ("y".to_owned(), datatype.to_owned(), shape.to_vec());
        let output = InferOutputTensor { name, datatype, shape, ..Default::default() };
        ModelInferResponse {
            model_name: "m".into(),
            model_version: "1".into(),
            outputs: vec![output],
            raw_output_contents: vec![Bytes::copy_from_slice(raw)],
            ..Default::default()
        }
    }

    fn rendered(response: &ModelInferResponse) -> Result<Vec<u8>, Error> {
        let mut json = Vec::new();
        render(response, &mut json).map(|()| json)
    }

    fn data(datatype: &str, shape: &[i64], raw: &[u8]) -> Value {
        let told: Value = serde_json::from_slice(&rendered(&response(datatype, shape, raw)).unwrap()).unwrap();
        told["outputs"][0]["data"].clone()
    }

    #[test]
    fn an_answer_is_kserves() {
        let mut answer = response("INT8", &[1, 2], &[1, 0xff]);
        answer.id = "7".into();
        let parameter = InferParameter { parameter_choice: Some(ParameterChoice::DoubleParam(0.5)) };
        answer.parameters.insert("p".into(), parameter);
        let told: Value = serde_json::from_slice(&rendered(&answer).unwrap()).unwrap();
        let outputs = json!([{"name": "y", "shape": [1, 2], "datatype": "INT8", "data": [1, -1]}]);
        let whole = json!({"model_name": "m", "model_version": "1", "id": "7", "parameters": {"p": 0.5}});
        for (key, value) in whole.as_object().unwrap() {
            assert_eq!(&told[key], value);
        }
        assert_eq!(told["outputs"], outputs);
    }

    #[test]
    fn every_datatype_has_its_elements() {
        assert_eq!(data("BOOL", &[2], &[1, 0]), json!([true, false]));
        assert_eq!(data("UINT64", &[1], &[0xff; 8]), json!([u64::MAX]));
        assert_eq!(data("FP16", &[2], &[0, 0x3c, 0, 0x7c]), json!([1.0, "Infinity"]));
        assert_eq!(data("BF16", &[1], &[0x80, 0x3f]), json!([1.0]));
        let floats = [0.1_f32.to_le_bytes(), f32::NAN.to_le_bytes(), f32::NEG_INFINITY.to_le_bytes()].concat();
        assert_eq!(data("FP32", &[3], &floats).to_string(), r#"[0.1,"NaN","-Infinity"]"#);
        assert_eq!(data("BYTES", &[2], b"\x01\0\0\0a\0\0\0\0"), json!(["a", ""]));
        for (datatype, size) in Datatype::all().filter_map(|one| Some((one, one.size()?))) {
            assert_eq!(data(datatype.name(), &[2], &vec![0; 2 * size]).as_array().unwrap().len(), 2, "{datatype}");
        }
    }

    #[test]
    fn what_json_cannot_say_or_is_no_tensor_is_an_error() {
        let code = |answer: &ModelInferResponse| rendered(answer).unwrap_err().code;
        let no_text = rendered(&response("BYTES", &[1], b"\x01\0\0\0\xff")).unwrap_err();
        assert_eq!(no_text.code, Code::InvalidInput);
        assert!(no_text.message.contains("use gRPC"), "{no_text}");
        assert_eq!(
            code(&ModelInferResponse { raw_output_contents: vec![], ..response("INT8", &[1], &[]) }),
            Code::InvalidInput
        );
        for wrong in [response("INT8", &[2], &[1]), response("int8", &[1], &[1]), response("INT8", &[-1], &[1])] {
            assert_eq!(code(&wrong), Code::Internal);
        }
        assert_eq!(code(&response("BYTES", &[2], b"\0\0\0\0")), Code::Internal);
        assert_eq!(code(&response("BYTES", &[1], b"\x09\0\0\0")), Code::Internal);
    }
}
