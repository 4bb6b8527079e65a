//! Parameters, and the values of capabilities.

use anyserve_core::{Capability, Parameter, Parameters, Value};

use crate::{MessageError, message as wire};

/// Parameters in their order.
pub(super) fn parameters(list: Vec<wire::KeyValue>) -> Result<Parameters, MessageError> {
    list.into_iter().map(|pair| Ok((pair.key, parameter(pair.value)?))).collect()
}

fn parameter(value: Option<wire::Value>) -> Result<Parameter, MessageError> {
    Ok(match value.ok_or(MessageError::Missing { what: "value of a parameter" })? {
        wire::Value::Text(text) => Parameter::Text(text),
        wire::Value::Int(number) => Parameter::Int(number),
        wire::Value::Double(number) => Parameter::Double(number),
        wire::Value::Bool(truth) => Parameter::Bool(truth),
        wire::Value::Uint(number) => Parameter::Uint(number),
    })
}

/// Parameters as they are sent.
pub(super) fn key_values(parameters: &Parameters) -> Vec<wire::KeyValue> {
    let pair = |(key, value): &(String, Parameter)| wire::KeyValue { key: key.clone(), value: Some(value.into()) };
    parameters.iter().map(pair).collect()
}

/// The capability of these pairs.
pub(super) fn capability(pairs: Vec<wire::KeyValue>) -> Result<Capability, MessageError> {
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|pair| match pair.value {
            Some(wire::Value::Text(text)) => Ok((pair.key, Value::Text(text))),
            Some(wire::Value::Int(number)) => Ok((pair.key, Value::Int(number))),
            Some(wire::Value::Double(number)) => Ok((pair.key, Value::Float(number))),
            Some(wire::Value::Bool(truth)) => Ok((pair.key, Value::Bool(truth))),
            Some(wire::Value::Uint(_)) | None => Err(MessageError::Missing { what: "value of a capability" }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Capability::try_new(pairs)?)
}

// === impl wire::Value ===

impl From<&Parameter> for wire::Value {
    fn from(parameter: &Parameter) -> Self {
        match parameter {
            Parameter::Bool(truth) => Self::Bool(*truth),
            Parameter::Int(number) => Self::Int(*number),
            Parameter::Uint(number) => Self::Uint(*number),
            Parameter::Double(number) => Self::Double(*number),
            Parameter::Text(text) => Self::Text(text.clone()),
        }
    }
}

impl From<&Value> for wire::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text.clone()),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => Self::Double(*number),
            Value::Bool(truth) => Self::Bool(*truth),
        }
    }
}
