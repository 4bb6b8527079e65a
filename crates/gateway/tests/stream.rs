//! `ModelStreamInfer` through an API server.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::sync::Arc;

use anyserve_cluster::policy::RoundRobin;
use anyserve_gateway::ProxyConfig;
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use anyserve_server::Drained;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body::Frame;
use scripted::replica::{data, frames, hand_back, hang, pieces_and_silence, response, status};
use scripted::{
    Call, Client, Reply, STREAM, World, gated_with, raw, request, start, start_with, until, watchdog, with_id,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// An open stream.
struct Stream {
    requests: mpsc::Sender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Stream {
    async fn open(client: &mut Client, headers: &[(&'static str, &str)]) -> Self {
        let (requests, sent) = mpsc::channel(64);
        let mut call = tonic::Request::new(ReceiverStream::new(sent));
        for (name, value) in headers {
            call.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let answers = watchdog(client.model_stream_infer(call)).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn send(&self, model: &str, id: &str) {
        self.requests.send(with_id(id, request(model, vec![0; 4]))).await.unwrap();
    }

    async fn next(&mut self) -> Result<ModelStreamInferResponse, Status> {
        watchdog(self.answers.next()).await.unwrap()
    }

    /// Id and error of the next answer.
    async fn told(&mut self) -> (String, String) {
        let answer = self.next().await.unwrap();
        (answer.infer_response.unwrap().id, answer.error_message)
    }
}

async fn open(world: &World) -> Stream {
    Stream::open(&mut world.client().await, &[]).await
}

/// As many responses as the request's model name says, after its "r".
async fn repeat(call: Call) -> Reply {
    let request = call.request();
    let Ok(count) = request.model_name[1..].parse() else { return hand_back("") };
    data((0..count).map(|at| response(&request.id, &[at])), &[("grpc-status", "0")])
}

fn told(id: &str) -> (String, String) {
    (id.to_owned(), String::new())
}

#[tokio::test]
async fn every_message_is_a_call_of_its_own_and_its_answers_come_through() {
    let world = start();
    let replica = world.replica("a", &["model=r1", "model=r3", "model=r0"], repeat).await;
    let mut stream = open(&world).await;
    for (model, id) in [("r1", "a"), ("r3", "b"), ("r0", "c"), ("r1", "d")] {
        stream.send(model, id).await;
    }
    drop(stream.requests);
    let mut all = Vec::new();
    while let Some(answer) = watchdog(stream.answers.next()).await {
        all.push(answer.unwrap().infer_response.unwrap().id);
    }
    all.sort();
    assert_eq!(all, ["a", "b", "b", "b", "d"]);
    let seen = replica.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|(path, headers, _)| path[1..] == *STREAM && headers["triton_grpc_error"] == "true"));
    assert_eq!(seen[0].2, raw::framed(&with_id("a", request("r1", vec![0; 4]))));
    until(|| world.in_flight() == 0).await;
}

#[tokio::test]
async fn the_first_answer_waits_until_every_earlier_request_has_begun_to_answer() {
    let world = start();
    let (opened, gated) = gated_with(|call| pieces_and_silence(vec![response(&call.request().id, &[1])]));
    let _slow = world.replica("a", &["model=slow"], gated).await;
    let quick = world.replica("b", &["model=r2", "model=r1"], repeat).await;
    let mut stream = open(&world).await;
    stream.send("slow", "first").await;
    stream.send("r1", "second").await;
    stream.send("nobody", "third").await;
    until(|| !quick.seen().is_empty()).await;
    opened.add_permits(1);
    // The first one never ends, and holds up nobody once it has begun.
    assert_eq!(stream.told().await, told("first"));
    assert_eq!(stream.told().await, told("second"));
    let (id, error) = stream.told().await;
    let message = "no replica serves model 'nobody'; GET /registry lists what 2 replicas offer; GET /explain says why";
    assert_eq!((&*id, &*error), ("third", message));
}

#[tokio::test]
async fn a_failure_is_told_inside_the_stream_which_goes_on() {
    let world = start();
    let serve = |call: Call| async move {
        let failed = [("grpc-status", "13"), ("grpc-message", "ValueError"), ("x-anyserve-code", "HANDLER_ERROR")];
        match call.request().model_name.as_str() {
            "fail" => status(&failed),
            "late" => data([response(&call.request().id, &[1])], &failed),
            _ => data([response(&call.request().id, &[1])], &[("grpc-status", "0")]),
        }
    };
    let _replica = world.replica("a", &["model=fail", "model=late", "model=ok"], serve).await;
    let mut stream = open(&world).await;
    stream.send("fail", "a").await;
    let answer = stream.next().await.unwrap();
    let inner = answer.infer_response.unwrap();
    assert_eq!((&*answer.error_message, &*inner.id), ("ValueError", "a"));
    let code = inner.parameters["x-anyserve-code"].parameter_choice.clone();
    assert_eq!(code, Some(ParameterChoice::StringParam("HANDLER_ERROR".into())));
    stream.send("late", "b").await;
    assert_eq!(stream.told().await, told("b"));
    assert_eq!(stream.told().await, ("b".to_owned(), "ValueError".to_owned()));
    stream.send("ok", "c").await;
    assert_eq!(stream.told().await, told("c"));
}

#[tokio::test]
async fn a_client_that_wants_the_status_gets_it_and_what_was_answered_before() {
    let world = start();
    let failed = [("grpc-status", "13"), ("grpc-message", "no"), ("x-anyserve-code", "HANDLER_ERROR")];
    let serve = move |call: Call| async move { data([response(&call.request().id, &[1])], &failed) };
    let _replica = world.replica("a", &["model=late"], serve).await;
    let mut stream = Stream::open(&mut world.client().await, &[("triton_grpc_error", "true")]).await;
    stream.send("late", "a").await;
    assert_eq!(stream.told().await, told("a"));
    let status = stream.next().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "no"));
    assert_eq!(status.metadata().get("x-anyserve-code").unwrap(), "HANDLER_ERROR");
}

#[tokio::test]
async fn a_request_of_a_stream_is_handed_on_before_its_first_answer() {
    let world = start();
    let _refuses = world.replica("a", &["type=decode"], |_| async { hand_back("type=heavy") }).await;
    let serve = |call: Call| async move { data([response(&call.request().id, &[1])], &[("grpc-status", "0")]) };
    let serves = world.replica("b", &["type=heavy"], serve).await;
    let mut stream = open(&world).await;
    stream.send("decode", "a").await;
    assert_eq!(stream.told().await, told("a"));
    assert_eq!(serves.header("x-anyserve-delegations").as_deref(), Some("1"));
    assert_eq!(serves.header("x-anyserve-query").as_deref(), Some("type=heavy"));
}

#[tokio::test]
async fn a_dropped_stream_cancels_its_requests() {
    let world = start();
    let serve = |call: Call| async move {
        let id = call.request().id;
        if call.request().model_name == "hang" { hang().await } else { pieces_and_silence(vec![response(&id, &[1])]) }
    };
    let replica = world.replica("a", &["model=hang", "model=begun"], serve).await;
    let mut stream = open(&world).await;
    stream.send("begun", "a").await;
    assert_eq!(stream.told().await, told("a"));
    stream.send("hang", "b").await;
    until(|| replica.held() == 2 && world.in_flight() == 2).await;
    drop(stream);
    until(|| replica.held() == 0 && world.in_flight() == 0).await;
}

#[tokio::test]
async fn no_more_requests_are_read_than_may_be_in_flight() {
    let world = start_with(&ProxyConfig { max_stream_requests: 2, ..ProxyConfig::default() }, Box::new(RoundRobin));
    let replica = world.replica("a", &["model=hang"], |_| hang()).await;
    let quick = world.replica("b", &["model=r1"], repeat).await;
    let stream = open(&world).await;
    for id in ["a", "b", "c"] {
        stream.send("hang", id).await;
    }
    until(|| replica.held() == 2).await;
    let mut other = open(&world).await;
    other.send("r1", "d").await;
    assert_eq!(other.told().await, told("d"));
    assert_eq!((replica.seen().len(), quick.seen().len()), (2, 1));
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_back_its_replicas() {
    let world = start();
    let pulled = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let serve = move |_: Call| {
        let (counter, piece) = (Arc::clone(&counter), response("a", &vec![0; 64 << 10]));
        let endless = stream::repeat_with(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(Frame::data(piece.clone()))
        });
        std::future::ready(frames(endless))
    };
    let _replica = world.replica("a", &["model=m"], serve).await;
    let _quick = world.replica("b", &["model=r1"], repeat).await;
    let mut slow = open(&world).await;
    slow.send("m", "a").await;
    assert_eq!(slow.told().await, told("a"));
    for _ in 0..100 {
        let mut other = open(&world).await;
        other.send("r1", "b").await;
        assert_eq!(other.told().await, told("b"));
    }
    let pulled = pulled.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1..512).contains(&pulled), "{pulled} pieces of 64 KiB were pulled");
}

