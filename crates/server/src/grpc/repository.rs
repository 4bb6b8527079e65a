//! Models that are loaded and unloaded on request, as Triton's clients ask for it.
//!
//! What a model is made of is the app's. All that a request may change is how many workers serve it; files and paths are
//! refused, and so is every part of a configuration that would have no effect.

use std::collections::BTreeMap;

use anyserve_core::{Catalog, Code, Error, Order};
use anyserve_proto::inference::model_repository_parameter::ParameterChoice;
use anyserve_proto::inference::{
    ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
    repository_index_response::ModelIndex,
};
use serde_json::Value;
use tonic::Status;

use super::describe;
use super::models;
use super::status::{status, status_as};
use crate::orders;

type Parameters = BTreeMap<String, ModelRepositoryParameter>;

/// The parameter with a configuration, as JSON.
const CONFIG: &str = "config";

/// The parameter of an unload about models that this one is made of; there are none.
const DEPENDENTS: &str = "unload_dependents";

/// The part of a configuration that says how many workers there are.
const INSTANCES: &str = "instance_group";

/// What a load asks for.
///
/// # Errors
/// `INVALID_INPUT` that names what is not possible, `UNSUPPORTED` for a repository.
pub(super) fn load(request: RepositoryModelLoadRequest, catalog: &Catalog) -> Result<Order, Error> {
    let RepositoryModelLoadRequest { repository_name, model_name: model, parameters } = request;
    check(&repository_name, &model, catalog)?;
    let mut workers = None;
    for (key, value) in parameters {
        match (key.as_str(), value.parameter_choice) {
            (CONFIG, Some(ParameterChoice::StringParam(text))) => workers = Some(of_config(&text)?),
            (CONFIG, _) => {
                return Err(Error::invalid("parameter 'config' has to be a text, the configuration in JSON"));
            }
            _ if key.starts_with("file:") => {
                return Err(Error::invalid(format!("parameter '{key}': no file of a model is taken over the network")));
            }
            _ => return Err(unknown_parameter(&key, CONFIG)),
        }
    }
    Ok(Order::Load { model, workers })
}

/// What an unload asks for.
///
/// # Errors
/// `INVALID_INPUT` that names what is not possible, `UNSUPPORTED` for a repository.
pub(super) fn unload(request: RepositoryModelUnloadRequest, catalog: &Catalog) -> Result<Order, Error> {
    let RepositoryModelUnloadRequest { repository_name, model_name: model, parameters } = request;
    check(&repository_name, &model, catalog)?;
    unload_parameters(&parameters)?;
    Ok(Order::Unload { model })
}

/// The status of a load that failed. One of a model that there is not has the gRPC code that Triton gives it.
///
/// Source: Triton's model repository manager answers "failed to load '…'" with INTERNAL.
pub(super) fn load_failed(model: &str, error: &Error) -> Status {
    let told = Error { message: format!("failed to load '{model}': {}", error.message), ..error.clone() };
    match error.code {
        Code::NotFound | Code::NoCapability => status_as(tonic::Code::Internal, &told),
        _ => status(&told),
    }
}

/// The status of an unload that failed.
pub(super) fn unload_failed(model: &str, error: &Error) -> Status {
    status(&Error { message: format!("failed to unload '{model}': {}", error.message), ..error.clone() })
}

/// Rows of the index: every version of every model, then what workers serve that no catalog lists any more.
pub(super) fn index(catalog: &Catalog, inside: &anyserve_core::Status, draining: bool) -> Vec<ModelIndex> {
    let state_of = |model: &str| {
        let mut groups = inside.groups.iter().filter(|group| group.models.iter().any(|own| own == model));
        groups.next().map_or("", |group| group.state)
    };
    let listed = models::all(catalog).into_iter().map(|model| {
        let state = state_of(&model.name);
        describe::index(model, draining, state)
    });
    let mut rows: Vec<_> = listed.collect();
    for group in &inside.groups {
        for model in &group.models {
            if rows.iter().all(|row| row.name != *model) {
                rows.push(describe::not_listed(model.clone(), group.state));
            }
        }
    }
    rows
}

