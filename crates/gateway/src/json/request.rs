//! From a JSON body to the `ModelInferRequest` that a gRPC client would have sent.

use std::collections::BTreeMap;
use std::fmt;

use anyserve_core::{Datatype, Error, Limits, Query, Value, elements};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use anyserve_proto::inference::{InferParameter, ModelInferRequest};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::elements::{Bounds, read};
use super::signatures::Signature;

/// A body whose tensors have not been looked into.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body<'a> {
    #[serde(default, alias = "model_name")]
    model: String,
    #[serde(default)]
    model_version: String,
    #[serde(default)]
    id: String,
    capability: Option<Capability>,
    #[serde(default)]
    parameters: BTreeMap<String, Scalar>,
    #[serde(borrow)]
    inputs: Inputs<'a>,
    #[serde(default)]
    outputs: Vec<Output>,
}

/// A selector, or pairs that must be equal.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "capability has to be a selector such as \"type=chat\" or an object of texts and numbers"
)]
enum Capability {
    Selector(String),
    Pairs(BTreeMap<String, Scalar>),
}

#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "expected a truth value, a number or a text")]
enum Scalar {
    Truth(bool),
    Signed(i64),
    Unsigned(u64),
    Number(f64),
    Text(String),
}

/// Tensors in their order, of either form.
struct Inputs<'a>(Vec<Input<'a>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    name: String,
    shape: Option<Vec<i64>>,
    datatype: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, Scalar>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: BTreeMap<String, Scalar>,
}

/// An input that was given without a datatype, and the one that it was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Untyped {
    pub(super) input: String,
    pub(super) datatype: Datatype,
}

/// Reads a body, but for the elements of its tensors.
///
/// # Errors
/// `INVALID_INPUT` that says where the body stops being a request.
pub(super) fn parse(body: &[u8]) -> Result<Body<'_>, Error> {
    serde_json::from_slice(body).map_err(|error| Error::invalid(format!("the body is no request: {error}")))
}

// === impl Body ===

impl Body<'_> {
    /// The model that is named, or nothing.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The selector of the capability that is asked for, if one is.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a capability without any pair.
    pub(super) fn capability(&self) -> Result<Option<String>, Error> {
        self.capability.as_ref().map(Capability::selector).transpose()
    }

    /// Whether an input is given without a datatype.
    pub(super) fn is_untyped(&self) -> bool {
        self.inputs.0.iter().any(|input| input.datatype.is_none())
    }

    /// The request, and which inputs were given without a datatype. Those have the one of the signature or, if it says
    /// nothing, the one that their elements suggest.
    ///
    /// # Errors
    /// `INVALID_INPUT` that names the input and both numbers.
    pub(super) fn request(
        self,
        signature: &Signature,
        limits: &Limits,
    ) -> Result<(ModelInferRequest, Vec<Untyped>), Error> {
        let capability = self.capability()?;
        let Self { model, model_version, id, parameters, inputs: Inputs(inputs), outputs, .. } = self;
        check_count(inputs.len(), limits.max_tensors, "inputs")?;
        check_count(outputs.len(), limits.max_tensors, "outputs")?;
        let mut request = ModelInferRequest { model_name: model, model_version, id, ..Default::default() };
        request.parameters = self::parameters(parameters);
        if let Some(selector) = capability {
            let asked = Some(ParameterChoice::StringParam(selector));
            request.parameters.insert("capability".to_owned(), InferParameter { parameter_choice: asked });
        }
        request.outputs = outputs.into_iter().map(Output::wanted).collect();
        let untyped = put(inputs, signature, limits, &mut request)?;
        Ok((request, untyped))
    }
}

/// Puts the inputs into a request. Those that were given without a datatype are returned.
fn put(
    inputs: Vec<Input<'_>>,
    signature: &Signature,
    limits: &Limits,
    request: &mut ModelInferRequest,
) -> Result<Vec<Untyped>, Error> {
    let (mut room, mut untyped) = (limits.max_message, Vec::new());
    for input in inputs {
        if request.inputs.iter().any(|other| other.name == input.name) {
            return Err(Error::invalid(format!("input '{}' is given twice", input.name)));
        }
        let typed = input.datatype.is_some();
        let (tensor, datatype, raw) = input.read(signature, Bounds { rank: limits.max_rank, len: room })?;
        if !typed {
            untyped.push(Untyped { input: tensor.name.clone(), datatype });
        }
        room -= raw.len();
        request.inputs.push(tensor);
        request.raw_input_contents.push(raw.into());
    }
    Ok(untyped)
}

