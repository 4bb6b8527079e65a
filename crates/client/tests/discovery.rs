//! Discovery against scripted API servers and replicas, over real sockets.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod fake;

use std::net::SocketAddr;
use std::time::Duration;

use anyserve_client::{Call, Discovery, Endpoint, Tls};
use anyserve_core::{Code, Query};
use anyserve_proto::v1::resolve_request::Query as Wanted;
use fake::registry::Names;
use fake::{Fake, call, within};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

/// Longer than any test takes.
const LONG: u64 = 60_000;

fn discovery(servers: &[SocketAddr]) -> Discovery {
    let servers: Vec<Endpoint> = servers.iter().map(|address| address.to_string().parse().unwrap()).collect();
    Discovery::try_new(&servers, &Tls::default()).unwrap()
}

fn echo() -> Query {
    Query::equal_to([("type", "echo")])
}

/// An address that nothing listens on.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn name(names: &Names, replicas: &[(&str, &Fake)]) {
    for (id, replica) in replicas {
        names.add(id, &replica.address, LONG);
    }
}

#[tokio::test]
async fn a_replica_is_asked_for_once_and_used_for_its_lease() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, LONG);
    let discovery = discovery(&[names.address]);
    assert!(discovery.newest().is_none());
    for _ in 0..5 {
        within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    }
    let asked = names.asked();
    assert_eq!((asked.len(), replica.requests()), (1, 5));
    assert_eq!(asked[0].query, Some(Wanted::Selector("type=echo".into())));
    let found = discovery.newest().unwrap();
    assert_eq!((found.replica_id.as_str(), found.epoch), ("a", 1));
    assert_eq!(found.endpoint.to_string(), replica.address.to_string());
}

#[tokio::test]
async fn after_its_lease_a_replica_is_asked_for_again() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, 0);
    let discovery = discovery(&[names.address]);
    for _ in 0..3 {
        within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    }
    assert_eq!(names.asked().len(), 3);
}

#[tokio::test]
async fn a_replica_that_is_away_costs_nothing_but_time() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("gone", &nowhere().await, LONG);
    names.add("b", &replica.address, LONG);
    let discovery = discovery(&[names.address]);
    for _ in 0..3 {
        within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    }
    let avoided: Vec<_> = names.asked().into_iter().map(|asked| asked.avoid).collect();
    assert_eq!(avoided, [vec![], vec!["gone".to_owned()]]);
    assert_eq!(discovery.newest().unwrap().replica_id, "b");
}

#[tokio::test]
async fn a_replica_that_refuses_is_followed_by_another_one_once() {
    for code in [Code::Draining, Code::Starting, Code::NoCapability] {
        let (names, one, two, three) =
            (Names::start().await, Fake::start().await, Fake::start().await, Fake::start().await);
        name(&names, &[("a", &one), ("b", &two), ("c", &three)]);
        let discovery = discovery(&[names.address]);
        one.refuse(code);
        within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
        assert_eq!((one.requests(), two.requests()), (1, 1), "{code}");
        let answers: Vec<_> = within(discovery.stream(echo(), call("marked")).collect()).await;
        assert_eq!((answers.len(), two.requests()), (3, 2), "a stream as well");
        two.refuse(code);
        three.refuse(code);
        let error = within(discovery.infer(&echo(), &call("echo"))).await.unwrap_err();
        assert_eq!((error.code, two.requests(), three.requests()), (code, 3, 1), "one more, and not two");
        assert_eq!(one.requests(), 1, "it refused a moment ago");
    }
}

#[tokio::test]
async fn the_only_replica_is_tried_again_although_it_refused_a_moment_ago() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, LONG);
    let discovery = discovery(&[names.address]);
    replica.refuse(Code::Starting);
    for count in 1..4 {
        let error = within(discovery.infer(&echo(), &call("echo"))).await.unwrap_err();
        assert_eq!((error.code, replica.requests()), (Code::Starting, count), "what the replica said tells more");
    }
}

#[tokio::test]
async fn any_other_failure_is_the_requests_end() {
    let (names, one, two) = (Names::start().await, Fake::start().await, Fake::start().await);
    name(&names, &[("a", &one), ("b", &two)]);
    let discovery = discovery(&[names.address]);
    for code in [Code::InvalidInput, Code::Overloaded, Code::WorkerLost, Code::Unavailable, Code::Internal] {
        one.refuse(code);
        assert_eq!(within(discovery.infer(&echo(), &call("echo"))).await.unwrap_err().code, code);
    }
    assert_eq!(two.requests(), 0);
}

#[tokio::test]
async fn what_broke_in_the_middle_is_not_sent_again() {
    let (names, mut one, two) = (Names::start().await, Fake::start().await, Fake::start().await);
    name(&names, &[("a", &one), ("b", &two)]);
    let discovery = discovery(&[names.address]);
    let other = discovery.clone();
    let waiting = tokio::spawn(async move { other.infer(&echo(), &call("wait")).await });
    within(one.started.recv()).await.unwrap();
    one.end().await;
    let error = within(waiting).await.unwrap().unwrap_err();
    assert_eq!((error.code, two.requests()), (Code::Unavailable, 0));
    within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    assert_eq!(two.requests(), 1, "the next one goes elsewhere");
}

