//! Everything of KServe but inference, and the health service, through an API server.

#![allow(clippy::unwrap_used)]

mod scripted;

use anyserve_proto::inference::{
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest,
    RepositoryIndexRequest, RepositoryModelLoadRequest, ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
};
use scripted::replica::{data, hand_back};
use scripted::{Call, Reply, raw, start};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

async fn answer(call: Call) -> Reply {
    if &call.body[7..] == b"gone" {
        return hand_back("");
    }
    let message = match call.path.rsplit('/').next().unwrap() {
        "ModelReady" => raw::framed(&ModelReadyResponse { ready: true }),
        "ModelMetadata" => raw::framed(&ModelMetadataResponse { name: "m".into(), ..Default::default() }),
        _ => return hand_back(""),
    };
    data([message.into()], &[("grpc-status", "0")])
}

#[tokio::test]
async fn what_is_about_one_model_is_asked_of_a_replica_that_serves_it() {
    let world = start();
    let replica = world.replica("a", &["model=m"], answer).await;
    let mut client = world.client().await;
    let asked = ModelMetadataRequest { name: "m".into(), version: "2".into() };
    let told = client.model_metadata(asked.clone()).await.unwrap();
    assert_eq!(told.get_ref().name, "m");
    assert_eq!(replica.seen()[0].2, raw::framed(&asked));
    assert_eq!(client.model_metadata(ModelMetadataRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
    let all = client.model_statistics(ModelStatisticsRequest::default()).await.unwrap_err();
    assert!(all.message().contains("GET /registry"), "{all}");
}

#[tokio::test]
async fn a_model_is_ready_where_somebody_says_so_and_otherwise_not() {
    let world = start();
    let mut client = world.client().await;
    let mut ready = async |name: &str| {
        let asked = ModelReadyRequest { name: name.into(), version: String::new() };
        client.model_ready(asked).await.unwrap().into_inner().ready
    };
    assert!(!ready("m").await);
    let _replica = world.replica("a", &["model=m"], answer).await;
    assert!(ready("m").await);
    let _other = world.replica("b", &["model=gone"], |_| async { hand_back("") }).await;
    assert!(!ready("gone").await);
}

#[tokio::test]
async fn the_fleet_is_ready_once_somebody_is_there_and_lists_its_models() {
    let world = start();
    let mut client = world.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let _a = world.replica("a", &["model=m,version=2", "type=chat"], answer).await;
    let _b = world.replica("b", &["model=m,version=2,size=7"], answer).await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert_eq!(client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner().name, "anyserve");
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    let rows: Vec<_> = index.iter().map(|row| (&*row.name, &*row.version, &*row.state)).collect();
    assert_eq!(rows, [("chat", "1", "READY"), ("m", "2", "READY")]);
}

#[tokio::test]
async fn what_is_of_one_replica_is_told_to_be_so() {
    let world = start();
    let error = world.client().await.repository_model_load(RepositoryModelLoadRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("GET /registry"), "{error}");
    assert_eq!(error.metadata().get("x-anyserve-code").unwrap(), "UNSUPPORTED");
}

#[tokio::test]
async fn health_is_of_the_fleet_and_of_every_model() {
    let world = start();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut check = async |service: &str| {
        let asked = HealthCheckRequest { service: service.into() };
        client.check(asked).await.map(|told| told.into_inner().status()).map_err(|status| status.code())
    };
    assert_eq!(check("").await, Ok(ServingStatus::NotServing));
    let _replica = world.replica("a", &["type=chat"], answer).await;
    assert_eq!(check("").await, Ok(ServingStatus::Serving));
    assert_eq!(check("chat").await, Ok(ServingStatus::Serving));
    assert_eq!(check("other").await, Err(Code::NotFound));
}
