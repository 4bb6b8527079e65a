//! Parameters of both worlds.

use std::collections::BTreeMap;

use anyserve_core::{Error, Parameter, Parameters};
use anyserve_proto::inference::{InferParameter, infer_parameter::ParameterChoice};

/// Parameters as they are decoded.
pub(super) type Decoded = BTreeMap<String, InferParameter>;

/// Turns decoded parameters of `owner` into ours.
///
/// # Errors
/// `INVALID_INPUT` that names the parameter which has no value.
pub(super) fn from_proto(decoded: Decoded, owner: &dyn std::fmt::Display) -> Result<Parameters, Error> {
    let mut all = Parameters::with_capacity(decoded.len());
    for (name, value) in decoded {
        let Some(choice) = value.parameter_choice else {
            return Err(Error::invalid(format!("parameter '{name}' of {owner} has no value")));
        };
        all.push((name, from_choice(choice)));
    }
    Ok(all)
}

/// Turns one of our parameters into what is encoded.
pub(super) fn to_proto(value: &Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Int(value) => ParameterChoice::Int64Param(*value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(*value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(*value),
        Parameter::Text(value) => ParameterChoice::StringParam(value.clone()),
    };
    InferParameter { parameter_choice: Some(choice) }
}

/// Turns the value of a decoded parameter into ours.
pub(crate) fn from_choice(choice: ParameterChoice) -> Parameter {
    match choice {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int(value),
        ParameterChoice::Uint64Param(value) => Parameter::Uint(value),
        ParameterChoice::DoubleParam(value) => Parameter::Double(value),
        ParameterChoice::StringParam(value) => Parameter::Text(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_every_type_come_back() {
        let ours = [
            ("a", Parameter::Bool(true)),
            ("b", Parameter::Int(-1)),
            ("c", Parameter::Uint(u64::MAX)),
            ("d", Parameter::Double(0.5)),
            ("e", Parameter::Text("é".into())),
        ];
        let ours: Parameters = ours.map(|(name, value)| (name.to_owned(), value)).into();
        let decoded = ours.iter().map(|(name, value)| (name.clone(), to_proto(value))).collect();
        assert_eq!(from_proto(decoded, &"request"), Ok(ours));
    }

    #[test]
    fn a_parameter_without_a_value_is_named() {
        let decoded = [("x".to_owned(), InferParameter::default())].into();
        let error = from_proto(decoded, &"input 'a'").unwrap_err();
        assert_eq!(error.message, "parameter 'x' of input 'a' has no value");
    }
}
