//! `POST /infer` and `POST /infer/stream`.

#![allow(clippy::unwrap_used)]

mod scripted;

use anyserve_cluster::policy::RoundRobin;
use anyserve_gateway::ProxyConfig;
use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use anyserve_proto::inference::model_metadata_response::TensorMetadata;
use anyserve_proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse};
use bytes::Bytes;
use http_body_util::BodyExt;
use scripted::replica::{data, hand_back, hang, pieces_and_silence, response, status};
use scripted::{Call, Reply, raw, start, start_with, until, watchdog};
use serde_json::json;

/// The inputs as outputs.
fn mirrored(request: ModelInferRequest) -> ModelInferResponse {
    let outputs = request.inputs.into_iter().map(|input| InferOutputTensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        ..Default::default()
    });
    ModelInferResponse {
        model_name: request.model_name,
        model_version: "1".into(),
        id: request.id,
        outputs: outputs.collect(),
        raw_output_contents: request.raw_input_contents,
        ..Default::default()
    }
}

async fn echo(call: Call) -> Reply {
    if call.request().model_name == "nobody" {
        return hand_back("");
    }
    data([raw::framed(&mirrored(call.request())).into()], &[("grpc-status", "0")])
}

#[tokio::test]
async fn a_request_in_either_form_is_answered_as_kserve_does() {
    let world = start();
    let replica = world.replica("replica-1", &["model=m"], echo).await;
    let body = json!({
        "model": "m", "id": "7",
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}],
    });
    let answer = raw::post(world.address, "/infer", &[("x-user", "me")], body.to_string()).await;
    assert_eq!((answer.http.as_u16(), &answer.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    let outputs = json!([{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.5]}]);
    assert_eq!(answer.json(), json!({"model_name": "m", "model_version": "1", "id": "7", "outputs": outputs}));
    assert_eq!((answer.told("x-anyserve-replica"), answer.told("x-anyserve-attempts")), (Some("replica-1"), Some("1")));
    assert_eq!(replica.header("x-user").as_deref(), Some("me"));
    let short = r#"{"model": "m", "inputs": {"text": ["hé"], "n": [[1, 2]], "b": [true]}}"#;
    let answer = raw::post(world.address, "/infer", &[], short).await.json();
    let told = |at: usize| (answer["outputs"][at]["datatype"].clone(), answer["outputs"][at]["data"].clone());
    assert_eq!(told(0), (json!("BYTES"), json!(["hé"])));
    assert_eq!(told(1), (json!("INT64"), json!([1, 2])));
    assert_eq!(told(2), (json!("BOOL"), json!([true])));
    until(|| world.in_flight() == 0).await;
}

/// A model that declares FP32 for `x` and nothing for `n`, and takes `x` as nothing else than `takes`.
fn typed(call: &Call, takes: &str) -> Reply {
    if call.path.ends_with("ModelMetadata") {
        let tensor = |name: &str, datatype: &str| TensorMetadata {
            name: name.into(),
            datatype: datatype.into(),
            shape: vec![-1],
        };
        let inputs = vec![tensor("x", "FP32"), tensor("n", "")];
        let told = ModelMetadataResponse { name: "m".into(), inputs, ..Default::default() };
        return data([raw::framed(&told).into()], &[("grpc-status", "0")]);
    }
    let request = call.request();
    let (datatype, name) = (&request.inputs[0].datatype, &request.inputs[0].name);
    if name == "x" && datatype != takes {
        let message = format!("input 'x' for model 'm' has datatype {datatype}, expected {takes}").replace(' ', "%20");
        return status(&[("grpc-status", "3"), ("grpc-message", &message), ("x-anyserve-code", "INVALID_INPUT")]);
    }
    data([raw::framed(&mirrored(request)).into()], &[("grpc-status", "0")])
}

/// How often a replica was asked what the inputs of a model are.
fn asked(replica: &scripted::Replica) -> usize {
    replica.seen().iter().filter(|(path, ..)| path.ends_with("ModelMetadata")).count()
}