fn check_count(count: usize, max: usize, what: &str) -> Result<(), Error> {
    if count <= max { Ok(()) } else { Err(Error::invalid(format!("{count} {what}, the limit is {max}"))) }
}

fn parameters(given: BTreeMap<String, Scalar>) -> BTreeMap<String, InferParameter> {
    let value = |scalar: Scalar| InferParameter { parameter_choice: Some(scalar.parameter()) };
    given.into_iter().map(|(name, scalar)| (name, value(scalar))).collect()
}

// === impl Capability ===

impl Capability {
    fn selector(&self) -> Result<String, Error> {
        let pairs = match self {
            Self::Selector(text) => return Ok(text.clone()),
            Self::Pairs(pairs) => pairs,
        };
        let query = Query::equal_to(pairs.iter().map(|(key, value)| (key, value.spelled())));
        query.to_selector().ok_or_else(|| Error::invalid("capability is empty: say what is asked for"))
    }
}

// === impl Scalar ===

impl Scalar {
    fn parameter(self) -> ParameterChoice {
        match self {
            Self::Truth(value) => ParameterChoice::BoolParam(value),
            Self::Signed(value) => ParameterChoice::Int64Param(value),
            Self::Unsigned(value) => ParameterChoice::Uint64Param(value),
            Self::Number(value) => ParameterChoice::DoubleParam(value),
            Self::Text(value) => ParameterChoice::StringParam(value),
        }
    }

    /// As a condition of a query spells it.
    fn spelled(&self) -> String {
        match self {
            Self::Truth(value) => Value::Bool(*value).to_string(),
            Self::Signed(value) => Value::Int(*value).to_string(),
            Self::Unsigned(value) => value.to_string(),
            Self::Number(value) => Value::Float(*value).to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

// === impl Inputs ===

impl<'de: 'a, 'a> Deserialize<'de> for Inputs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = Vec<Input<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tensors, or an object of names and data")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut inputs = Vec::new();
                while let Some(input) = list.next_element()? {
                    inputs.push(input);
                }
                Ok(inputs)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut inputs = Vec::new();
                while let Some((name, data)) = map.next_entry()? {
                    inputs.push(Input { name, shape: None, datatype: None, parameters: BTreeMap::new(), data });
                }
                Ok(inputs)
            }
        }

        deserializer.deserialize_any(Forms).map(Self)
    }
}

// === impl Input ===

impl Input<'_> {
    /// The tensor, its datatype, and its elements as raw bytes.
    fn read(self, signature: &Signature, bounds: Bounds) -> Result<(InferInputTensor, Datatype, Vec<u8>), Error> {
        let Self { name, shape, datatype, parameters, data } = self;
        let wrong = |why: String| Error::invalid(format!("input '{name}': {why}"));
        let known = |text: String| Datatype::from_name(&text).ok_or_else(|| wrong(format!("no datatype is '{text}'")));
        let given = datatype.map(known).transpose()?;
        let declared = if given.is_none() { signature.datatype(&name) } else { None };
        let origin = if declared.is_some() { ", which the model declares" } else { "" };
        let read = read(data, given.or(declared), bounds);
        let (datatype, read) = read.map_err(|why| wrong(format!("{why}{origin}")))?;
        let shape = match shape {
            Some(shape) => {
                check_shape(&shape, read.count, bounds.rank).map_err(wrong)?;
                shape
            }
            None => read.shape,
        };
        let parameters = self::parameters(parameters);
        let tensor = InferInputTensor { name, datatype: datatype.name().to_owned(), shape, parameters, contents: None };
        Ok((tensor, datatype, read.raw))
    }
}