fn check(repository: &str, model: &str, catalog: &Catalog) -> Result<(), Error> {
    if !repository.is_empty() {
        return Err(Error::new(Code::Unsupported, "'repository_name' specification is not supported: there is one"));
    }
    orders::check_name(model)?;
    // The name of a model that is there may look like a path; it names that model.
    if is_path(model) && catalog.named(model).is_empty() {
        return Err(Error::invalid("a path is no model's name"));
    }
    Ok(())
}

fn is_path(name: &str) -> bool {
    name.contains(['/', '\\', '\0']) || name == "." || name == ".."
}

fn unload_parameters(parameters: &Parameters) -> Result<(), Error> {
    for (key, value) in parameters {
        match (key.as_str(), &value.parameter_choice) {
            (DEPENDENTS, Some(ParameterChoice::BoolParam(_))) => {}
            (DEPENDENTS, _) => return Err(Error::invalid("parameter 'unload_dependents' has to be true or false")),
            _ => return Err(unknown_parameter(key, DEPENDENTS)),
        }
    }
    Ok(())
}

fn unknown_parameter(key: &str, known: &str) -> Error {
    Error::invalid(format!("unknown parameter '{key}'; there is '{known}'"))
}

/// The number of workers that a configuration asks for: the sum of its instance groups' counts.
fn of_config(text: &str) -> Result<u32, Error> {
    let config: Value = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("parameter 'config' is no JSON: {error}")))?;
    let groups = only(&config, INSTANCES, "config")?.as_array();
    let groups = groups.ok_or_else(|| Error::invalid("'instance_group' of the config has to be a list"))?;
    if groups.is_empty() {
        return Err(Error::invalid("'instance_group' of the config is empty: give it one with a count"));
    }
    let mut workers = 0_u32;
    for (place, group) in groups.iter().enumerate() {
        let at = format!("instance_group[{place}]");
        workers = workers.checked_add(count(only(group, "count", &at)?, &at)?).ok_or_else(|| {
            Error::invalid(format!("the counts of 'instance_group' are more than {} together", u32::MAX))
        })?;
    }
    Ok(workers)
}

/// The one field that an object may have, and has to.
fn only<'a>(value: &'a Value, key: &str, at: &str) -> Result<&'a Value, Error> {
    let fields = value.as_object().ok_or_else(|| Error::invalid(format!("{at} has to be a JSON object")))?;
    if let Some(other) = fields.keys().find(|own| *own != key) {
        let message = format!("'{other}' of {at} cannot be changed: the app declares it; there is '{key}'");
        return Err(Error::invalid(message));
    }
    fields.get(key).ok_or_else(|| Error::invalid(format!("{at} has no '{key}'")))
}