#[tokio::test]
async fn messages_of_several_replicas_are_never_mixed_up() {
    let world = start();
    // Each message comes in three pieces, so that others come in between.
    let serve = |call: Call| async move {
        let id = call.request().id;
        let pieces: Vec<Bytes> = (0..20)
            .flat_map(|at| {
                let whole = response(&id, &[at; 5000]);
                [whole.slice(..3), whole.slice(3..2000), whole.slice(2000..)]
            })
            .collect();
        let trailers = Frame::trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect());
        let pieces = stream::iter(pieces).then(|piece| async {
            tokio::task::yield_now().await;
            Ok(Frame::data(piece))
        });
        frames(pieces.chain(stream::iter([Ok(trailers)])))
    };
    let (_a, _b) = (world.replica("a", &["model=x"], serve).await, world.replica("b", &["model=y"], serve).await);
    let mut stream = open(&world).await;
    stream.send("x", "x").await;
    stream.send("y", "y").await;
    drop(stream.requests);
    let mut counts = std::collections::BTreeMap::<String, u8>::new();
    while let Some(answer) = watchdog(stream.answers.next()).await {
        let answer = answer.unwrap().infer_response.unwrap();
        let count = counts.entry(answer.id).or_default();
        assert_eq!(answer.raw_output_contents[0], vec![*count; 5000]);
        *count += 1;
    }
    assert_eq!(counts, [("x".to_owned(), 20), ("y".to_owned(), 20)].into());
}

