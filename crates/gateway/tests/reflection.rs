//! What an API server's port tells of its services, and of those that it has not.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod scripted;

use anyserve_proto::v1::HeartbeatRequest;
use scripted::{World, raw, start, watchdog};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const SERVICES: [&str; 5] = [
    "anyserve.v1.Registry",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
];

async fn channel(world: &World) -> Channel {
    Endpoint::from_shared(format!("http://{}", world.address)).unwrap().connect().await.unwrap()
}

/// A conversation in one version of reflection: the services, and whether each can be described.
macro_rules! told {
    ($world:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

        let (send, receive) = tokio::sync::mpsc::channel(1);
        let ask = async |request| {
            let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            send.send(request).await.unwrap();
        };
        let mut client = ServerReflectionClient::new(channel($world).await);
        ask(MessageRequest::ListServices(String::new())).await;
        let mut answers = client.server_reflection_info(ReceiverStream::new(receive)).await.unwrap().into_inner();
        let answer = watchdog(answers.message()).await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
        let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        names.sort_unstable();
        for name in &names {
            ask(MessageRequest::FileContainingSymbol(name.clone())).await;
            let answer = watchdog(answers.message()).await.unwrap().unwrap().message_response.unwrap();
            assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{name}: {answer:?}");
        }
        (names, answers, send)
    }};
}

#[tokio::test]
async fn reflection_tells_every_service_of_the_port_in_both_versions() {
    let world = start();
    assert_eq!(told!(&world, v1).0, SERVICES);
    assert_eq!(told!(&world, v1alpha).0, SERVICES);
}

#[tokio::test]
async fn an_open_conversation_does_not_hold_up_the_drain() {
    let world = start();
    let (_, mut answers, _open) = told!(&world, v1);
    world.begin_to_leave();
    assert!(watchdog(answers.message()).await.unwrap().is_none());
    assert_eq!(world.drained().await, anyserve_server::Drained::Clean);
}

#[tokio::test]
async fn a_method_that_there_is_not_is_named_with_the_services_that_there_are() {
    let world = start();
    for method in [
        "some.Service/Method",
        "inference.GRPCInferenceService/Nothing",
        "anyserve.v1.Registry/Nothing",
        "anyserve.v1.Replica/Serves",
        "grpc.health.v1.Health/Nothing",
        "grpc.reflection.v1.ServerReflection/Nothing",
    ] {
        let answer = raw::call(world.address, method, &[], raw::framed(&HeartbeatRequest::default())).await;
        assert_eq!((answer.status(), answer.code()), ("12", Some("UNSUPPORTED")), "{method}");
        let message = answer.message().replace("%20", " ");
        assert!(message.contains(&format!("unknown method /{method}")), "{message}");
        assert!(SERVICES.iter().all(|service| message.contains(service)), "{message}");
    }
}