/// A shape that was given counts, whether the data is flat or nested.
fn check_shape(shape: &[i64], got: usize, max_rank: usize) -> Result<(), String> {
    if shape.len() > max_rank {
        return Err(format!("{} dimensions, the limit is {max_rank}", shape.len()));
    }
    let expected = elements(shape).map_err(|error| error.to_string())?;
    if got == expected { Ok(()) } else { Err(format!("{got} elements, expected {expected} for shape {shape:?}")) }
}

// === impl Output ===

impl Output {
    fn wanted(self) -> InferRequestedOutputTensor {
        InferRequestedOutputTensor { name: self.name, parameters: parameters(self.parameters) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_as(body: &str, signature: &Signature) -> Result<(ModelInferRequest, Vec<Untyped>), Error> {
        let limits = Limits { max_rank: 3, max_tensors: 2, ..Limits::default() };
        parse(body.as_bytes())?.request(signature, &limits)
    }

    fn read(body: &str) -> Result<ModelInferRequest, Error> {
        read_as(body, &Signature::default()).map(|(request, _)| request)
    }

    fn refusal(body: &str) -> String {
        read(body).unwrap_err().message
    }

    fn parameter(request: &ModelInferRequest, name: &str) -> ParameterChoice {
        request.parameters[name].parameter_choice.clone().unwrap()
    }

    #[test]
    fn the_long_form_is_kserves() {
        let body = r#"{"id": "7", "model": "m", "model_version": "2",
            "parameters": {"t": 0.5, "n": -1, "b": true, "s": "é", "u": 18446744073709551615},
            "inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1, 2.5], "parameters": {"p": 1}},
                       {"name": "y", "shape": [1, 2], "datatype": "INT8", "data": [[1, 2]]}],
            "outputs": [{"name": "z", "parameters": {"binary_data": false}}]}"#;
        let request = read(body).unwrap();
        assert_eq!((&*request.model_name, &*request.model_version, &*request.id), ("m", "2", "7"));
        assert_eq!(parameter(&request, "t"), ParameterChoice::DoubleParam(0.5));
        assert_eq!(parameter(&request, "n"), ParameterChoice::Int64Param(-1));
        assert_eq!(parameter(&request, "b"), ParameterChoice::BoolParam(true));
        assert_eq!(parameter(&request, "s"), ParameterChoice::StringParam("é".into()));
        assert_eq!(parameter(&request, "u"), ParameterChoice::Uint64Param(u64::MAX));
        assert_eq!((&*request.inputs[0].datatype, &*request.inputs[0].shape), ("FP32", &[2, 1][..]));
        assert_eq!(request.raw_input_contents[0], [1.0_f32.to_le_bytes(), 2.5_f32.to_le_bytes()].concat());
        assert_eq!((&*request.inputs[1].shape, &request.raw_input_contents[1][..]), (&[1, 2][..], &[1, 2][..]));
        assert_eq!(request.outputs[0].name, "z");
    }

