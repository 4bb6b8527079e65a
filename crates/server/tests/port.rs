//! The one port: HTTP paths, other gRPC services, garbage, TLS, drain.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use anyserve_core::CapabilityLoad;
use anyserve_proto::inference::*;
use anyserve_server::{Drained, Listener, Server, ServerConfig, TlsError, TlsFiles};
use serde_json::json;
use support::{Client, Fake, raw, request, start, start_with, until, watchdog};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::test]
async fn health_is_told_over_http() {
    let server = start().await;
    assert!(server.http("GET /health/live", &[]).await.ends_with(r#"{"live":true}"#));
    assert!(server.http("GET /health/ready", &[]).await.starts_with("HTTP/1.1 200"));
    server.fake.set_ready("echo", false);
    let (status, answer) = server.json("GET /health/ready", &[]).await;
    assert_eq!((status, &answer["ready"], &answer["draining"]), (503, &json!(false), &json!(false)));
    let expected =
        json!({ "capability": "model=echo", "ready": false, "saturated": false, "queued": 0, "max_queue": 0 });
    assert_eq!(answer["capabilities"][0], expected);
    assert!(server.http("GET /health/live", &[]).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_full_queue_is_told_and_makes_nothing_unready() {
    let server = start().await;
    let load =
        CapabilityLoad { model: "echo".into(), queued: 8, max_queue: 8, saturated: true, ..CapabilityLoad::default() };
    server.fake.set_loads(vec![load]);
    let (status, answer) = server.json("GET /health/ready", &[]).await;
    assert_eq!((status, &answer["ready"]), (200, &json!(true)));
    let expected = json!({ "capability": "model=echo", "ready": true, "saturated": true, "queued": 8, "max_queue": 8 });
    assert_eq!(answer["capabilities"][0], expected);
    assert_eq!(server.json("GET /health/live", &[]).await, (200, json!({ "live": true })));
    let asked = ModelReadyRequest { name: "echo".into(), version: String::new() };
    assert!(server.client().await.model_ready(asked).await.unwrap().into_inner().ready);
    let metrics = server.http("GET /metrics", &[]).await;
    assert!(metrics.contains("anyserve_capability_saturated{model=\"echo\"} 1"), "{metrics}");
    assert!(metrics.contains("anyserve_draining 0"));
}

#[tokio::test]
async fn metrics_show_requests_and_workers() {
    let server = start().await;
    server.client().await.model_infer(request("echo", vec![0; 4])).await.unwrap();
    let _ = server.client().await.model_infer(request("nobody", vec![0; 4])).await;
    let answer = server.http("GET /metrics", &[]).await;
    assert!(answer.contains("content-type: application/openmetrics-text"));
    assert!(answer.contains(r#"anyserve_requests_total{model="echo",code="OK"} 1"#), "{answer}");
    assert!(answer.contains(r#"anyserve_requests_total{model="unknown",code="NO_CAPABILITY"} 1"#));
    assert!(answer.contains(r#"anyserve_workers{group="main",state="ready"} 2"#));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_errors_in_json() {
    let server = start().await;
    let answer = server.http("GET /nowhere", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with(r#"{"error":"unknown path /nowhere"}"#));
    let answer = server.http("GET /v2/health/ready", &[]).await;
    assert!(answer.contains("unknown path /v2/health/ready: KServe v2 is spoken over gRPC on this port"), "{answer}");
    let answer = server.http("DELETE /metrics", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET"), "{answer}");
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_and_named_with_the_services_that_there_are() {
    let server = start().await;
    for method in ["inference.GRPCInferenceService/Nothing", "other.Service/Call", "grpc.health.v1.Health/Nothing"] {
        let answer = raw::call(server.address, method, &[], vec![0; 5]).await;
        assert_eq!(answer.status(), "12", "{method}");
        let message = answer.headers["grpc-message"].to_str().unwrap().replace("%20", " ");
        let expected = format!("unknown method /{method}; the services here are inference.GRPCInferenceService, ");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[tokio::test]
async fn garbage_messages_are_errors_and_the_server_lives() {
    let server = start().await;
    let method = "inference.GRPCInferenceService/ModelInfer";
    let garbage =
        [vec![], vec![0], vec![9; 5], vec![0, 0xff, 0xff, 0xff, 0xff], vec![0, 0, 0, 0, 1, 0xff], vec![7; 999]];
    for body in garbage {
        assert_eq!(raw::call(server.address, method, &[], body.clone()).await.status(), "3", "{body:?}");
    }
    let answer = raw::call(server.address, method, &[("grpc-encoding", "gzip")], vec![1, 0, 0, 0, 1, 0xff]).await;
    assert_eq!(answer.status(), "3");
    let answer = raw::call(server.address, method, &[("grpc-encoding", "br")], vec![0; 5]).await;
    assert_eq!(answer.status(), "12");
    assert!(server.client().await.model_infer(request("echo", vec![0; 4])).await.is_ok());
}

#[tokio::test]
async fn garbage_on_the_port_ends_nothing_but_its_connection() {
    let server = start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for garbage in [vec![0; 1000], vec![0xff; 100_000], b"GET\r\n\r\n".to_vec(), [&preface[..], &[0xff; 500]].concat()]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may close while this is written.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let _ = watchdog(stream.read_to_end(&mut Vec::new())).await;
    }
    assert!(server.client().await.model_infer(request("echo", vec![0; 4])).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_too_little_is_closed() {
    let config = ServerConfig { handshake_timeout: Duration::from_millis(10), ..ServerConfig::default() };
    let server = start_with(config).await;
    for start in ["", "P", "PRI * HTTP/2.0", "GET / HTTP/1.1\r\nhost: a-rather-long-name\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let _ = watchdog(stream.read_to_end(&mut Vec::new())).await;
    }
}

#[tokio::test]
async fn grpc_health_follows_readiness_and_ends_with_the_server() {
    let server = start().await;
    let mut health = HealthClient::new(server.channel().await);
    let named = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "inference.GRPCInferenceService", "echo"] {
        let answer = health.check(named(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(health.check(named("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(named("echo")).await.unwrap().into_inner();
    let mut told = async || watchdog(watch.message()).await.unwrap().map(|answer| answer.status());
    assert_eq!(told().await, Some(ServingStatus::Serving));
    server.fake.set_ready("echo", false);
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    server.fake.set_ready("echo", true);
    assert_eq!(told().await, Some(ServingStatus::Serving));
    server.begin_to_leave();
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    assert_eq!(told().await, None);
    assert_eq!(server.drained().await, Drained::Clean);
}

#[tokio::test]
async fn a_watcher_is_told_by_the_catalog_and_costs_nothing_once_it_is_gone() {
    let server = start().await;
    let mut health = HealthClient::new(server.channel().await);
    let named = HealthCheckRequest { service: "echo".into() };
    let mut watch = health.watch(named).await.unwrap().into_inner();
    let told = watchdog(watch.message()).await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::Serving);
    until(|| server.fake.watchers() == 1).await;
    // Another model's change is none of this one's, and the change after it is not missed.
    server.fake.set_ready("gate", false);
    server.fake.set_ready("echo", false);
    let told = watchdog(watch.message()).await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    drop(watch);
    until(|| server.fake.watchers() == 0).await;
}

#[tokio::test]
async fn reflection_lists_the_services_and_does_not_hold_up_the_drain() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = start().await;
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let request = MessageRequest::ListServices(String::new());
    send.send(ServerReflectionRequest { host: String::new(), message_request: Some(request) }).await.unwrap();
    let mut client = ServerReflectionClient::new(server.channel().await);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let answer = watchdog(answers.message()).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health", "anyserve.v1.Replica"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"anyserve.v1.Registry"), "that is an API server's: {names:?}");
    server.begin_to_leave();
    assert!(watchdog(answers.message()).await.unwrap().is_none());
    assert_eq!(server.drained().await, Drained::Clean);
}

#[tokio::test]
async fn what_there_is_is_told_as_triton_tells_it() {
    let server = start().await;
    let mut client = server.client().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let about = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(about.name, "anyserve");
    assert!(about.extensions.contains(&"statistics".to_owned()));

    let asked = ModelMetadataRequest { name: "declared".into(), version: "1".into() };
    let about = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!((&*about.name, &*about.versions), ("declared", &["1".to_owned()][..]));
    assert_eq!((&*about.inputs[0].name, &*about.inputs[0].datatype), ("x", "FP32"));
    assert_eq!((&*about.outputs[0].name, &*about.outputs[0].shape), ("y", &[-1, 4][..]));

    let asked = ModelConfigRequest { name: "repeat".into(), version: String::new() };
    let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
    assert!(config.model_transaction_policy.unwrap().decoupled);

    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert!(index.models.len() > 5 && index.models.iter().all(|model| model.state == "READY"));

    let asked = ModelStatisticsRequest { name: "repeat".into(), version: String::new() };
    let stats = client.model_statistics(asked).await.unwrap().into_inner().model_stats;
    assert_eq!((stats.len(), stats[0].inference_count), (1, 1));
}

#[tokio::test]
async fn unknown_models_and_versions_are_not_found_and_never_ready() {
    let server = start().await;
    let mut client = server.client().await;
    for (name, version) in [("nobody", ""), ("echo", "9"), ("../etc", "")] {
        let (name, version) = (name.to_owned(), version.to_owned());
        let asked = ModelReadyRequest { name: name.clone(), version: version.clone() };
        assert!(!client.model_ready(asked).await.unwrap().into_inner().ready);
        let error = client.model_metadata(ModelMetadataRequest { name, version }).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.message().starts_with("Request for unknown model: '"), "{error}");
    }
    server.fake.set_ready("echo", false);
    let asked = ModelReadyRequest { name: "echo".into(), version: String::new() };
    assert!(!client.model_ready(asked).await.unwrap().into_inner().ready);
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let server = start().await;
    let mut client = server.client().await;
    let error = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    let status = client.cuda_shared_memory_status(CudaSharedMemoryStatusRequest::default()).await.unwrap();
    assert!(status.into_inner().regions.is_empty());
    assert!(client.cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest::default()).await.is_ok());
    let error = client.cuda_shared_memory_register(CudaSharedMemoryRegisterRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn requests_in_flight_are_finished_and_new_connections_refused() {
    let server = start().await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", vec![0; 4])).await });
    let fake = server.fake.clone();
    until(|| fake.has_seen()).await;
    server.begin_to_leave();
    let address = server.address;
    watchdog(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!call.is_finished());
    fake.open_gate();
    assert!(watchdog(call).await.unwrap().is_ok());
    assert_eq!(server.drained().await, Drained::Clean);
}

#[tokio::test]
async fn what_is_in_flight_after_the_grace_period_is_aborted_and_counted() {
    let server = start_with(ServerConfig { grace: Duration::from_millis(10), ..ServerConfig::default() }).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        calls.spawn(async move { client.model_infer(request("hang", vec![0; 4])).await });
    }
    let fake = server.fake.clone();
    until(|| fake.held() == 3).await;
    assert_eq!(server.drained().await, Drained::Aborted(3));
    assert_eq!(fake.held(), 0);
    assert!(watchdog(calls.join_all()).await.into_iter().all(|answer| answer.is_err()));
}

#[tokio::test]
async fn what_can_be_answered_at_the_end_of_the_grace_is_answered_with_an_error() {
    let server = start_with(ServerConfig { grace: Duration::from_millis(10), ..ServerConfig::default() }).await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gate", vec![0; 4])).await });
    until(|| server.fake.has_seen()).await;
    assert_eq!(server.drained().await, Drained::Aborted(1));
    let status = watchdog(call).await.unwrap().unwrap_err();
    assert_eq!(
        (status.message(), status.metadata().get("x-anyserve-code").unwrap().as_bytes()),
        ("it stopped", &b"WORKER_LOST"[..])
    );
}

/// An authority, and a certificate of it for localhost, as PEM files.
fn certificates(folder: &Path) -> (String, TlsFiles) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    };
    let client_ca = Some(file("ca.pem", &authority_pem));
    let (certificate, key) = (file("cert.pem", &certificate.pem()), file("key.pem", &key.serialize_pem()));
    (authority_pem, TlsFiles { certificate, key, client_ca })
}

async fn tls_client(server: &support::Running, authority: &str, identity: Option<Identity>) -> Option<Client> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)).domain_name("localhost");
    let tls = identity.map_or(tls.clone(), |identity| tls.identity(identity));
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap().tls_config(tls).unwrap();
    Some(Client::new(endpoint.connect().await.ok()?))
}

#[tokio::test]
async fn tls_and_mtls_let_the_right_clients_in() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, files) = certificates(folder.path());
    let read = |path: &Path| std::fs::read(path).unwrap();
    let identity = Identity::from_pem(read(&files.certificate), read(&files.key));

    let tls = Some(TlsFiles { client_ca: None, ..files.clone() });
    let server = start_with(ServerConfig { tls, ..ServerConfig::default() }).await;
    let mut client = tls_client(&server, &authority, None).await.unwrap();
    assert!(client.model_infer(request("echo", vec![0; 100_000])).await.is_ok());
    assert!(server.client().await.model_infer(request("echo", vec![0; 4])).await.is_err());

    let server = start_with(ServerConfig { tls: Some(files), ..ServerConfig::default() }).await;
    let mut client = tls_client(&server, &authority, Some(identity)).await.unwrap();
    assert!(client.model_infer(request("echo", vec![0; 4])).await.is_ok());
    if let Some(mut stranger) = tls_client(&server, &authority, None).await {
        assert!(stranger.server_live(Request::new(ServerLiveRequest {})).await.is_err());
    }
}

#[tokio::test]
async fn files_that_make_no_tls_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_, files) = certificates(folder.path());
    let missing = TlsFiles { key: folder.path().join("nowhere.pem"), ..files.clone() };
    let swapped = TlsFiles { certificate: files.key.clone(), ..files };
    for (files, name) in [(missing, "nowhere.pem"), (swapped, "key.pem")] {
        let config = ServerConfig { tls: Some(files), ..ServerConfig::default() };
        let error = Server::try_new(&config, Fake::new(None)).err().expect("an error");
        assert!(matches!(error, TlsError::File { .. }) && error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = start_with(ServerConfig { max_connections: 1, ..ServerConfig::default() }).await;
    let first = server.client().await;
    let mut second = server.client().await;
    let call = tokio::spawn(async move { second.model_infer(request("echo", vec![0; 4])).await });
    let mut working = first.clone();
    assert!(working.model_infer(request("echo", vec![0; 4])).await.is_ok());
    assert!(!call.is_finished());
    drop((first, working));
    assert!(watchdog(call).await.unwrap().is_ok());
}

#[test]
fn a_listener_takes_connections_before_anything_is_served() {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    assert!(std::net::TcpStream::connect(listener.local_addr()).is_ok());
}
