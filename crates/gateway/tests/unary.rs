//! `ModelInfer` through an API server.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyserve_client::{Tls, TlsPem};
use anyserve_cluster::Health;
use anyserve_cluster::policy::RoundRobin;
use anyserve_gateway::{Gateway, GatewayConfig, GrpcProber, Prober, ProxyConfig, ReplicasConfig};
use anyserve_proto::inference::{InferTensorContents, infer_parameter::ParameterChoice};
use anyserve_server::{Drained, Listener, Server, ServerConfig, TlsFiles};
use bytes::Bytes;
use http_body_util::BodyExt;
use scripted::raw::Answer;
use scripted::replica::{data, frames, hand_back, hang, pieces_and_break, pieces_and_silence, status};
use scripted::{Call, INFER, Replica, World, gated, raw, request, start, start_with, until, watchdog, with};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

async fn echo(call: Call) -> scripted::Reply {
    call.echo()
}

/// A port where nothing listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bytes_go_through_as_they_are_typed_raw_large_and_compressed() {
    let world = start();
    let replica = world.replica("a", &["model=m"], echo).await;
    let mut typed = request("m", vec![]);
    typed.raw_input_contents.clear();
    typed.inputs[0].contents = Some(InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() });
    let large: Vec<u8> = (0..1 << 20_u32).flat_map(u32::to_le_bytes).collect();
    let compressed = raw::prefixed(1, &gzip(&prost::Message::encode_to_vec(&request("m", vec![7; 400_000]))));
    let plain = [raw::framed(&typed), raw::framed(&request("m", vec![1; 64])), raw::framed(&request("m", large))];
    for (body, encoding) in plain.into_iter().map(|body| (body, "identity")).chain([(compressed, "gzip")]) {
        let body = Bytes::from(body);
        let answer = raw::call(world.address, INFER, &[("grpc-encoding", encoding)], body.clone()).await;
        assert_eq!(answer.status(), "0", "{}", answer.message());
        assert!(answer.body == body && replica.seen().last().unwrap().2 == body);
        assert_eq!(replica.header("grpc-encoding").as_deref(), Some(encoding));
    }
    assert_eq!(replica.connections(), 1);
    assert_eq!(world.in_flight(), 0);
}

