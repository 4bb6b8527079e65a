//! `ModelStreamInfer` from outside.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyserve_proto::inference::infer_parameter::ParameterChoice::{BoolParam, Int64Param};
use anyserve_proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use anyserve_server::{Drained, ServerConfig};
use futures_util::{StreamExt, stream};
use support::{Client, raw, request, start, start_with, until, watchdog, with, with_id};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// A stream with both ends in hand.
struct Stream {
    send: mpsc::Sender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Stream {
    async fn open(client: &mut Client) -> Self {
        let (send, receive) = mpsc::channel(1000);
        let answers = client.model_stream_infer(ReceiverStream::new(receive)).await.unwrap().into_inner();
        Self { send, answers }
    }

    async fn send(&self, request: ModelInferRequest) {
        self.send.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<ModelStreamInferResponse, Status> {
        watchdog(self.answers.next()).await.expect("the stream ended")
    }

    /// The id of the next answer, which is no error.
    async fn next_id(&mut self) -> String {
        let answer = self.next().await.unwrap();
        assert_eq!(answer.error_message, "");
        answer.infer_response.unwrap().id
    }
}

fn small(id: &str, model: &str) -> ModelInferRequest {
    with_id(id, request(model, vec![0; 4]))
}

fn repeat(id: &str, n: i64) -> ModelInferRequest {
    with("n", Int64Param(n), small(id, "repeat"))
}

async fn all(requests: Vec<ModelInferRequest>) -> Vec<Result<ModelStreamInferResponse, Status>> {
    let server = start().await;
    let answers = server.client().await.model_stream_infer(stream::iter(requests)).await.unwrap().into_inner();
    watchdog(answers.collect()).await
}

#[tokio::test]
async fn ordinary_answers_keep_the_order_of_requests() {
    let server = start().await;
    let mut stream = Stream::open(&mut server.client().await).await;
    stream.send(small("0", "gate")).await;
    for id in 1..300 {
        stream.send(small(&id.to_string(), "echo")).await;
    }
    server.fake.open_gate();
    for id in 0..300 {
        assert_eq!(stream.next_id().await, id.to_string());
    }
    drop(stream.send);
    assert!(watchdog(stream.answers.next()).await.is_none());
}

#[tokio::test]
async fn streams_do_not_wait_for_ordinary_answers_before_them() {
    let server = start().await;
    let mut stream = Stream::open(&mut server.client().await).await;
    stream.send(small("slow", "gate")).await;
    stream.send(small("waits", "echo")).await;
    stream.send(repeat("quick", 2)).await;
    assert_eq!([stream.next_id().await, stream.next_id().await], ["quick", "quick"]);
    server.fake.open_gate();
    assert_eq!([stream.next_id().await, stream.next_id().await], ["slow", "waits"]);
}

#[tokio::test]
async fn a_failed_request_is_told_and_the_stream_goes_on() {
    let mut bad = small("bad", "echo");
    bad.inputs[0].shape = vec![2];
    let requests = vec![small("a", "echo"), bad, small("fails", "fail"), small("p", "panic"), small("b", "echo")];
    let answers: Vec<_> = all(requests).await.into_iter().map(Result::unwrap).collect();
    let texts: Vec<_> = answers.iter().map(|answer| answer.error_message.as_str()).collect();
    let odd = "input 'x' for model 'echo' has 4 bytes, expected 8 for shape [2] of FP32";
    assert_eq!(texts, ["", odd, "ValueError: no", "the server failed on this request", ""]);
    let ids: Vec<_> = answers.into_iter().map(|answer| answer.infer_response.unwrap().id).collect();
    assert_eq!(ids, ["a", "bad", "fails", "p", "b"]);
}

#[tokio::test]
async fn the_first_error_ends_the_stream_where_the_client_wants_that() {
    let server = start().await;
    let mut call = Request::new(stream::iter(vec![small("a", "echo"), small("b", "fail"), small("c", "echo")]));
    call.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    let answers = server.client().await.model_stream_infer(call).await.unwrap().into_inner();
    let answers: Vec<_> = watchdog(answers.collect()).await;
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0].as_ref().unwrap().infer_response.as_ref().unwrap().id, "a");
    let status = answers[1].as_ref().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "ValueError: no"));
}