fn count(value: &Value, at: &str) -> Result<u32, Error> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let message = || format!("'count' of {at} has to be a whole number from 0 to {}, and not {value}", u32::MAX);
    number.ok_or_else(|| Error::invalid(message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(config: &str) -> String {
        let error = of_config(config).unwrap_err();
        assert_eq!(error.code, Code::InvalidInput);
        error.message
    }

    fn with(key: &str, choice: Option<ParameterChoice>) -> Parameters {
        [(key.to_owned(), ModelRepositoryParameter { parameter_choice: choice })].into()
    }

    fn asks(model: &str, parameters: Parameters) -> Result<Order, Error> {
        let request = RepositoryModelLoadRequest { model_name: model.into(), parameters, ..Default::default() };
        load(request, &Catalog::default())
    }

    #[test]
    fn the_counts_of_all_instance_groups_are_the_workers() {
        assert_eq!(of_config(r#"{"instance_group": [{"count": 2}]}"#), Ok(2));
        assert_eq!(of_config(r#"{"instance_group": [{"count": 2}, {"count": 0}, {"count": 3}]}"#), Ok(5));
        assert_eq!(of_config(r#"{"instance_group": [{"count": 4294967294}, {"count": 1}]}"#), Ok(u32::MAX));
        assert!(refused(r#"{"instance_group": [{"count": 4294967295}, {"count": 1}]}"#).contains("4294967295"));
        assert!(refused(r#"{"instance_group": [{"count": 4294967296}]}"#).contains("4294967296"));
    }

    #[test]
    fn any_other_part_of_a_configuration_is_refused_by_its_name() {
        assert!(refused(r#"{"max_batch_size": 8}"#).starts_with("'max_batch_size' of config"));
        let error = refused(r#"{"instance_group": [{"count": 1}, {"count": 1, "kind": "KIND_CPU"}]}"#);
        assert!(error.starts_with("'kind' of instance_group[1]"), "{error}");
        for (config, part) in [
            ("", "no JSON"),
            ("[]", "config has to be a JSON object"),
            ("{}", "no 'instance_group'"),
            (r#"{"instance_group": {}}"#, "a list"),
            (r#"{"instance_group": []}"#, "empty"),
            (r#"{"instance_group": [1]}"#, "instance_group[0] has to be a JSON object"),
            (r#"{"instance_group": [{}]}"#, "no 'count'"),
            (r#"{"instance_group": [{"count": -1}]}"#, "and not -1"),
            (r#"{"instance_group": [{"count": "2"}]}"#, "and not \"2\""),
        ] {
            assert!(refused(config).contains(part), "{config}");
        }
    }

    #[test]
    fn files_paths_repositories_and_unknown_parameters_are_refused_by_name() {
        let text = || Some(ParameterChoice::StringParam("x".into()));
        for (parameters, part) in [
            (with("file:1/model.onnx", Some(ParameterChoice::BytesParam(vec![1].into()))), "'file:1/model.onnx'"),
            (with("unload_dependents", Some(ParameterChoice::BoolParam(true))), "'unload_dependents'"),
            (with("config", Some(ParameterChoice::Int64Param(1))), "has to be a text"),
            (with("config", None), "has to be a text"),
        ] {
            assert!(asks("m", parameters).unwrap_err().message.contains(part), "{part}");
        }
        for name in ["../etc", "/etc/passwd", "a/b", "..", ".", "a\\b", "a\0"] {
            assert_eq!(asks(name, Parameters::new()).unwrap_err().code, Code::InvalidInput, "{name}");
        }
        let repository = RepositoryModelLoadRequest { repository_name: "r".into(), ..Default::default() };
        assert_eq!(load(repository, &Catalog::default()).unwrap_err().code, Code::Unsupported);
        assert!(unload_parameters(&with("unload_dependents", Some(ParameterChoice::BoolParam(true)))).is_ok());
        assert!(unload_parameters(&with("unload_dependents", text())).unwrap_err().message.contains("true or false"));
        assert!(unload_parameters(&with("x", text())).unwrap_err().message.contains("'x'"));
    }

    #[test]
    fn a_load_of_an_unknown_model_has_the_code_of_triton_and_keeps_its_own() {
        let unknown = Error::new(Code::NotFound, "there is no model 'x'");
        let told = load_failed("x", &unknown);
        assert_eq!((told.code(), told.message()), (tonic::Code::Internal, "failed to load 'x': there is no model 'x'"));
        assert_eq!(told.metadata().get("x-anyserve-code").unwrap(), "NOT_FOUND");
        let lacking = load_failed("x", &Error::new(Code::Overloaded, "no token is free"));
        assert_eq!(lacking.code(), tonic::Code::ResourceExhausted);
        assert_eq!(unload_failed("x", &unknown).code(), tonic::Code::NotFound);
    }

    proptest! {
        #[test]
        fn no_configuration_is_too_odd_to_be_answered(text: String) {
            let _ = of_config(&text);
        }
    }
}