#[tokio::test]
async fn metadata_and_trailers_go_along_and_the_answer_says_whose_it_is() {
    let world = start();
    let serve = |call: Call| async move {
        let mut reply = data([call.body.clone()], &[("grpc-status", "0"), ("x-own", "trailer")]);
        reply.headers_mut().insert("x-head", "1".parse().unwrap());
        reply
    };
    let replica = world.replica("replica-1", &["model=m"], serve).await;
    let headers = [("x-user", "me"), ("a-bin", "AAEC"), ("te", "trailers"), ("authorization", "Bearer x")];
    let answer = raw::call(world.address, INFER, &headers, raw::framed(&request("m", vec![0; 4]))).await;
    assert_eq!((answer.status(), answer.told("x-own")), ("0", Some("trailer")));
    assert_eq!(answer.headers["x-head"], "1");
    assert_eq!((answer.told("x-anyserve-replica"), answer.told("x-anyserve-attempts")), (Some("replica-1"), Some("1")));
    for (name, value) in headers.into_iter().chain([("x-anyserve-delegations", "0")]) {
        assert_eq!(replica.header(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!((replica.header("x-anyserve-query"), replica.header("grpc-timeout")), (None, None));
}

#[tokio::test]
async fn the_query_comes_from_headers_then_the_parameter_then_the_name() {
    let world = start();
    let (a, b) = (world.replica("a", &["type=chat"], echo).await, world.replica("b", &["size=7"], echo).await);
    let named = |name: &str| raw::framed(&request(name, vec![0; 4]));
    let asked =
        raw::framed(&with("capability", ParameterChoice::StringParam("size>=7".into()), request("chat", vec![0; 4])));
    raw::call(world.address, INFER, &[], named("chat")).await;
    assert_eq!((a.seen().len(), b.seen().len()), (1, 0));
    raw::call(world.address, INFER, &[], asked.clone()).await;
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1));
    raw::call(world.address, INFER, &[("x-capability-type", "chat")], asked).await;
    raw::call(world.address, INFER, &[("x-anyserve-query", "type=chat"), ("x-capability-size", "7")], named("b")).await;
    assert_eq!((a.seen().len(), b.seen().len()), (3, 1));
    for (headers, body, why) in [
        (vec![], raw::prefixed(0, &[0xff; 9]), "the message is no ModelInferRequest"),
        (vec![("x-anyserve-query", "%")], named("chat"), "x-anyserve-query"),
        (vec![("x-anyserve-delegations", "2")], named("chat"), "expected 0 or 1"),
        (vec![("grpc-timeout", "soon")], named("chat"), "is no timeout"),
        (
            vec![],
            raw::framed(&with("capability", ParameterChoice::BoolParam(true), request("chat", vec![]))),
            "no text",
        ),
        (vec![], vec![], "the call has no message"),
    ] {
        let answer = raw::call(world.address, INFER, &headers, body).await;
        assert_eq!((answer.status(), answer.code()), ("3", Some("INVALID_INPUT")));
        let message = answer.message().replace("%20", " ");
        assert!(message.contains(why), "{message}");
    }
}

#[tokio::test]
async fn errors_of_a_replica_come_through_in_its_own_words() {
    let world = start();
    let serve = |call: Call| async move {
        if call.request().model_name == "whole" {
            return status(&[
                ("grpc-status", "13"),
                ("x-anyserve-code", "HANDLER_ERROR"),
                ("grpc-message", "ValueError"),
            ]);
        }
        data([call.body.clone()], &[("grpc-status", "9"), ("x-anyserve-code", "POISON"), ("x-more", "1")])
    };
    world.replica("a", &["model=whole"], serve).await;
    let _replica = world.replica("a2", &["model=late", "model=whole"], serve).await;
    let answer = raw::call(world.address, INFER, &[], raw::framed(&request("late", vec![0; 4]))).await;
    assert_eq!((answer.status(), answer.code(), answer.told("x-more")), ("9", Some("POISON"), Some("1")));
    assert!(!answer.body.is_empty());
    let answer = raw::call(world.address, INFER, &[], raw::framed(&request("whole", vec![0; 4]))).await;
    assert_eq!((answer.status(), answer.code(), answer.message()), ("13", Some("HANDLER_ERROR"), "ValueError"));
    assert_eq!(answer.told("x-anyserve-replica"), Some("a2"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_at_the_replica() {
    let world = start();
    let replica = world.replica("a", &["model=hang"], |_| hang()).await;
    let mut client = world.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("hang", vec![0; 4])).await });
    until(|| replica.held() == 1).await;
    assert_eq!(world.in_flight(), 1);
    call.abort();
    until(|| replica.held() == 0 && world.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_answer_cancels_it() {
    let world = start();
    let serve = |call: Call| async move { pieces_and_silence(vec![call.body.slice(..6)]) };
    let replica = world.replica("a", &["model=m"], serve).await;
    let (mut response, connection) =
        raw::begin(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
    assert_eq!(watchdog(response.frame()).await.unwrap().unwrap().into_data().unwrap().len(), 6);
    assert_eq!((replica.held(), world.in_flight()), (1, 1));
    drop((response, connection));
    until(|| replica.held() == 0 && world.in_flight() == 0).await;
}

#[tokio::test]
async fn the_deadline_ends_a_request_that_nobody_answers_and_goes_along() {
    let world = start();
    let replica = world.replica("a", &["model=hang"], |_| hang()).await;
    let begun = |call: Call| async move { pieces_and_silence(vec![call.body.slice(..6)]) };
    let _slow = world.replica("b", &["model=slow"], begun).await;
    for model in ["hang", "slow"] {
        let body = raw::framed(&request(model, vec![0; 4]));
        let answer = raw::call(world.address, INFER, &[("grpc-timeout", "500m")], body).await;
        assert_eq!((answer.status(), answer.code()), ("4", Some("DEADLINE")), "{model}");
    }
    let told = replica.header("grpc-timeout").unwrap();
    let micros: u64 = told.strip_suffix('u').unwrap().parse().unwrap();
    assert!((1..=500_000).contains(&micros), "{told}");
    until(|| replica.held() == 0 && world.in_flight() == 0).await;
}

#[tokio::test]
async fn a_request_that_is_handed_back_goes_elsewhere_once_as_the_query_that_it_has_become() {
    let world = start();
    let refuses = world.replica("a", &["type=decode"], |_| async { hand_back("type=heavy,size%20in%20(1,2)") }).await;
    let serves = world.replica("b", &["type=heavy,size=1"], echo).await;
    let body = raw::framed(&request("decode", vec![0; 4]));
    let answer = raw::call(world.address, INFER, &[("x-user", "me")], body.clone()).await;
    assert_eq!((answer.status(), &answer.body[..]), ("0", &body[..]));
    assert_eq!((answer.told("x-anyserve-replica"), answer.told("x-anyserve-attempts")), (Some("b"), Some("2")));
    assert_eq!(answer.told("x-anyserve-hand-back"), None);
    assert_eq!(refuses.header("x-anyserve-delegations").as_deref(), Some("0"));
    assert_eq!(serves.header("x-anyserve-delegations").as_deref(), Some("1"));
    assert_eq!(serves.header("x-anyserve-query").as_deref(), Some("size%20in%20(1,2),type=heavy"));
    assert_eq!(serves.header("x-user").as_deref(), Some("me"));
    assert_eq!((refuses.seen().len(), refuses.questions().len(), serves.questions().len()), (1, 0, 1));
}

#[tokio::test]
async fn a_second_hand_back_is_the_end_and_one_with_the_same_query_goes_to_another() {
    let world = start();
    let replicas = [
        world.replica("a", &["type=x"], |_| async { hand_back("") }).await,
        world.replica("b", &["type=x"], |_| async { hand_back("") }).await,
        world.replica("c", &["type=x"], |_| async { hand_back("") }).await,
    ];
    let answer = raw::call(world.address, INFER, &[], raw::framed(&request("x", vec![0; 4]))).await;
    assert_eq!((answer.status(), answer.code()), ("5", Some("NO_CAPABILITY")));
    assert_eq!(answer.told("x-anyserve-hand-back"), None);
    let mut seen: Vec<_> = replicas.iter().map(|replica| replica.seen().len()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 1]);
}

#[tokio::test]
async fn a_request_that_was_forwarded_is_asked_about_and_not_sent_to_who_refused_it() {
    let world = start();
    let a = world.replica("a", &["type=x"], echo).await;
    let b = world.replica("b", &["type=x"], echo).await;
    let headers = [("x-anyserve-delegations", "1"), ("x-anyserve-refused-by", "b"), ("x-anyserve-query", "type=x")];
    for _ in 0..4 {
        let answer = raw::call(world.address, INFER, &headers, raw::framed(&request("y", vec![0; 4]))).await;
        assert_eq!((answer.status(), answer.told("x-anyserve-replica")), ("0", Some("a")));
    }
    assert_eq!((a.questions().len(), b.seen().len(), b.questions().len()), (4, 0, 0));
    assert_eq!(a.header("x-anyserve-delegations").as_deref(), Some("1"));
    a.deny();
    let answer = raw::call(world.address, INFER, &headers, raw::framed(&request("y", vec![0; 4]))).await;
    assert_eq!(answer.code(), Some("NO_CAPABILITY"));
}

#[tokio::test]
async fn who_cannot_be_reached_costs_no_attempt() {
    let world = start();
    world.register("gone", &nowhere().await, &["model=m"], false);
    let _replica = world.replica("b", &["model=m"], echo).await;
    for _ in 0..3 {
        let answer = raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
        assert_eq!((answer.told("x-anyserve-replica"), answer.told("x-anyserve-attempts")), (Some("b"), Some("1")));
    }
    let other = start();
    other.register("gone", &nowhere().await, &["model=m"], false);
    let answer = raw::call(other.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
    assert_eq!((answer.status(), answer.code()), ("14", Some("UNAVAILABLE")));
    assert_eq!(answer.told("x-anyserve-attempts"), Some("0"));
}

#[tokio::test]
async fn a_replica_that_refuses_the_stream_costs_no_attempt() {
    let world = start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let refusing = tokio::spawn(async move {
        let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    world.register("busy", &endpoint, &["model=m"], false);
    let _replica = world.replica("b", &["model=m"], echo).await;
    for _ in 0..3 {
        let answer = raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
        assert_eq!((answer.told("x-anyserve-replica"), answer.told("x-anyserve-attempts")), (Some("b"), Some("1")));
    }
    refusing.abort();
}

#[tokio::test]
async fn a_request_whose_connection_breaks_is_lost() {
    let world = start();
    let _replica = world.replica("a", &["model=m"], |_| async { pieces_and_break(vec![]) }).await;
    let answer = raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
    assert_eq!((answer.status(), answer.code()), ("14", Some("WORKER_LOST")));
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again() {
    let world = start();
    let (breaks, serves) = (Replica::start(|_| async { pieces_and_break(vec![]) }).await, Replica::start(echo).await);
    world.register("a", &breaks.endpoint(), &["model=m"], true);
    world.register("b", &serves.endpoint(), &["model=m"], true);
    // Whose turn it is does not matter: the one that breaks gets one of the first requests.
    let mut told = None;
    while breaks.seen().is_empty() {
        told = Some(raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await);
    }
    let told = told.unwrap();
    assert_eq!((told.status(), told.told("x-anyserve-attempts")), ("0", Some("2")));
    assert_eq!((told.told("x-anyserve-replica"), serves.questions().len()), (Some("b"), 1));
}

#[tokio::test]
async fn an_answer_that_breaks_after_it_has_begun_is_lost_however_idempotent() {
    let world = start();
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let serve = move |_: Call| {
        let gate = Arc::clone(&gate);
        let broken = futures_util::stream::once(async move {
            gate.acquire().await.unwrap().forget();
            Err(std::io::Error::other("broken"))
        });
        let begun = futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"abc")))]);
        std::future::ready(frames(futures_util::StreamExt::chain(begun, broken)))
    };
    let replicas = [Replica::start(serve.clone()).await, Replica::start(serve).await];
    world.register("a", &replicas[0].endpoint(), &["model=m"], true);
    world.register("b", &replicas[1].endpoint(), &["model=m"], true);
    let (response, _connection) = raw::begin(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
    opened.add_permits(2);
    let answer = watchdog(Answer::of(response)).await;
    assert_eq!((answer.status(), answer.code(), &answer.body[..]), ("14", Some("WORKER_LOST"), &b"abc"[..]));
    assert_eq!(answer.told("x-anyserve-attempts"), Some("1"));
}

#[tokio::test]
async fn a_replica_that_dies_is_connected_to_again_when_it_is_back() {
    let world = start();
    let replica = world.replica("a", &["model=m"], echo).await;
    let body = || raw::framed(&request("m", vec![0; 4]));
    assert_eq!(raw::call(world.address, INFER, &[], body()).await.status(), "0");
    replica.kill();
    until(|| std::net::TcpListener::bind(replica.address).is_ok()).await;
    assert_ne!(raw::call(world.address, INFER, &[], body()).await.status(), "0");
    let back = world.replica("a2", &["model=m"], echo).await;
    let answer = raw::call(world.address, INFER, &[], body()).await;
    assert_eq!((answer.status(), answer.told("x-anyserve-replica"), back.connections()), ("0", Some("a2"), 1));
}

#[tokio::test]
async fn a_replica_that_answers_no_ping_is_lost() {
    let quick = Duration::from_millis(50);
    let replicas = ReplicasConfig { keepalive: quick, keepalive_timeout: quick, ..ReplicasConfig::default() };
    let world = start_with(&ProxyConfig { replicas, ..ProxyConfig::default() }, Box::new(RoundRobin));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("mute", &format!("http://{}", listener.local_addr().unwrap()), &["model=m"], false);
    let call = raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4])));
    let (answer, _held) = tokio::join!(call, listener.accept());
    assert_eq!((answer.status(), answer.code()), ("14", Some("WORKER_LOST")));
}

