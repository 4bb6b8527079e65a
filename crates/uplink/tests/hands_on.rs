//! Where requests go that a replica does not serve, over real sockets.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod fake;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyserve_core::header::{DELEGATIONS, QUERY, REFUSED_BY};
use anyserve_core::{Code, Expects, Query, Reply, Request, Upgrades, Uplink};
use fake::{Fake, link, within};
use tokio_stream::StreamExt as _;

fn request(selector: &str, headers: &[(&str, &str)]) -> Request {
    Request {
        id: "7".into(),
        model: "any".into(),
        version: String::new(),
        query: Query::parse(selector).unwrap(),
        inputs: vec![],
        outputs: vec![],
        destinations: vec![],
        parameters: vec![],
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        deadline: Some(Instant::now() + Duration::from_mins(1)),
        expects: Expects::One,
    }
}

fn heavier() -> Upgrades {
    Upgrades::parse(["type=decode -> type=decode.heavy"]).unwrap()
}

fn nowhere() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn one(reply: Reply) -> String {
    if let Reply::One(response) = reply { response.id } else { panic!("{reply:?}") }
}

#[tokio::test]
async fn what_an_api_server_sent_goes_back_to_it_upgraded_and_is_not_forwarded() {
    let mut server = Fake::start();
    let link = link(&[server.address]);
    let error = within(link.delegate(request("type=decode", &[(DELEGATIONS, "0")]), &heavier())).await.unwrap_err();
    assert_eq!(
        (error.code, error.hand_back.as_deref()),
        (Code::NoCapability, Some(&Query::parse("type=decode.heavy").unwrap()))
    );
    let error = within(link.delegate(request("type=decode", &[(DELEGATIONS, "1")]), &heavier())).await.unwrap_err();
    assert_eq!((error.code, error.hand_back), (Code::NoCapability, None), "once at most");
    let error = within(link.delegate(request("type=decode", &[(DELEGATIONS, "2")]), &heavier())).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidInput);
    assert!(server.asked.try_recv().is_err());
}

#[tokio::test]
async fn what_a_client_sent_is_forwarded_with_everything_that_says_whose_it_is() {
    let mut server = Fake::start();
    let link = link(&[server.address]);
    let came = request("type=decode", &[("traceparent", "00-1"), ("x-capability-type", "decode")]);
    assert_eq!(one(within(link.delegate(came, &heavier())).await.unwrap()), "7");
    let asked = server.asked.recv().await.unwrap();
    let header = |name: &str| asked.headers.get(name).map(String::as_str);
    assert_eq!((header(DELEGATIONS), header(REFUSED_BY)), (Some("1"), Some("replica-1")));
    assert_eq!((header(QUERY), header("x-capability-type")), (Some("type=decode.heavy"), None));
    assert_eq!((header("traceparent"), asked.request.id.as_str()), (Some("00-1"), "7"));
    assert_eq!((asked.request.model_name.as_str(), header("grpc-timeout").is_some()), ("any", true));
}

#[tokio::test]
async fn a_stream_is_forwarded_as_one() {
    let server = Fake::start();
    let link = link(&[server.address]);
    let came = Request { expects: Expects::Many, ..request("type=decode", &[]) };
    let Reply::Many(parts) = within(link.delegate(came, &Upgrades::default())).await.unwrap() else { panic!("one") };
    let parts: Vec<_> = within(parts.collect()).await;
    assert!(parts.len() == 3 && parts.iter().all(Result::is_ok), "{parts:?}");
}

#[tokio::test]
async fn a_request_is_forwarded_once_whatever_comes_of_it() {
    let (mut one, mut two) = (Fake::start(), Fake::start());
    let link = link(&[nowhere(), one.address, two.address]);
    for code in [Code::Unavailable, Code::Draining, Code::NoCapability, Code::WorkerLost] {
        one.script.lock().failure = Some(code);
        let error = within(link.delegate(request("type=decode", &[]), &heavier())).await.unwrap_err();
        assert_eq!(error.code, code);
        one.asked.recv().await.unwrap();
    }
    assert!(one.asked.try_recv().is_err() && two.asked.try_recv().is_err());
}

#[tokio::test]
async fn where_no_api_server_can_be_reached_it_is_said_where_they_should_be() {
    let away = nowhere();
    let error = within(link(&[away]).delegate(request("type=decode", &[]), &heavier())).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&away.to_string()), "{error}");
}

#[tokio::test]
async fn a_call_goes_to_the_replica_that_an_api_server_names() {
    let (server, mut replica) = (Fake::start(), Fake::start());
    server.script.lock().named = Some(replica.address);
    let link = link(&[server.address]);
    assert_eq!(one(within(link.call(request("type=embed", &[]))).await.unwrap()), "7");
    let asked = replica.asked.recv().await.unwrap();
    assert_eq!(asked.headers.get(QUERY).unwrap(), "type=embed");
    assert!(!asked.headers.contains_key(DELEGATIONS), "it is the first hand that it is in");
    server.end().await;
    assert_eq!(one(within(link.call(request("type=embed", &[]))).await.unwrap()), "7", "the replica is known");
    replica.asked.recv().await.unwrap();
}

#[tokio::test]
async fn a_call_to_a_replica_that_cannot_be_reached_goes_through_the_api_server() {
    let mut server = Fake::start();
    server.script.lock().named = Some(nowhere());
    let link = link(&[server.address]);
    for expects in [Expects::One, Expects::Many] {
        let reply = within(link.call(Request { expects, ..request("type=embed", &[]) })).await.unwrap();
        assert_eq!(matches!(reply, Reply::One(_)), expects == Expects::One);
        assert_eq!(server.asked.recv().await.unwrap().headers.get(QUERY).unwrap(), "type=embed");
    }
}

#[tokio::test]
async fn a_call_that_nobody_serves_says_so() {
    let server = Fake::start();
    let error = within(link(&[server.address]).call(request("type=embed", &[]))).await.unwrap_err();
    assert_eq!(error.code, Code::NoCapability);
    let error = within(link(&[nowhere()]).call(request("type=embed", &[]))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
}
