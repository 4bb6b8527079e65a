//! What the parts of a fleet say to a replica, from outside.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use anyserve_core::Query;
use anyserve_core::header::{HAND_BACK, QUERY, to_header};
use anyserve_proto::inference::infer_parameter::ParameterChoice;
use anyserve_proto::v1::ServesRequest;
use anyserve_proto::v1::replica_client::ReplicaClient;
use anyserve_proto::v1::serves_request::Query as Wanted;
use support::{Running, request, start};
use tonic::{Code, Request};

async fn serves(server: &Running, query: Wanted, version: &str) -> bool {
    let mut client = ReplicaClient::new(server.channel().await);
    let asked = ServesRequest { query: Some(query), version: version.into() };
    client.serves(asked).await.unwrap().into_inner().serves
}

#[tokio::test]
async fn a_replica_says_what_it_serves_until_it_leaves() {
    let server = start().await;
    assert!(serves(&server, Wanted::Model("echo".into()), "").await);
    assert!(serves(&server, Wanted::Selector("model=echo".into()), "1").await);
    assert!(!serves(&server, Wanted::Model("echo".into()), "2").await);
    assert!(!serves(&server, Wanted::Selector("type=other".into()), "").await);
    let mut client = ReplicaClient::new(server.channel().await);
    for query in [None, Some(Wanted::Selector("type=".into()))] {
        let error = client.serves(ServesRequest { query, version: String::new() }).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    server.fake.set_draining();
    assert!(!serves(&server, Wanted::Model("echo".into()), "").await);
}

#[tokio::test]
async fn a_request_goes_back_with_its_query_beside_the_code() {
    let server = start().await;
    let error = server.client().await.model_infer(request("elsewhere", vec![0; 4])).await.unwrap_err();
    let header = |name| error.metadata().get(name).unwrap().to_str().unwrap();
    assert_eq!((header("x-anyserve-code"), header(HAND_BACK)), ("NO_CAPABILITY", "type=elsewhere.heavy"));
    let mut answers = {
        let requests = tokio_stream::iter([request("elsewhere", vec![0; 4])]);
        server.client().await.model_stream_infer(requests).await.unwrap().into_inner()
    };
    let told = answers.message().await.unwrap().unwrap().infer_response.unwrap().parameters[HAND_BACK].clone();
    assert_eq!(told.parameter_choice, Some(ParameterChoice::StringParam("type=elsewhere.heavy".into())));
}

#[tokio::test]
async fn what_a_query_has_become_wins_over_everything_else() {
    let server = start().await;
    let mut asked = Request::new(request("echo", vec![0; 4]));
    asked.metadata_mut().insert("x-capability-type", "echo".parse().unwrap());
    asked.metadata_mut().insert(QUERY, to_header("type=\"a b\",size>=7").parse().unwrap());
    server.client().await.model_infer(asked).await.unwrap();
    assert_eq!(server.fake.seen().query, Query::parse("type=\"a b\",size>=7").unwrap());
    let mut broken = Request::new(request("echo", vec![0; 4]));
    broken.metadata_mut().insert(QUERY, "type=".parse().unwrap());
    let error = server.client().await.model_infer(broken).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains(QUERY), "{error}");
}