#[tokio::test]
async fn connections_are_bounded_and_one_that_gives_way_finishes_its_requests() {
    let replicas = ReplicasConfig { max_connections: 1, ..ReplicasConfig::default() };
    let world = start_with(&ProxyConfig { replicas, ..ProxyConfig::default() }, Box::new(RoundRobin));
    let (gate, gated) = gated();
    let (slow, quick) =
        (world.replica("a", &["model=slow"], gated).await, world.replica("b", &["model=m"], echo).await);
    let address = world.address;
    let waits =
        tokio::spawn(async move { raw::call(address, INFER, &[], raw::framed(&request("slow", vec![0; 4]))).await });
    until(|| slow.held() == 1).await;
    for _ in 0..3 {
        assert_eq!(raw::call(address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await.status(), "0");
    }
    gate.add_permits(2);
    assert_eq!(watchdog(waits).await.unwrap().status(), "0");
    assert_eq!(raw::call(address, INFER, &[], raw::framed(&request("slow", vec![0; 4]))).await.status(), "0");
    assert_eq!((slow.connections(), quick.connections()), (2, 1));
}

#[tokio::test]
async fn a_slow_client_holds_the_replica_back() {
    let world = start();
    let pulled = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let serve = move |_: Call| {
        let counter = Arc::clone(&counter);
        let endless = futures_util::stream::repeat_with(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(http_body::Frame::data(Bytes::from(vec![0; 64 << 10])))
        });
        std::future::ready(frames(endless))
    };
    let _replica = world.replica("a", &["model=m"], serve).await;
    let _other = world.replica("b", &["model=n"], echo).await;
    let held = raw::begin(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
    // Other requests pass meanwhile, and what is pulled stays far below what an endless answer has.
    for _ in 0..100 {
        assert_eq!(raw::call(world.address, INFER, &[], raw::framed(&request("n", vec![0; 4]))).await.status(), "0");
    }
    let pulled = pulled.load(std::sync::atomic::Ordering::SeqCst);
    assert!((1..512).contains(&pulled), "{pulled} pieces of 64 KiB were pulled");
    drop(held);
    until(|| world.in_flight() == 0).await;
}

#[tokio::test]
async fn messages_are_bounded_by_length_and_by_memory() {
    let mut config = ProxyConfig { max_buffered: 3 << 20, ..ProxyConfig::default() };
    let message = request("m", vec![0; 2 << 20]);
    config.limits.max_message = prost::Message::encoded_len(&message);
    let world = start_with(&config, Box::new(RoundRobin));
    let _replica = world.replica("a", &["model=m"], echo).await;
    assert_eq!(raw::call(world.address, INFER, &[], raw::framed(&message)).await.status(), "0");
    let longer = raw::framed(&scripted::with_id("1", message));
    let answer = raw::call(world.address, INFER, &[], longer).await;
    assert_eq!((answer.status(), answer.code()), ("3", Some("INVALID_INPUT")));
    config.limits.max_message = 1 << 30;
    let world = start_with(&config, Box::new(RoundRobin));
    let _replica = world.replica("a", &["model=m"], echo).await;
    let answer = raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4 << 20]))).await;
    assert_eq!((answer.status(), answer.code()), ("8", Some("OVERLOADED")));
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_is_in_flight() {
    let world = start();
    let (opened, gated) = gated();
    let replica = world.replica("a", &["model=m"], gated).await;
    let address = world.address;
    let waits =
        tokio::spawn(async move { raw::call(address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await });
    until(|| replica.held() == 1).await;
    world.begin_to_leave();
    opened.add_permits(1);
    assert_eq!(watchdog(waits).await.unwrap().status(), "0");
    assert_eq!(world.drained().await, Drained::Clean);
}

#[tokio::test]
async fn nobody_there_and_nobody_who_serves_it_are_told_apart() {
    let world = start();
    let body = || raw::framed(&request("m", vec![0; 4]));
    assert_eq!(raw::call(world.address, INFER, &[], body()).await.code(), Some("UNAVAILABLE"));
    let _replica = world.replica("a", &["model=other"], |_| async { hand_back("") }).await;
    let answer = raw::call(world.address, INFER, &[], body()).await;
    assert_eq!((answer.status(), answer.code()), ("5", Some("NO_CAPABILITY")));
    let unknown = raw::call(world.address, "some.Service/Method", &[], vec![]).await;
    assert_eq!(unknown.status(), "12");
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let world = start();
    let replica = world.replica("a", &["model=m"], echo).await;
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..200_u32 {
        let (address, body) = (world.address, raw::framed(&request("m", at.to_le_bytes().to_vec())));
        calls.spawn(async move { raw::call(address, INFER, &[], body.clone()).await.body == body });
    }
    assert!(watchdog(calls.join_all()).await.into_iter().all(|same| same));
    assert_eq!(replica.connections(), 1);
}

/// An API server with TLS, which stands for a replica: it says that nobody is there.
struct Secure {
    endpoint: String,
    behind: World,
    serving: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

// === impl Secure ===

impl Secure {
    /// It has this certificate. With `mutual` it asks whoever comes for the same.
    fn start(made: &rcgen::CertifiedKey<rcgen::KeyPair>, mutual: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let certificate = file("cert.pem", made.cert.pem());
        let key = file("key.pem", made.signing_key.serialize_pem());
        let tls = Some(TlsFiles { client_ca: mutual.then(|| certificate.clone()), certificate, key });
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (endpoint, behind) = (format!("https://localhost:{}", listener.local_addr().port()), start());
        let config = ServerConfig { tls, ..ServerConfig::default() };
        let server = Server::of(&config, behind.gateway(), CancellationToken::new()).unwrap();
        let serving = tokio::spawn(async move { drop(server.serve(listener, CancellationToken::new()).await) });
        Self { endpoint, behind, serving, _folder: folder }
    }

    /// What an API server with this TLS, which knows it alone, answers to a request.
    async fn asked_with(&self, tls: Tls) -> (World, Answer) {
        let replicas = ReplicasConfig { tls, ..ReplicasConfig::default() };
        let world = start_with(&ProxyConfig { replicas, ..ProxyConfig::default() }, Box::new(RoundRobin));
        world.register("secure", &self.endpoint, &["model=m"], false);
        let answer = raw::call(world.address, INFER, &[], raw::framed(&request("m", vec![0; 4]))).await;
        (world, answer)
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test]
async fn replicas_with_certificates_are_believed_by_their_authority_alone() {
    let made = self_signed();
    let secure = Secure::start(&made, false);
    for (ca, message) in
        [(Some(made.cert.pem()), "no%20replica%20is%20registered%20yet"), (None, "could%20not%20be%20reached")]
    {
        let (_, answer) = secure.asked_with(Tls::from(TlsPem { ca: ca.map(String::into_bytes), identity: None })).await;
        assert!(answer.message().contains(message), "{}", answer.message());
    }
    let tls = Tls::from(TlsPem { ca: Some(b"no certificate".to_vec()), identity: None });
    let unusable = ReplicasConfig { tls, ..ReplicasConfig::default() };
    let proxy = ProxyConfig { replicas: unusable, ..ProxyConfig::default() };
    let config = GatewayConfig { proxy, ..GatewayConfig::default() };
    assert!(Gateway::try_new(&config, Arc::clone(&secure.behind.fleet)).is_err());
}

#[tokio::test]
async fn replicas_that_ask_who_an_api_server_is_are_shown_its_certificate() {
    let (made, other) = (self_signed(), self_signed());
    let secure = Secure::start(&made, true);
    for (own, known) in [(Some(&made), true), (Some(&other), false), (None, false)] {
        let identity = own.map(|own| (own.cert.pem().into_bytes(), own.signing_key.serialize_pem().into_bytes()));
        let tls = Tls::from(TlsPem { ca: Some(made.cert.pem().into_bytes()), identity });
        let prober = GrpcProber::new(tls.clone());
        assert_eq!(watchdog(prober.probe(&secure.endpoint, Duration::from_secs(10))).await.is_ok(), known);
        let (world, answer) = secure.asked_with(tls).await;
        let answered = answer.message().contains("no%20replica%20is%20registered%20yet");
        assert_eq!(answered, known, "{}", answer.message());
        let up = world.fleet.with(|registry, _| registry.view("secure").unwrap().health == Health::Up);
        assert_eq!(up, known, "who does not take it is ejected");
    }
}

fn self_signed() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}
