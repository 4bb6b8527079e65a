//! Models that are loaded, unloaded and listed as Triton's clients do it.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use std::collections::BTreeMap;

use anyserve_core::{Code as OurCode, Error, GroupStatus, Order};
use anyserve_proto::inference::model_repository_parameter::ParameterChoice;
use anyserve_proto::inference::repository_index_response::ModelIndex;
use anyserve_proto::inference::*;
use anyserve_server::{AdminToken, ServerConfig};
use support::{Client, start, start_with, until, watchdog};
use tonic::{Code, Request};

type Parameters = BTreeMap<String, ModelRepositoryParameter>;

fn with(key: &str, choice: ParameterChoice) -> Parameters {
    [(key.to_owned(), ModelRepositoryParameter { parameter_choice: Some(choice) })].into()
}

fn to_load(model: &str, parameters: Parameters) -> RepositoryModelLoadRequest {
    RepositoryModelLoadRequest { model_name: model.into(), parameters, ..Default::default() }
}

fn to_unload(model: &str, parameters: Parameters) -> RepositoryModelUnloadRequest {
    RepositoryModelUnloadRequest { model_name: model.into(), parameters, ..Default::default() }
}

async fn index(client: &mut Client, ready: bool) -> Vec<ModelIndex> {
    let asked = RepositoryIndexRequest { ready, ..Default::default() };
    client.repository_index(asked).await.unwrap().into_inner().models
}

#[tokio::test]
async fn a_load_and_an_unload_are_orders_and_answered_when_they_are_done() {
    let server = start().await;
    server.fake.end_orders(None);
    let mut client = server.client().await;
    let config = with("config", ParameterChoice::StringParam(r#"{"instance_group": [{"count": 2}]}"#.into()));
    let mut other = client.clone();
    let load = tokio::spawn(async move { other.repository_model_load(to_load("echo", config)).await });
    let fake = server.fake.clone();
    until(|| fake.waiting() == 1).await;
    assert!(!load.is_finished());
    fake.end_orders(Some(Ok(())));
    assert!(watchdog(load).await.unwrap().is_ok());
    let dependents = with("unload_dependents", ParameterChoice::BoolParam(true));
    assert!(client.repository_model_unload(to_unload("echo", dependents)).await.is_ok());
    let expected = [Order::Load { model: "echo".into(), workers: Some(2) }, Order::Unload { model: "echo".into() }];
    assert_eq!(fake.orders(), expected);
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_with_its_name_and_why() {
    let server = start().await;
    let mut client = server.client().await;
    let unknown = Error::new(OurCode::NotFound, "there is no model 'x'; there are echo and gate");
    server.fake.end_orders(Some(Err(unknown)));
    let error = client.repository_model_load(to_load("x", Parameters::new())).await.unwrap_err();
    let expected = "failed to load 'x': there is no model 'x'; there are echo and gate";
    assert_eq!((error.code(), error.message()), (Code::Internal, expected));
    let error = client.repository_model_unload(to_unload("x", Parameters::new())).await.unwrap_err();
    assert_eq!((error.code(), error.message().starts_with("failed to unload 'x': ")), (Code::NotFound, true));
    let given = server.fake.orders().len();
    for (model, parameters, part) in [
        ("../etc", Parameters::new(), "failed to load '../etc': a path"),
        ("echo", with("file:1/m.onnx", ParameterChoice::BytesParam(vec![1].into())), "'file:1/m.onnx'"),
        ("echo", with("config", ParameterChoice::StringParam(r#"{"max_batch_size": 1}"#.into())), "'max_batch_size'"),
    ] {
        let error = client.repository_model_load(to_load(model, parameters)).await.unwrap_err();
        assert_eq!((error.code(), error.message().contains(part)), (Code::InvalidArgument, true), "{error}");
    }
    for (len, code) in [(1023, Code::NotFound), (1024, Code::NotFound), (1025, Code::InvalidArgument)] {
        let error = client.repository_model_unload(to_unload(&"x".repeat(len), Parameters::new())).await.unwrap_err();
        assert_eq!(error.code(), code, "{len}");
    }
    assert_eq!(server.fake.orders().len(), given + 2);
}

#[tokio::test]
async fn only_an_administrator_loads_and_unloads() {
    let admin_token = Some(AdminToken::from("secret".to_owned()));
    let server = start_with(ServerConfig { admin_token, ..ServerConfig::default() }).await;
    let mut client = server.client().await;
    for token in [None, Some("Bearer secre")] {
        let mut load = Request::new(to_load("echo", Parameters::new()));
        let mut unload = Request::new(to_unload("echo", Parameters::new()));
        if let Some(token) = token {
            load.metadata_mut().insert("authorization", token.parse().unwrap());
            unload.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        assert_eq!(client.repository_model_load(load).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(client.repository_model_unload(unload).await.unwrap_err().code(), Code::Unauthenticated);
    }
    assert_eq!(server.fake.orders(), []);
    let mut load = Request::new(to_load("echo", Parameters::new()));
    load.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
    assert!(client.repository_model_load(load).await.is_ok());
    assert_eq!(server.fake.orders().len(), 1);
}

#[tokio::test]
async fn the_index_lists_all_with_state_and_reason() {
    let server = start().await;
    server.fake.set_ready("echo", false);
    server.fake.set_ready("gate", false);
    server.fake.set_ready("fail", false);
    server.fake.change(|status| {
        status.groups[0].state = "unloaded";
        let (models, state) = (vec!["gate".to_owned(), "later".to_owned()], "waiting");
        status.groups[0].models = vec!["echo".into()];
        status.groups.push(GroupStatus { name: "b".into(), state, models, ..GroupStatus::default() });
    });
    let mut client = server.client().await;
    let all = index(&mut client, false).await;
    let told = |name: &str| {
        let row = all.iter().find(|row| row.name == name).unwrap();
        (row.state.as_str(), row.reason.as_str())
    };
    assert_eq!(told("repeat"), ("READY", ""));
    assert_eq!(told("echo"), ("UNAVAILABLE", "unloaded"));
    assert_eq!(told("gate"), ("UNAVAILABLE", "its workers: waiting"));
    assert_eq!(told("later"), ("UNAVAILABLE", "its workers: waiting"));
    assert_eq!(told("fail"), ("UNAVAILABLE", "no worker is ready"));
    let ready = index(&mut client, true).await;
    assert_eq!(ready.len(), all.len() - 4);
    assert!(ready.iter().all(|row| row.state == "READY"));
}
