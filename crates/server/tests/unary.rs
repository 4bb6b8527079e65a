//! `ModelInfer` from outside.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use anyserve_core::Op;
use anyserve_core::Query;
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::model_infer_request::InferRequestedOutputTensor;
use anyserve_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use anyserve_server::ServerConfig;
use bytes::Bytes;
use support::{raw, request, start, start_with, until, watchdog, with, with_id};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Status};

async fn error(message: ModelInferRequest) -> Status {
    let server = start().await;
    let answer = server.client().await.model_infer(message).await;
    answer.unwrap_err()
}

#[tokio::test]
async fn an_answer_has_the_requests_id_model_tensors_and_parameters() {
    let server = start().await;
    let message = with("p", ParameterChoice::DoubleParam(0.5), with_id("a é\n", request("echo", vec![1; 64])));
    let answer = server.client().await.model_infer(message.clone()).await.unwrap().into_inner();
    assert_eq!((&*answer.id, &*answer.model_name, &*answer.model_version), ("a é\n", "echo", "1"));
    assert_eq!((&*answer.outputs[0].name, &*answer.outputs[0].shape), ("x", &[16][..]));
    assert_eq!(answer.raw_output_contents, message.raw_input_contents);
    assert_eq!(answer.parameters, message.parameters);
}

#[tokio::test]
async fn typed_contents_are_answered_raw() {
    let server = start().await;
    let mut message = request("echo", vec![0; 8]);
    message.raw_input_contents.clear();
    message.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() });
    let answer = server.client().await.model_infer(message).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, [[1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat()]);
}

#[tokio::test]
async fn large_tensors_come_back_whole() {
    let server = start().await;
    let data: Bytes = (0..16 << 20_u32).flat_map(u32::to_le_bytes).collect();
    let answer = server.client().await.model_infer(request("echo", data.clone())).await.unwrap().into_inner();
    assert!(answer.raw_output_contents[0] == data);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let mut config = ServerConfig::default();
    let output = InferRequestedOutputTensor { name: "x".into(), ..Default::default() };
    let message = ModelInferRequest { outputs: vec![output], ..request("echo", vec![0; 4000]) };
    config.limits.max_message = prost::Message::encoded_len(&message);
    let mut client = start_with(config).await.client().await;
    assert!(client.model_infer(message.clone()).await.is_ok());
    let error = client.model_infer(with_id("1", message)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("the limit is"), "{error}");
}

#[tokio::test]
async fn malformed_requests_are_refused_by_name_and_number() {
    let status = error(request("echo", vec![0; 7])).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "input 'x' for model 'echo' has 7 bytes, expected 4 for shape [1] of FP32");

    let mut both = request("echo", vec![0; 4]);
    both.inputs[0].contents = Some(InferTensorContents::default());
    let expected = "contents field must not be specified when using raw_input_contents for 'x' for model 'echo'";
    assert_eq!(error(both).await.message(), expected);

    let mut more = request("echo", vec![0; 4]);
    more.raw_input_contents.push(Bytes::new());
    let expected = "expected 1 entries of raw_input_contents for model 'echo', one per input, but got 2";
    assert_eq!(error(more).await.message(), expected);

    let mut odd = request("echo", vec![0; 4]);
    odd.inputs[0].datatype = "fp32".into();
    assert_eq!(error(odd).await.message(), "input 'x' for model 'echo' has datatype 'fp32', which there is not");

    let mut negative = request("echo", vec![0; 4]);
    negative.inputs[0].shape = vec![-1];
    let expected = "input 'x' for model 'echo': dimension -1 of shape [-1] is negative";
    assert_eq!(error(negative).await.message(), expected);
}

#[tokio::test]
async fn only_requested_outputs_come_and_odd_requests_for_them_are_errors() {
    let output = |name: &str| InferRequestedOutputTensor { name: name.into(), ..Default::default() };
    let asked = |names: &[&str]| {
        let outputs = names.iter().map(|name| output(name)).collect();
        ModelInferRequest { outputs, ..request("echo", vec![0; 4]) }
    };
    let server = start().await;
    let answer = server.client().await.model_infer(asked(&["x"])).await.unwrap().into_inner();
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(error(asked(&["y"])).await.message(), "unexpected requested output 'y' for model 'echo'");
    assert_eq!(error(asked(&["x", "x"])).await.message(), "output 'x' is requested twice for model 'echo'");
}

#[tokio::test]
async fn parameters_without_value_and_reserved_names_are_errors() {
    let mut unset = request("echo", vec![0; 4]);
    unset.parameters.insert("p".into(), InferParameter::default());
    assert_eq!(error(unset).await.message(), "parameter 'p' of the request for model 'echo' has no value");
    let reserved = with("triton_x", ParameterChoice::BoolParam(true), request("echo", vec![0; 4]));
    assert!(error(reserved).await.message().contains("'triton_x'"));
}