#[tokio::test]
async fn a_replica_that_answers_no_ping_ends_a_call_without_a_deadline_and_is_left_alone() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    // Its connections are made, and nobody looks at them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    names.add("a", &silent.local_addr().unwrap(), LONG);
    names.add("b", &replica.address, LONG);
    let discovery = discovery(&[names.address]);
    let error = within(discovery.infer(&echo(), &call("echo"))).await.unwrap_err();
    assert_eq!((error.code, replica.requests()), (Code::Unavailable, 0), "it may have begun it: {error}");
    within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    assert_eq!(replica.requests(), 1);
}

#[tokio::test]
async fn an_api_server_that_dies_and_comes_back_empty_changes_nothing_for_who_has_a_replica() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, 0);
    let discovery = discovery(&[names.address]);
    let send = || async { within(discovery.infer(&echo(), &call("echo"))).await };
    send().await.unwrap();
    let address = names.address;
    names.end().await;
    for _ in 0..20 {
        send().await.unwrap();
    }
    let empty = Names::start_at(address).await;
    while empty.asked().is_empty() {
        send().await.unwrap();
    }
    send().await.unwrap();
    assert_eq!(discovery.newest().unwrap().replica_id, "a");
}

#[tokio::test]
async fn an_api_server_that_hangs_does_not_make_requests_late() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, 0);
    let discovery = discovery(&[names.address]);
    within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    names.hang();
    let call = Call { timeout: Some(Duration::from_secs(10)), ..call("echo") };
    for _ in 0..20 {
        within(discovery.infer(&echo(), &call)).await.unwrap();
    }
    assert!(names.asked().len() < 20, "it is left alone for a while");
}

#[tokio::test]
async fn of_several_api_servers_one_is_enough() {
    let (names, empty, replica) = (Names::start().await, Names::start().await, Fake::start().await);
    names.add("a", &replica.address, LONG);
    let discovery = discovery(&[nowhere().await, empty.address, names.address]);
    within(discovery.infer(&echo(), &call("echo"))).await.unwrap();
    assert_eq!((empty.asked().len(), names.asked().len()), (1, 1), "one that knows nobody may know less than another");
}

#[tokio::test]
async fn where_nobody_can_be_found_it_is_said_why() {
    let address = nowhere().await;
    let away = discovery(&[address]);
    let error = within(away.infer(&echo(), &call("echo"))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&address.to_string()), "{error}");
    let names = Names::start().await;
    let error = within(discovery(&[names.address]).current(&echo())).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::NoCapability, "nobody serves it"));
    let replica = Fake::start().await;
    let error = within(discovery(&[replica.address]).current(&echo())).await.unwrap_err();
    assert!(error.message.contains("is no API server"), "{error}");
    let unusable = Discovery::try_new(&[], &Tls::default()).unwrap_err();
    assert_eq!(unusable.code, Code::InvalidInput);
}

#[tokio::test]
async fn a_timeout_holds_for_finding_a_replica_too() {
    let names = Names::start().await;
    names.hang();
    let call = Call { timeout: Some(Duration::from_millis(50)), ..call("echo") };
    let error = within(discovery(&[names.address]).infer(&echo(), &call)).await.unwrap_err();
    assert_eq!(error.code, Code::Deadline);
}

#[tokio::test]
async fn every_session_and_every_query_has_a_replica_of_its_own() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, LONG);
    let discovery = discovery(&[names.address]);
    for session in ["s", "t", "s"] {
        let call = Call { headers: vec![("X-Anyserve-Session".into(), session.into())], ..call("echo") };
        within(discovery.infer(&echo(), &call)).await.unwrap();
    }
    within(discovery.infer(&Query::model("echo"), &call("echo"))).await.unwrap();
    let asked: Vec<_> = names.asked().into_iter().map(|asked| (asked.session, asked.query.unwrap())).collect();
    let typed = || Wanted::Selector("type=echo".into());
    let expected =
        [("s".to_owned(), typed()), ("t".to_owned(), typed()), (String::new(), Wanted::Model("echo".into()))];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn many_that_look_for_a_replica_at_once_ask_once() {
    let (names, replica) = (Names::start().await, Fake::start().await);
    names.add("a", &replica.address, LONG);
    let discovery = discovery(&[names.address]);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let discovery = discovery.clone();
        calls.spawn(async move { discovery.infer(&echo(), &call("echo")).await });
    }
    for answer in within(calls.join_all()).await {
        answer.unwrap();
    }
    assert_eq!((names.asked().len(), replica.requests()), (1, 50));
}

/// A replica that ends every request with this reset, or its connection with a GOAWAY that has not seen it.
async fn refusing(reset: Option<h2::Reason>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                if reset.is_none() {
                    connection.graceful_shutdown();
                }
                while let Some(Ok((_, mut answer))) = connection.accept().await {
                    answer.send_reset(reset.unwrap_or(h2::Reason::REFUSED_STREAM));
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn what_a_server_says_it_has_not_looked_at_is_sent_elsewhere_and_nothing_else() {
    let cases = [(None, true), (Some(h2::Reason::REFUSED_STREAM), true), (Some(h2::Reason::INTERNAL_ERROR), false)];
    for (reset, elsewhere) in cases {
        let (names, replica) = (Names::start().await, Fake::start().await);
        names.add("a", &refusing(reset).await, LONG);
        names.add("b", &replica.address, LONG);
        let answer = within(discovery(&[names.address]).infer(&echo(), &call("echo"))).await;
        assert_eq!((answer.is_ok(), replica.requests() > 0), (elsewhere, elsewhere), "{reset:?}: {answer:?}");
    }
}