#[tokio::test]
async fn an_input_without_a_datatype_has_the_declared_one_which_is_asked_for_once() {
    let world = start();
    let replica = world.replica("a", &["model=m"], |call| std::future::ready(typed(&call, "FP32"))).await;
    let post = |path: &'static str, body: &'static str| raw::post(world.address, path, &[], body);
    for _ in 0..3 {
        let answer = post("/infer", r#"{"model": "m", "inputs": {"x": [1, 2.5], "n": [1]}}"#).await;
        assert_eq!(answer.http, 200, "{}", answer.text());
        let outputs = &answer.json()["outputs"];
        assert_eq!((&outputs[0]["datatype"], &outputs[0]["data"]), (&json!("FP32"), &json!([1.0, 2.5])));
        assert_eq!(outputs[1]["datatype"], "INT64", "nothing is declared");
    }
    let capability =
        post("/infer", r#"{"capability": {"model": "m"}, "inputs": [{"name": "x", "data": [[1]]}]}"#).await;
    assert_eq!(capability.json()["outputs"][0]["datatype"], "FP32");
    assert_eq!(asked(&replica), 1);
    let far = post("/infer", r#"{"model": "m", "inputs": {"x": [1, 1e39]}}"#).await;
    let message = "input 'x': element 1: 1e39 is out of range for FP32, which the model declares";
    assert_eq!((far.http.as_u16(), far.code(), far.json()), (400, Some("INVALID_INPUT"), json!({ "error": message })));
    let long = r#"{"model": "m", "inputs": [{"name": "n", "datatype": "FP32", "data": [1]}]}"#;
    assert_eq!(post("/infer", long).await.json()["outputs"][0]["datatype"], "FP32");
    until(|| world.in_flight() == 0).await;
}

#[tokio::test]
async fn a_request_that_says_its_datatypes_asks_nothing() {
    let world = start();
    let replica = world.replica("a", &["model=m"], |call| std::future::ready(typed(&call, "FP32"))).await;
    let body = r#"{"model": "m", "inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}"#;
    assert_eq!(raw::post(world.address, "/infer", &[], body).await.http, 200);
    assert_eq!(asked(&replica), 0);
}

#[tokio::test]
async fn a_guess_that_is_refused_is_told_and_made_anew() {
    let world = start();
    let replica = world.replica("a", &["model=m"], |call| std::future::ready(typed(&call, "INT8"))).await;
    for times in 1..=2 {
        let refused = raw::post(world.address, "/infer", &[], r#"{"model": "m", "inputs": {"x": [1]}}"#).await;
        let message = "input 'x' for model 'm' has datatype FP32, expected INT8; it was given without a datatype and taken \
                       for FP32: say which in the long form, {\"name\": \"x\", \"datatype\": …, \"data\": …}";
        assert_eq!((refused.http.as_u16(), refused.json()), (400, json!({ "error": message })));
        assert_eq!(asked(&replica), times);
    }
    let own = r#"{"model": "m", "inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}"#;
    let refused = raw::post(world.address, "/infer", &[], own).await;
    assert_eq!(refused.json(), json!({"error": "input 'x' for model 'm' has datatype FP32, expected INT8"}));
}

#[tokio::test]
async fn a_replica_that_does_not_tell_its_inputs_gets_what_the_elements_suggest() {
    let world = start();
    let serve = async |call: Call| {
        if call.path.ends_with("ModelMetadata") {
            return status(&[("grpc-status", "12"), ("grpc-message", "what")]);
        }
        echo(call).await
    };
    let replica = world.replica("a", &["model=m"], serve).await;
    let answer = raw::post(world.address, "/infer", &[], r#"{"model": "m", "inputs": {"x": [1.5]}}"#).await;
    assert_eq!(answer.json()["outputs"][0]["datatype"], "FP64");
    assert_eq!(asked(&replica), 1);
}

#[tokio::test]
async fn the_query_comes_from_headers_then_the_capability_then_the_model() {
    let world = start();
    let (a, b) = (world.replica("a", &["type=chat"], echo).await, world.replica("b", &["size=7"], echo).await);
    let post = |headers: &'static [(&str, &str)], body: serde_json::Value| {
        raw::post(world.address, "/infer", headers, body.to_string())
    };
    assert_eq!(post(&[], json!({"model": "chat", "inputs": {}})).await.http, 200);
    assert_eq!(post(&[], json!({"model": "chat", "capability": {"size": 7}, "inputs": {}})).await.http, 200);
    assert_eq!(post(&[], json!({"capability": "size>=7", "inputs": {}})).await.http, 200);
    let headers = &[("X-Capability-Type", "chat")];
    assert_eq!(post(headers, json!({"capability": {"size": 7}, "inputs": {}})).await.http, 200);
    assert_eq!((a.seen().len(), b.seen().len()), (2, 2));
    let nothing = post(&[], json!({"inputs": {}})).await;
    assert_eq!((nothing.http.as_u16(), nothing.code()), (400, Some("INVALID_INPUT")));
    let nobody = post(&[], json!({"model": "nobody", "inputs": {}})).await;
    assert_eq!((nobody.http.as_u16(), nobody.code()), (404, Some("NO_CAPABILITY")));
    let message = "no replica serves model 'nobody'; GET /registry lists what 2 replicas offer; GET /explain says why";
    assert_eq!(nobody.json(), json!({ "error": message }));
}

#[tokio::test]
async fn errors_have_the_one_form_over_http() {
    let world = start();
    let full = [("grpc-status", "8"), ("grpc-message", "full"), ("x-anyserve-code", "OVERLOADED")];
    let _replica = world.replica("a", &["model=full"], move |_| async move { status(&full) }).await;
    let no_text = Bytes::from_static(b"\x01\0\0\0\xff");
    let output = InferOutputTensor { name: "y".into(), datatype: "BYTES".into(), shape: vec![1], ..Default::default() };
    let bytes = ModelInferResponse { outputs: vec![output], raw_output_contents: vec![no_text], ..Default::default() };
    let serve = move |_| std::future::ready(data([raw::framed(&bytes).into()], &[("grpc-status", "0")]));
    let _other = world.replica("b", &["model=binary"], serve).await;
    let post = |body: &str| raw::post(world.address, "/infer", &[], body.to_owned());
    let full = post(r#"{"model": "full", "inputs": {}}"#).await;
    assert_eq!((full.http.as_u16(), full.code(), full.json()), (429, Some("OVERLOADED"), json!({"error": "full"})));
    let binary = post(r#"{"model": "binary", "inputs": {}}"#).await;
    assert_eq!((binary.http.as_u16(), binary.code()), (400, Some("INVALID_INPUT")));
    assert!(binary.text().contains("use gRPC"));
    let broken = post("{").await;
    assert_eq!((broken.http.as_u16(), broken.code()), (400, Some("INVALID_INPUT")));
    let (get, _connection) = raw::http1(world.address, "GET", "/infer", &[], "").await;
    assert_eq!((get.status().as_u16(), &get.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(raw::post(world.address, "/nothing", &[], "").await.http, 404);
    until(|| world.in_flight() == 0).await;
}

#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let body = r#"{"model": "m", "inputs": {"x": [1, 2, 3]}}"#;
    for (max_json, http) in [(body.len() - 1, 413), (body.len(), 200), (body.len() + 1, 200)] {
        let world = start_with(&ProxyConfig { max_json, ..ProxyConfig::default() }, Box::new(RoundRobin));
        let _replica = world.replica("a", &["model=m"], echo).await;
        let answer = raw::post(world.address, "/infer", &[], body).await;
        assert_eq!(answer.http.as_u16(), http, "{}", answer.text());
        assert_eq!(answer.code().is_some_and(|code| code == "INVALID_INPUT"), http == 413);
    }
}

#[tokio::test]
async fn the_caller_says_how_long_it_waits() {
    let world = start();
    let replica = world.replica("a", &["model=hang"], |_| hang()).await;
    let body = r#"{"model": "hang", "inputs": {}}"#;
    let late = raw::post(world.address, "/infer", &[("X-Timeout-S", "0.5")], body).await;
    assert_eq!((late.http.as_u16(), late.code()), (504, Some("DEADLINE")));
    assert!(replica.header("grpc-timeout").is_some() && replica.header("x-timeout-s").is_none());
    for value in ["", "0", "-1", "soon", "NaN", "inf", "1e300"] {
        let answer = raw::post(world.address, "/infer", &[("X-Timeout-S", value)], body).await;
        assert_eq!((answer.http.as_u16(), answer.code()), (400, Some("INVALID_INPUT")), "{value}");
    }
}

#[tokio::test]
async fn a_web_page_has_to_ask_its_browser_first() {
    let world = start();
    let _replica = world.replica("a", &["model=m"], echo).await;
    let body = r#"{"model": "m", "inputs": {}}"#;
    let origin = ("origin", "http://evil.example");
    let posted = raw::post(world.address, "/infer", &[origin, ("content-type", "text/plain")], body).await;
    assert_eq!((posted.http.as_u16(), posted.code()), (403, Some("FORBIDDEN")));
    let json = raw::post(world.address, "/infer", &[origin, ("content-type", "application/json")], body).await;
    assert_eq!(json.http, 200);
}

/// Names and data of the events of a stream.
fn events(text: &str) -> Vec<(String, serde_json::Value)> {
    let event = |block: &str| {
        let line = |start: &str| block.lines().find_map(|line| line.strip_prefix(start));
        (line("event: ").unwrap_or("").to_owned(), serde_json::from_str(line("data: ").unwrap()).unwrap())
    };
    text.split_terminator("\n\n").map(event).collect()
}

#[tokio::test]
async fn responses_are_events_and_the_last_one_tells_the_end() {
    let world = start();
    let serve = |call: Call| async move {
        let failed = [("grpc-status", "13"), ("grpc-message", "no"), ("x-anyserve-code", "HANDLER_ERROR")];
        let trailers = if call.request().model_name == "fail" { &failed[..] } else { &[("grpc-status", "0")] };
        data([response("7", &[1]), response("7", &[2])], trailers)
    };
    let replica = world.replica("a", &["model=m", "model=fail"], serve).await;
    let answer = raw::post(world.address, "/infer/stream", &[], r#"{"model": "m", "inputs": {}}"#).await;
    assert_eq!((answer.http.as_u16(), &answer.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let told = events(answer.text());
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "", "done"]);
    assert_eq!((&told[0].1["outputs"][0]["data"], &told[1].1["id"]), (&json!([1]), &json!("7")));
    assert_eq!(replica.header("triton_grpc_error").as_deref(), Some("true"));
    let answer = raw::post(world.address, "/infer/stream", &[], r#"{"model": "fail", "inputs": {}}"#).await;
    let last = events(answer.text()).pop().unwrap();
    assert_eq!(last, ("error".to_owned(), json!({"error": "no", "code": "HANDLER_ERROR"})));
}

#[tokio::test]
async fn a_stream_that_fails_before_it_begins_has_the_status_of_its_error() {
    let world = start();
    let _replica = world.replica("a", &["model=m"], |_| async { hand_back("") }).await;
    let answer = raw::post(world.address, "/infer/stream", &[], r#"{"model": "m", "inputs": {}}"#).await;
    assert_eq!((answer.http.as_u16(), answer.code()), (404, Some("NO_CAPABILITY")));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_stream() {
    let world = start();
    let serve = |_| async { pieces_and_silence(vec![response("7", &[1])]) };
    let replica = world.replica("a", &["model=m"], serve).await;
    let body = r#"{"model": "m", "inputs": {}}"#;
    let (mut answer, connection) = raw::http1(world.address, "POST", "/infer/stream", &[], body).await;
    let first = watchdog(answer.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"data: {"));
    assert_eq!((replica.held(), world.in_flight()), (1, 1));
    drop((answer, connection));
    until(|| replica.held() == 0 && world.in_flight() == 0).await;
}
