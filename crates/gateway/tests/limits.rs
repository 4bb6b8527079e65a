//! Answers that are longer than they may be, and more of them than there is memory for.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::sync::Arc;

use anyserve_cluster::policy::RoundRobin;
use anyserve_gateway::ProxyConfig;
use anyserve_proto::inference::ModelInferResponse;
use anyserve_proto::inference::model_infer_response::InferOutputTensor;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use scripted::replica::{data, response};
use scripted::{Call, INFER, Reply, STREAM, World, raw, request, start_with, until, watchdog};

const MIB: usize = 1 << 20;
const BODY: &str = r#"{"model": "m", "inputs": {}}"#;

fn limited(max_message: usize) -> World {
    let mut config = ProxyConfig::default();
    config.limits.max_message = max_message;
    start_with(&config, Box::new(RoundRobin))
}

fn with_memory(max_buffered: usize) -> World {
    start_with(&ProxyConfig { max_buffered, ..ProxyConfig::default() }, Box::new(RoundRobin))
}

/// An answer of one text of so many bytes, which JSON does not lengthen.
fn text(len: usize) -> ModelInferResponse {
    let raw = [&u32::try_from(len).unwrap().to_le_bytes()[..], &vec![b'x'; len]].concat();
    let output = InferOutputTensor {
        name: "y".into(),
        datatype: "BYTES".into(),
        shape: vec![1],
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: "m".into(),
        outputs: vec![output],
        raw_output_contents: vec![raw.into()],
        ..ModelInferResponse::default()
    }
}

/// The answer to a call, framed as the call wants it.
fn answered(call: &Call, answer: &ModelInferResponse) -> Reply {
    let framed = if call.path[1..] == *STREAM {
        let infer_response = Some(answer.clone());
        let answer = anyserve_proto::inference::ModelStreamInferResponse { infer_response, ..Default::default() };
        raw::framed(&answer)
    } else {
        raw::framed(answer)
    };
    data([framed.into()], &[("grpc-status", "0")])
}

/// Whether an answer over HTTP tells this code: in its head, or in an event.
fn is_told(answer: &raw::Answer, code: &str) -> bool {
    answer.code() == Some(code) || answer.text().contains(&format!(r#""code":"{code}""#))
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_the_handlers_error_on_every_way() {
    let answer = response("", &[7; 3000]);
    let len = answer.len() - 5;
    for (max, fits) in [(len + 1, true), (len, true), (len - 1, false)] {
        let world = limited(max);
        let sent = answer.clone();
        // In three pieces, the first of which is not even a whole prefix.
        let serve = move |_: Call| {
            let pieces = [sent.slice(..3), sent.slice(3..2000), sent.slice(2000..)];
            std::future::ready(data(pieces, &[("grpc-status", "0")]))
        };
        let replica = world.replica("a", &["model=m"], serve).await;
        let asks = raw::framed(&request("m", vec![0; 4]));
        for (method, headers) in [(INFER, &[][..]), (STREAM, &[("triton_grpc_error", "true")])] {
            let told = raw::call(world.address, method, headers, asks.clone()).await;
            if fits {
                assert_eq!((told.status(), &told.body), ("0", &answer), "{method} {max}");
                continue;
            }
            assert_eq!((told.status(), told.code()), ("13", Some("HANDLER_ERROR")), "{method} {max}");
            let message = format!("the answer of replica 'a' has {len} bytes, the limit is {max}").replace(' ', "%20");
            assert_eq!(told.message().replace("%27", "'"), message);
        }
        until(|| world.in_flight() == 0 && replica.held() == 0).await;
    }
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_told_in_json_and_inside_a_stream() {
    let world = limited(1000);
    let _replica = world.replica("a", &["model=m"], |call| async move { answered(&call, &text(2000)) }).await;
    for path in ["/infer", "/infer/stream"] {
        let told = raw::post(world.address, path, &[], BODY).await;
        assert!(told.text().contains("the limit is 1000"), "{}", told.text());
        assert!(is_told(&told, "HANDLER_ERROR"), "{}", told.text());
    }
    let told = raw::call(world.address, STREAM, &[], raw::framed(&request("m", vec![0; 4]))).await;
    let text = String::from_utf8_lossy(&told.body);
    assert!(told.status() == "0" && text.contains("HANDLER_ERROR"), "{text}");
}

#[tokio::test]
async fn an_answer_in_json_is_made_where_there_is_memory_for_it_and_refused_where_there_is_not() {
    let len = 64 << 10;
    // What is decoded takes its length, and JSON pieces of up to 64 KiB more.
    for (memory, fits) in [(len / 2, false), (3 * len / 2, false), (4 * len, true)] {
        let world = with_memory(memory);
        let _replica = world.replica("a", &["model=m"], move |call| async move { answered(&call, &text(len)) }).await;
        let one = raw::post(world.address, "/infer", &[], BODY).await;
        assert_eq!(one.http.as_u16(), if fits { 200 } else { 429 }, "{memory}");
        assert_eq!(
            (one.code(), one.told("retry-after").is_some()),
            (if fits { None } else { Some("OVERLOADED") }, !fits)
        );
        let stream = raw::post(world.address, "/infer/stream", &[], BODY).await;
        assert_eq!(stream.text().contains("event: done"), fits);
        assert_eq!(is_told(&stream, "OVERLOADED"), !fits, "{memory}");
        until(|| world.in_flight() == 0).await;
    }
}

/// Answers that nobody reads, over connections that hold little: how many more than the memory allows were refused.
#[tokio::test]
async fn large_answers_in_json_that_nobody_takes_leave_no_room_for_more_until_they_are_taken() {
    let len = 16 * MIB;
    let world = with_memory(5 * len);
    let answer = Arc::new(text(len));
    let serve = move |call: Call| {
        let reply = answered(&call, &answer);
        std::future::ready(reply)
    };
    let _replica = world.replica("a", &["model=m"], serve).await;
    let json = [("content-type", "application/json")];
    let mut held = Vec::new();
    // Each takes twice its length while it is made, and once when it is. What is not read here is a few MiB at most.
    let refused = loop {
        let (response, connection) = raw::begin(world.address, "infer", &json, BODY).await;
        if response.status() != 200 {
            break (response.status().as_u16(), response.headers()["x-anyserve-code"].clone());
        }
        held.push((response, connection));
        assert!(held.len() <= 5, "so many answers don't fit");
    };
    assert_eq!(refused, (429, "OVERLOADED".parse().unwrap()));
    assert!(!held.is_empty());
    let read = held.into_iter().map(|(response, connection)| async move {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        drop(connection);
        body.len() > len
    });
    assert!(watchdog(join_all(read)).await.into_iter().all(|whole| whole));
    until(|| world.in_flight() == 0).await;
    let again: Bytes = raw::post(world.address, "/infer", &[], BODY).await.body;
    assert!(again.len() > len);
}