#[tokio::test]
async fn the_last_response_is_marked_only_for_those_who_ask() {
    let asked = with("triton_enable_empty_final_response", BoolParam(true), repeat("a", 2));
    let marks: Vec<_> = all(vec![asked])
        .await
        .into_iter()
        .map(|answer| {
            let response = answer.unwrap().infer_response.unwrap();
            assert_eq!((&*response.id, &*response.model_name), ("a", "repeat"));
            (response.outputs.len(), response.parameters["triton_final_response"].parameter_choice.clone().unwrap())
        })
        .collect();
    assert_eq!(marks, [(1, BoolParam(false)), (1, BoolParam(false)), (0, BoolParam(true))]);
    let answers = all(vec![repeat("a", 2), repeat("b", 0)]).await;
    assert_eq!(answers.len(), 2);
    let parameters = &answers[0].as_ref().unwrap().infer_response.as_ref().unwrap().parameters;
    assert!(!parameters.contains_key("triton_final_response"));
}

#[tokio::test]
async fn a_stream_that_fails_half_way_ends_with_its_error() {
    let answers = all(vec![with("fail", BoolParam(true), repeat("a", 2)), small("b", "echo")]).await;
    let mut texts: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().error_message).collect();
    texts.sort();
    assert_eq!(texts, ["", "", "", "half-way"]);
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_requests() {
    let server = start().await;
    let mut stream = Stream::open(&mut server.client().await).await;
    stream.send(small("a", "hang")).await;
    stream.send(repeat("b", i64::MAX)).await;
    assert_eq!(stream.next_id().await, "b");
    until(|| server.fake.held() == 2).await;
    drop(stream);
    until(|| server.fake.held() == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_back_the_stream_and_no_other() {
    let server = start().await;
    let mut stream = Stream::open(&mut server.client().await).await;
    stream.send(small("a", "endless")).await;
    assert_eq!(stream.next_id().await, "a");
    let answer = watchdog(async { server.client().await.model_infer(small("b", "echo")).await }).await;
    assert_eq!(answer.unwrap().into_inner().id, "b");
}

#[tokio::test]
async fn no_more_requests_are_read_than_may_be_in_flight() {
    let server = start_with(ServerConfig { max_stream_requests: 2, ..ServerConfig::default() }).await;
    let stream = Stream::open(&mut server.client().await).await;
    for id in ["a", "b", "c"] {
        stream.send(small(id, "hang")).await;
    }
    until(|| server.fake.held() == 2).await;
    let mut other = Stream::open(&mut server.client().await).await;
    other.send(small("d", "echo")).await;
    assert_eq!(other.next_id().await, "d");
    assert_eq!(server.fake.held(), 2);
}

#[tokio::test]
async fn the_deadline_ends_a_stream() {
    let server = start().await;
    let message = raw::framed(&small("a", "hang"));
    let method = "inference.GRPCInferenceService/ModelStreamInfer";
    let answer = watchdog(raw::call(server.address, method, &[("grpc-timeout", "20m")], message)).await;
    assert_eq!(answer.status(), "4");
    until(|| server.fake.held() == 0).await;
}

#[tokio::test]
async fn an_idle_stream_does_not_hold_up_the_drain_and_its_requests_are_answered() {
    let server = start().await;
    let (mut idle, mut busy) =
        (Stream::open(&mut server.client().await).await, Stream::open(&mut server.client().await).await);
    busy.send(small("a", "gate")).await;
    idle.send(small("b", "echo")).await;
    assert_eq!(idle.next_id().await, "b");
    let fake = server.fake.clone();
    server.begin_to_leave();
    assert_eq!(idle.next().await.unwrap_err().code(), Code::Unavailable);
    fake.open_gate();
    assert_eq!(busy.next_id().await, "a");
    assert_eq!(busy.next().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.drained().await, Drained::Clean);
}

#[tokio::test]
async fn garbage_after_a_request_ends_the_stream_once_that_is_answered() {
    let server = start().await;
    let bytes = [raw::framed(&small("a", "echo")), vec![0, 0, 0, 0, 3, 0xff, 0xff, 0xff]].concat();
    let method = "inference.GRPCInferenceService/ModelStreamInfer";
    let answer = watchdog(raw::call(server.address, method, &[], bytes)).await;
    assert_eq!(answer.status(), "3");
    assert!(answer.body.len() > 10);
}

#[tokio::test]
async fn a_stream_of_very_many_small_requests_that_has_to_wait_harms_no_other_on_its_connection() {
    let server = start_with(ServerConfig { max_stream_requests: 1, ..ServerConfig::default() }).await;
    let mut client = server.client().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let waiting = std::iter::repeat_with(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        small("", "hang")
    });
    let mut answers = client.model_stream_infer(stream::iter(waiting.take(1 << 20))).await.unwrap().into_inner();
    let mut before = usize::MAX;
    while before != taken.load(Ordering::Relaxed) {
        before = taken.load(Ordering::Relaxed);
        for _ in 0..50 {
            watchdog(client.model_infer(small("other", "echo"))).await.unwrap();
        }
    }
    assert!(futures_util::poll!(answers.next()).is_pending(), "{before} requests were written");
}
