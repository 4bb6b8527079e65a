//! Core types to KServe messages and gRPC metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use anyserve_core::{Capability, Error, Parameter, Parameters, Tensor};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use anyserve_proto::inference::{InferParameter, ModelInferRequest};
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::Call;

/// Prefix of the header that carries one key of a capability.
const CAPABILITY_PREFIX: &str = "x-capability-";
/// The request parameter that carries a capability as a selector.
const CAPABILITY_PARAMETER: &str = "capability";
/// Timeouts beyond this are none: 10 years.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(87600);

/// The message of a call, and the metadata that goes with it.
///
/// # Errors
/// `INVALID_INPUT` for a header that gRPC cannot carry.
pub(crate) fn request(call: &Call) -> Result<tonic::Request<ModelInferRequest>, Error> {
    let mut message = message(call);
    let mut metadata = headers(&call.headers)?;
    if let Some(capability) = &call.capability
        && let Err(selector) = insert_capability(&mut metadata, capability)
    {
        let parameter = parameter(&Parameter::Text(selector));
        message.parameters.insert(CAPABILITY_PARAMETER.to_owned(), parameter);
    }
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = metadata;
    if let Some(timeout) = call.timeout.filter(|timeout| *timeout < LONGEST_TIMEOUT) {
        request.set_timeout(timeout);
    }
    Ok(request)
}

fn message(call: &Call) -> ModelInferRequest {
    let output = |name: &String| InferRequestedOutputTensor { name: name.clone(), parameters: BTreeMap::new() };
    ModelInferRequest {
        model_name: call.model.clone(),
        model_version: call.version.clone(),
        id: call.id.clone(),
        parameters: parameters(&call.parameters),
        inputs: call.inputs.iter().map(input).collect(),
        outputs: call.outputs.iter().map(output).collect(),
        raw_input_contents: call.inputs.iter().map(|tensor| tensor.data.clone()).collect(),
    }
}

fn input(tensor: &Tensor) -> InferInputTensor {
    InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: tensor.shape.clone(),
        parameters: parameters(&tensor.parameters),
        contents: None,
    }
}

fn parameters(list: &Parameters) -> BTreeMap<String, InferParameter> {
    list.iter().map(|(name, value)| (name.clone(), parameter(value))).collect()
}

/// A parameter as its message.
pub(crate) fn parameter(value: &Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(truth) => ParameterChoice::BoolParam(*truth),
        Parameter::Int(number) => ParameterChoice::Int64Param(*number),
        Parameter::Uint(number) => ParameterChoice::Uint64Param(*number),
        Parameter::Double(number) => ParameterChoice::DoubleParam(*number),
        Parameter::Text(text) => ParameterChoice::StringParam(text.clone()),
    };
    InferParameter { parameter_choice: Some(choice) }
}

fn headers(pairs: &[(String, String)]) -> Result<MetadataMap, Error> {
    let mut metadata = MetadataMap::new();
    for (name, value) in pairs {
        let (key, value) = header(name, value)?;
        metadata.append(key, value);
    }
    Ok(metadata)
}

fn header(name: &str, value: &str) -> Result<(MetadataKey<Ascii>, MetadataValue<Ascii>), Error> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("grpc-") || matches!(lower.as_str(), "te" | "content-type" | "user-agent") {
        return Err(Error::invalid(format!("header '{name}' is gRPC's own: leave it out")));
    }
    let key = lower.parse().map_err(|_| {
        Error::invalid(format!("header '{name}' is no name: use letters, digits and '-_.', and no '-bin' at the end"))
    })?;
    let value = ascii(value).ok_or_else(|| {
        Error::invalid(format!(
            "header '{name}' has a value with characters that are not ASCII, or with spaces around it"
        ))
    })?;
    Ok((key, value))
}

fn ascii(value: &str) -> Option<MetadataValue<Ascii>> {
    value.parse().ok().filter(|_| value.is_ascii() && value.trim() == value)
}

/// Adds a header per key of the capability or, where one cannot stand in a header as it is, gives the selector that
/// says the same.
fn insert_capability(metadata: &mut MetadataMap, capability: &Capability) -> Result<(), String> {
    let pair = |(key, value): (&str, &anyserve_core::Value)| {
        let name: MetadataKey<Ascii> = format!("{CAPABILITY_PREFIX}{key}").parse().ok()?;
        // A header's name comes out in lower case: a key with capitals would arrive as another key.
        let kept = !key.chars().any(char::is_uppercase);
        Some((name, ascii(&value.to_string()).filter(|text| kept && !text.is_empty())?))
    };
    let pairs: Option<Vec<_>> = capability.iter().map(pair).collect();
    let pairs = pairs.ok_or_else(|| selector(capability))?;
    for (name, value) in pairs {
        metadata.insert(name, value);
    }
    Ok(())
}

fn selector(capability: &Capability) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let part = |(key, value): (&str, &anyserve_core::Value)| format!("{}={}", quoted(key), quoted(&value.to_string()));
    capability.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Query, Value};

    fn asked(pairs: &[(&str, Value)]) -> tonic::Request<ModelInferRequest> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        let capability = Some(Capability::try_new(pairs).unwrap());
        request(&Call { capability, ..Call::default() }).unwrap()
    }

    #[test]
    fn a_plain_capability_travels_in_headers() {
        let sent = asked(&[("type", Value::Text("chat".into())), ("size", Value::Int(7)), ("beta", Value::Bool(true))]);
        let header = |name: &str| sent.metadata().get(name).unwrap().to_str().unwrap();
        assert_eq!(header("x-capability-type"), "chat");
        assert_eq!(header("x-capability-size"), "7");
        assert_eq!(header("x-capability-beta"), "true");
        assert!(sent.get_ref().parameters.is_empty());
    }

    #[test]
    fn a_capability_that_no_header_can_carry_travels_as_a_selector() {
        for (key, value) in [("maxLen", "1"), ("type", "é"), ("a b", "x"), ("q", "a\"b\\,c\n"), ("e", ""), ("s", " x")]
        {
            let sent = asked(&[(key, Value::Text(value.into()))]);
            assert!(sent.metadata().is_empty(), "{key}={value}");
            let choice = sent.get_ref().parameters["capability"].parameter_choice.clone();
            let Some(ParameterChoice::StringParam(text)) = choice else { panic!("{choice:?}") };
            assert_eq!(Query::parse(&text), Ok(Query::equal_to([(key, value)])));
        }
    }

    #[test]
    fn a_header_that_grpc_cannot_carry_is_named() {
        for (name, value, part) in [
            ("grpc-timeout", "1S", "gRPC's own"),
            ("a b", "x", "is no name"),
            ("x-bin", "x", "is no name"),
            ("x", "é", "not ASCII"),
        ] {
            let call = Call { headers: vec![(name.into(), value.into())], ..Call::default() };
            let error = request(&call).unwrap_err();
            assert!(error.message.contains(part) && error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn headers_are_lower_cased_and_a_timeout_is_told_to_the_server() {
        let headers = vec![("X-Trace".into(), "7".into())];
        let call = Call { headers, timeout: Some(Duration::from_millis(1500)), ..Call::default() };
        let metadata = request(&call).unwrap().metadata().clone();
        assert_eq!(metadata.get("x-trace").unwrap(), "7");
        assert_eq!(metadata.get("grpc-timeout").unwrap(), "1500000u");
        let forever = Call { timeout: Some(Duration::MAX), ..Call::default() };
        assert!(request(&forever).unwrap().metadata().get("grpc-timeout").is_none());
    }
}
