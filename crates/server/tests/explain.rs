//! `/explain`, and explanations that travel with an answer.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_core::{Expects, Query};
use anyserve_proto::inference::ModelInferRequest;
use serde_json::{Value, json};
use support::{Client, raw, request, start, watchdog};
use tonic::Request;
use tonic::metadata::MetadataMap;

fn asking(message: ModelInferRequest) -> Request<ModelInferRequest> {
    let mut call = Request::new(message);
    call.metadata_mut().insert("x-anyserve-explain", "1".parse().unwrap());
    call
}

fn explanation(metadata: &MetadataMap) -> Value {
    serde_json::from_str(metadata.get("x-anyserve-explain").unwrap().to_str().unwrap()).unwrap()
}

async fn infer(client: &mut Client, model: &str) -> Value {
    match watchdog(client.model_infer(asking(request(model, vec![0; 4])))).await {
        Ok(answer) => explanation(answer.metadata()),
        Err(status) => explanation(status.metadata()),
    }
}

#[tokio::test]
async fn a_question_over_http_touches_no_handler() {
    let server = start().await;
    let headers = [("x-priority", "2"), ("x-tenant", "a")];
    let (status, answer) = server.json("GET /explain?name=echo", &headers).await;
    assert_eq!((status, &answer["decision"]["kind"]), (200, &json!("run")));
    assert_eq!(answer["query"], "model 'echo'");
    assert_eq!(
        (&answer["candidates"][0]["matches"], &answer["candidates"][1]["matches"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(answer["candidates"][1]["why"], "it has model=repeat");
    let asked = server.fake.explained();
    assert_eq!((asked.query, asked.expects), (Query::model("echo"), Expects::Many));
    assert!(
        headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .iter()
            .all(|pair| asked.headers.contains(pair))
    );
    assert!(!server.fake.has_seen());
}

#[tokio::test]
async fn a_refusal_is_an_explanation_like_any_other() {
    let server = start().await;
    let (status, answer) = server.json("GET /explain?name=full", &[]).await;
    assert_eq!(status, 200);
    let expected = json!({ "kind": "refuse", "code": "OVERLOADED", "message": "the queue is full" });
    assert_eq!(answer["decision"], expected);
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_refused_with_the_position() {
    let server = start().await;
    for (path, headers, part) in [
        ("/explain?selector=size%3E%3D", &[][..], "position 6"),
        ("/explain?type=chat", &[("x-priority", "first")], "first"),
        ("/explain?type=chat", &[("x-priority", "9")], "9"),
        ("/explain", &[], "nothing is asked for"),
    ] {
        let (status, answer) = server.json(&format!("GET {path}"), headers).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    assert!(server.http("GET /explain", &[]).await.contains("x-anyserve-code: INVALID_INPUT"));
    assert!(server.http("POST /explain?type=a", &[]).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn an_answer_and_an_error_carry_the_explanation_if_it_is_asked_for() {
    let server = start().await;
    let mut client = server.client().await;
    let explained = infer(&mut client, "echo").await;
    assert_eq!(explained["decision"], json!({ "kind": "run", "worker": "worker-0" }));
    assert_eq!(infer(&mut client, "full").await["decision"]["code"], "OVERLOADED");
    let plain = client.model_infer(request("echo", vec![0; 4])).await.unwrap();
    assert!(plain.metadata().get("x-anyserve-explain").is_none());
    assert!(server.fake.seen().headers.iter().all(|(name, _)| name != "x-anyserve-explain"));
}

#[tokio::test]
async fn an_explanation_in_metadata_stays_within_what_clients_take() {
    let server = start().await;
    server.fake.crowd(100_000);
    for model in ["echo", "full"] {
        let headers = [("x-anyserve-explain", "1")];
        let message = raw::framed(&request(model, vec![0; 4]));
        let answer =
            watchdog(raw::call(server.address, "inference.GRPCInferenceService/ModelInfer", &headers, message)).await;
        let size: usize = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!((4000..8 << 10).contains(&size), "{size}");
        let explained: Value = serde_json::from_str(answer.headers["x-anyserve-explain"].to_str().unwrap()).unwrap();
        let shown = explained["candidates"].as_array().unwrap();
        assert!(shown.iter().all(|candidate| candidate["matches"] == true));
        assert_eq!(shown[1]["capability"], "model=é0");
        assert!(explained["more"].as_u64().unwrap() > 99_000);
    }
}