#[tokio::test]
async fn the_query_comes_from_headers_then_the_parameter_then_the_name() {
    let server = start().await;
    let mut client = server.client().await;
    let with_parameter =
        with("capability", ParameterChoice::StringParam("size>=7".into()), request("echo", vec![0; 4]));
    let mut call = Request::new(with_parameter.clone());
    call.metadata_mut().insert("x-capability-type", "chat".parse().unwrap());
    call.metadata_mut().insert("x-user", "me".parse().unwrap());
    client.model_infer(call).await.unwrap();
    let Query::All(conditions) = server.fake.seen().query else { panic!("no conditions") };
    assert_eq!((&*conditions[0].key, &conditions[0].op), ("type", &Op::Equals("chat".into())));
    assert!(server.fake.seen().headers.contains(&("x-user".into(), "me".into())));

    client.model_infer(with_parameter).await.unwrap();
    assert_eq!(server.fake.seen().query, Query::parse("size>=7").unwrap());
    client.model_infer(request("echo", vec![0; 4])).await.unwrap();
    assert_eq!(server.fake.seen().query, Query::model("echo"));

    let bad = with("capability", ParameterChoice::StringParam("size>=".into()), request("echo", vec![0; 4]));
    assert!(error(bad).await.message().contains("position 6"));
}

#[tokio::test]
async fn errors_keep_code_text_and_details() {
    let status = error(request("fail", vec![0; 4])).await;
    assert_eq!((status.code(), status.message()), (Code::Internal, "ValueError: no"));
    assert_eq!(status.metadata().get("x-anyserve-code").unwrap(), "HANDLER_ERROR");
    let status = error(request("full", vec![0; 4])).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(!status.details().is_empty());
    assert_eq!(error(request("nobody", vec![0; 4])).await.code(), Code::NotFound);
    assert_eq!(error(request("repeat", vec![0; 4])).await.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_server_lives() {
    let server = start().await;
    let mut client = server.client().await;
    assert_eq!(client.model_infer(request("panic", vec![0; 4])).await.unwrap_err().code(), Code::Internal);
    assert!(client.model_infer(request("echo", vec![0; 4])).await.is_ok());
}

#[tokio::test]
async fn the_deadline_ends_a_request_that_nobody_answers() {
    let server = start().await;
    let message = raw::framed(&request("hang", vec![0; 4]));
    let method = "inference.GRPCInferenceService/ModelInfer";
    let answer = watchdog(raw::call(server.address, method, &[("grpc-timeout", "20m")], message)).await;
    assert_eq!(answer.status(), "4");
    until(|| server.fake.held() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let server = start().await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("hang", vec![0; 4])).await });
    until(|| server.fake.held() == 1).await;
    call.abort();
    until(|| server.fake.held() == 0).await;
}

#[tokio::test]
async fn compressed_requests_are_answered_compressed() {
    let server = start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = server.client().await.send_compressed(encoding).accept_compressed(encoding);
        let message = request("echo", vec![7; 400_000]);
        let answer = client.model_infer(message.clone()).await.unwrap();
        assert!(answer.metadata().get("grpc-encoding").is_some());
        assert!(answer.into_inner().raw_output_contents == message.raw_input_contents);
    }
}

#[tokio::test]
async fn memory_for_messages_is_bounded() {
    let config = ServerConfig { max_buffered: 3 << 20, ..ServerConfig::default() };
    let mut client = start_with(config).await.client().await;
    let status = client.model_infer(request("echo", vec![0; 4 << 20])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(watchdog(client.model_infer(request("echo", vec![0; 2 << 20]))).await.is_ok());
}

#[tokio::test]
async fn many_clients_are_served_at_once() {
    let server = start().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let mut client = server.client().await;
        calls.spawn(async move { client.model_infer(request("echo", vec![0; 64])).await });
    }
    let answers = watchdog(calls.join_all()).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
}

#[tokio::test]
async fn pings_without_data_are_tolerated() {
    let server = start().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.http2_keep_alive_interval(Duration::from_millis(1)).keep_alive_while_idle(true);
    let mut client = support::Client::new(endpoint.connect().await.unwrap());
    let mut waits = Request::new(request("hang", vec![0; 4]));
    waits.set_timeout(Duration::from_millis(100));
    assert_eq!(client.model_infer(waits).await.unwrap_err().code(), Code::Cancelled, "its own timer ends it");
    assert!(client.model_infer(request("echo", vec![0; 4])).await.is_ok());
}