#[tokio::test]
async fn an_answer_that_breaks_in_the_middle_of_a_message_fails_alone() {
    let world = start();
    let serve = |call: Call| async move {
        let whole = response(&call.request().id, &[1; 5000]);
        let broken = stream::once(async { Err(std::io::Error::other("broken")) });
        let piece = move |piece| Ok(Frame::data(piece));
        frames(stream::iter([whole.clone(), whole.slice(..100)]).map(piece).chain(broken))
    };
    let (_a, _b) = (world.replica("a", &["model=x"], serve).await, world.replica("b", &["model=r2"], repeat).await);
    let mut stream = open(&world).await;
    stream.send("x", "x").await;
    // How much of it came before it broke is chance; that it failed is not.
    let failed = loop {
        let (id, error) = stream.told().await;
        assert_eq!(id, "x");
        if !error.is_empty() {
            break error;
        }
    };
    assert_eq!(failed, "the connection to replica 'a' broke");
    stream.send("r2", "y").await;
    assert_eq!((stream.told().await, stream.told().await), (told("y"), told("y")));
}

#[tokio::test]
async fn the_deadline_ends_a_stream_and_garbage_ends_it_once_the_rest_is_answered() {
    let world = start();
    let replica = world.replica("a", &["model=hang", "model=r1"], |call: Call| async move {
        if call.request().model_name == "hang" { hang().await } else { repeat(call).await }
    });
    let replica = replica.await;
    let hangs = raw::framed(&request("hang", vec![0; 4]));
    let answer = raw::call(world.address, STREAM, &[("grpc-timeout", "500m")], hangs).await;
    assert_eq!((answer.status(), answer.code()), ("4", Some("DEADLINE")));
    until(|| replica.held() == 0).await;
    let garbage = [raw::framed(&request("r1", vec![0; 4])), raw::prefixed(0, &[0xff; 3])].concat();
    let answer = raw::call(world.address, STREAM, &[], garbage).await;
    assert_eq!((answer.status(), &answer.body), ("3", &response("", &[0])));
}

#[tokio::test]
async fn a_stream_does_not_hold_up_the_drain_and_its_requests_are_answered() {
    let world = start();
    let (opened, gated) = gated_with(|call| data([response(&call.request().id, &[1])], &[("grpc-status", "0")]));
    let replica = world.replica("a", &["model=m"], gated).await;
    let mut stream = open(&world).await;
    stream.send("m", "a").await;
    until(|| replica.held() == 1).await;
    world.begin_to_leave();
    opened.add_permits(1);
    assert_eq!(stream.told().await, told("a"));
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(world.drained().await, Drained::Clean);
}