    #[test]
    fn the_short_form_has_names_and_data_in_their_order() {
        let request = read(r#"{"model": "m", "inputs": {"text": ["hello"], "a": [[1.0, 2.0]]}}"#).unwrap();
        let rows: Vec<_> = request.inputs.iter().map(|one| (&*one.name, &*one.datatype, &*one.shape)).collect();
        assert_eq!(rows, [("text", "BYTES", &[1][..]), ("a", "FP64", &[1, 2][..])]);
        assert_eq!(&request.raw_input_contents[0][..], b"\x05\0\0\0hello");
    }

    #[test]
    fn inputs_without_a_datatype_have_the_declared_one_and_only_those() {
        let signature = Signature::for_tests(&[("x", Datatype::Fp32), ("y", Datatype::Int8)]);
        let (request, untyped) = read_as(r#"{"inputs": {"x": [1, 2.5], "y": [[7]]}}"#, &signature).unwrap();
        let rows: Vec<_> = request.inputs.iter().map(|one| (&*one.name, &*one.datatype, &*one.shape)).collect();
        assert_eq!(rows, [("x", "FP32", &[2][..]), ("y", "INT8", &[1, 1])]);
        assert_eq!(request.raw_input_contents[0], [1.0_f32.to_le_bytes(), 2.5_f32.to_le_bytes()].concat());
        assert_eq!(untyped[0], Untyped { input: "x".into(), datatype: Datatype::Fp32 });
        let long = r#"{"inputs": [{"name": "x", "datatype": "INT64", "data": [1]}, {"name": "z", "data": [1]}]}"#;
        let (request, untyped) = read_as(long, &signature).unwrap();
        let datatypes: Vec<_> = request.inputs.iter().map(|one| &*one.datatype).collect();
        assert_eq!(datatypes, ["INT64", "INT64"]);
        assert_eq!(untyped, [Untyped { input: "z".into(), datatype: Datatype::Int64 }]);
    }

    #[test]
    fn a_number_that_does_not_fit_the_declared_datatype_is_named_with_its_place() {
        let signature = Signature::for_tests(&[("x", Datatype::Int8)]);
        for (data, why) in [
            ("[127, 128]", "element 1: 128 is out of range for INT8"),
            ("[1.0]", "element 0: 1.0 is no element of INT8"),
            (r#"["a"]"#, "element 0: 'a' is no element of INT8"),
        ] {
            let error = read_as(&format!(r#"{{"inputs": {{"x": {data}}}}}"#), &signature).unwrap_err();
            assert_eq!(error.message, format!("input 'x': {why}, which the model declares"));
        }
    }

    #[test]
    fn a_capability_is_pairs_or_a_selector() {
        let asked = |capability: &str| {
            let read = read(&format!(r#"{{"capability": {capability}, "inputs": {{}}}}"#));
            read.map(|request| parameter(&request, "capability"))
        };
        let selector = |text: &str| Ok(ParameterChoice::StringParam(text.to_owned()));
        assert_eq!(asked(r#""type=chat,size>=7""#), selector("type=chat,size>=7"));
        let pairs = r#"{"type": "chat", "size": 7, "fast": true, "ratio": 1.5}"#;
        assert_eq!(asked(pairs), selector("fast=true,ratio=1.5,size=7,type=chat"));
        assert!(asked("{}").is_err() && asked("7").is_err() && asked(r#"{"a": [1]}"#).is_err());
    }

    #[test]
    fn what_is_no_request_is_refused_by_name_and_number() {
        let with = |input: &str| refusal(&format!(r#"{{"inputs": [{input}]}}"#));
        assert!(refusal("").starts_with("the body is no request"));
        assert!(refusal(r#"{"inputs": [], "modle": 1}"#).contains("unknown field `modle`"));
        assert!(refusal(r#"{"inputs": 1}"#).contains("a list of tensors, or an object"));
        assert!(refusal(r#"{"model": "m"}"#).contains("missing field `inputs`"));
        let short = with(r#"{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2]}"#);
        assert_eq!(short, "input 'x': 2 elements, expected 3 for shape [3]");
        assert!(with(r#"{"name": "x", "datatype": "fp32", "data": [1]}"#).contains("no datatype is 'fp32'"));
        assert!(with(r#"{"name": "x", "shape": [-1], "data": [1]}"#).contains("is negative"));
        assert!(with(r#"{"name": "x", "shape": [1, 1, 1, 1], "data": [1]}"#).contains("4 dimensions, the limit is 3"));
        assert!(with(r#"{"name": "x", "datatype": "UINT8", "data": [256]}"#).contains("256 is out of range for UINT8"));
        assert_eq!(refusal(r#"{"inputs": {"x": [1], "x": [1]}}"#), "input 'x' is given twice");
    }

    #[test]
    fn the_number_of_tensors_goes_to_its_limit_and_no_further() {
        for (count, fits) in [(1, true), (2, true), (3, false)] {
            let inputs: Vec<_> = (0..count).map(|at| format!(r#""{at}": [1]"#)).collect();
            assert_eq!(read(&format!(r#"{{"inputs": {{{}}}}}"#, inputs.join(","))).is_ok(), fits, "{count}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&body).and_then(|body| body.request(&Signature::default(), &Limits::default()));
        }

        #[test]
        fn anything_like_a_request_is_read_or_refused(
            inputs in r#"[\[\]\{\}",:0-9a-c]{0,30}"#,
            rest in r#"(,"id":"[a-z]{0,3}"|,"capability":[0-9"a-z]{0,6}){0,2}"#,
        ) {
            let _ = read(&format!(r#"{{"inputs":{inputs}{rest}}}"#));
        }
    }
}
