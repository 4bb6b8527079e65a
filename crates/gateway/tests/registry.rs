//! The registry as replicas and clients see it over gRPC.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_gateway::GatewayConfig;
use anyserve_proto::v1::resolve_request::Query;
use anyserve_proto::v1::{LeaveRequest, ResolveRequest, Verdict};
use anyserve_server::{AdminToken, Drained};
use support::{beat, registration, start, start_with, watchdog};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

fn code(status: &Status) -> (Code, String) {
    let name = status.metadata().get("x-anyserve-code").map(|name| name.to_str().unwrap().to_owned());
    (status.code(), name.unwrap_or_default())
}

fn ask(selector: &str, avoid: &[&str]) -> ResolveRequest {
    let avoid = avoid.iter().map(|&id| id.to_owned()).collect();
    ResolveRequest { query: Some(Query::Selector(selector.into())), session: String::new(), avoid }
}

#[tokio::test]
async fn a_replica_registers_is_found_and_leaves() {
    let server = start();
    let mut client = server.registry().await;
    let nobody = client.resolve(ask("type=x", &[])).await.unwrap_err();
    assert_eq!(code(&nobody), (Code::Unavailable, "UNAVAILABLE".into()));
    let answer = client.register(registration("a", 1, 1, &["x", "y"])).await.unwrap().into_inner();
    assert_eq!((answer.verdict(), answer.heartbeat_ms, answer.lease_ms), (Verdict::Accepted, 1000, 5000));
    let found = client.resolve(ask("type=x", &[])).await.unwrap().into_inner();
    assert_eq!((found.replica_id.as_str(), found.endpoint.as_str(), found.epoch), ("a", "http://a:8000", 1));
    assert!((1..=5000).contains(&found.lease_ms) && found.capability.contains_key("type"));
    for (selector, avoid) in [("type=z", &[][..]), ("type=x", &["a"])] {
        let status = client.resolve(ask(selector, avoid)).await.unwrap_err();
        assert_eq!(code(&status), (Code::NotFound, "NO_CAPABILITY".into()), "{}", status.message());
    }
    let left = client.leave(LeaveRequest { id: "a".into(), epoch: 1 }).await.unwrap().into_inner();
    assert_eq!(left.verdict(), Verdict::Accepted);
    let stale = client.register(registration("a", 1, 9, &["x"])).await.unwrap().into_inner();
    assert_eq!((stale.verdict(), stale.latest), (Verdict::StaleEpoch, 1));
}

#[tokio::test]
async fn each_heartbeat_is_answered_and_one_that_breaks_the_rules_ends_the_call() {
    let server = start();
    let mut client = server.registry().await;
    let (beats, said) = mpsc::channel(8);
    let mut answers = client.heartbeat(ReceiverStream::new(said)).await.unwrap().into_inner();
    beats.send(beat("a", 1, 1, 1)).await.unwrap();
    let verdict = |answer: Option<anyserve_proto::v1::HeartbeatResponse>| answer.unwrap().verdict();
    assert_eq!(verdict(watchdog(answers.message()).await.unwrap()), Verdict::RegisterAgain);
    client.register(registration("a", 1, 2, &["x"])).await.unwrap();
    for (seq, expected) in [(3, Verdict::Accepted), (3, Verdict::Outdated), (4, Verdict::Accepted)] {
        beats.send(beat("a", seq, 2, 1)).await.unwrap();
        assert_eq!(verdict(watchdog(answers.message()).await.unwrap()), expected);
    }
    beats.send(beat("a", 5, 2, 7)).await.unwrap();
    let status = watchdog(answers.message()).await.unwrap_err();
    assert_eq!(code(&status), (Code::InvalidArgument, "INVALID_INPUT".into()));
    assert!(status.message().contains("7 loads for 1 capabilities"), "{}", status.message());
}

#[tokio::test]
async fn the_end_of_a_call_means_nothing_and_an_open_one_holds_up_nobody() {
    let server = start();
    let mut client = server.registry().await;
    client.register(registration("a", 1, 1, &["x"])).await.unwrap();
    let (beats, said) = mpsc::channel(8);
    let mut answers = client.heartbeat(ReceiverStream::new(said)).await.unwrap().into_inner();
    drop(beats);
    assert_eq!(watchdog(answers.message()).await.unwrap(), None);
    assert!(client.resolve(ask("type=x", &[])).await.is_ok());
    let (_beats, said) = mpsc::channel(8);
    let mut answers = client.heartbeat(ReceiverStream::new(said)).await.unwrap().into_inner();
    server.begin_to_leave();
    assert_eq!(watchdog(answers.message()).await.unwrap(), None);
    drop(client);
    assert_eq!(server.drained().await, Drained::Clean);
}

#[tokio::test]
async fn what_is_beyond_the_limits_is_refused_with_its_name() {
    let server = start();
    let mut client = server.registry().await;
    for (id, part) in [("", "1 or more visible"), ("a b", "visible"), (&"x".repeat(257), "257 bytes, at most 256")] {
        let mut said = registration("a", 1, 1, &[]);
        said.id = id.to_owned();
        let status = client.register(said).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(part), "{}", status.message());
    }
    assert!(client.register(registration(&"x".repeat(256), 1, 1, &["y"])).await.is_err(), "its endpoint is too long");
    for (count, fits) in [(255, true), (256, true), (257, false)] {
        let kinds: Vec<_> = (0..count).map(|number| format!("k{number}")).collect();
        let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
        assert_eq!(client.register(registration("many", 1, count, &kinds)).await.is_ok(), fits, "{count}");
    }
    let long = client.resolve(ask(&"x".repeat(70_000), &[])).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange, "{}", long.message());
    assert!(server.fleet.with(|registry, _| registry.len()) == 1);
}

#[tokio::test]
async fn a_wrong_token_is_refused_before_the_message_is_read_and_no_token_asks_for_one_elsewhere() {
    let cluster_token = Some(AdminToken::from("secret".to_owned()));
    let server = start_with(
        GatewayConfig { cluster_token, ..GatewayConfig::default() },
        anyserve_cluster::RegistryConfig::default(),
    );
    let mut client = server.registry().await;
    let with = |token: &str| {
        let mut request = Request::new(registration("a", 1, 1, &["x"]));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let status = client.register(with("other")).await.unwrap_err();
    assert_eq!(code(&status), (Code::Unauthenticated, "UNAUTHENTICATED".into()));
    assert!(client.register(with("secret")).await.is_ok());
    assert!(client.leave(LeaveRequest { id: "a".into(), epoch: 1 }).await.is_ok(), "from this machine");
}
