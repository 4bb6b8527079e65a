//! The client against a server of the real protocol, over real sockets.

mod fake;

use std::time::Duration;

use anyserve_client::{Call, Client, Tls, TlsPem};
use anyserve_core::{Capability, Code, Parameter, Response, TensorSpec, Value};
use fake::{Fake, call, client, collect, tensor, within};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tonic::transport::{Identity, ServerTlsConfig};

const SHORT: Option<Duration> = Some(Duration::from_millis(50));

fn echoed(call: &Call) -> Response {
    Response {
        id: call.id.clone(),
        model: call.model.clone(),
        version: "1".into(),
        outputs: call.inputs.clone(),
        parameters: call.parameters.clone(),
    }
}

#[tokio::test]
async fn what_is_sent_comes_back_from_an_echo() {
    let server = Fake::start().await;
    let parameters = vec![("a".to_owned(), Parameter::Uint(u64::MAX)), ("b".to_owned(), Parameter::Text("é".into()))];
    let call = Call { parameters, ..call("echo") };
    assert_eq!(within(server.client().infer(&call)).await, Ok(echoed(&call)));
}

#[tokio::test]
async fn a_message_beyond_four_mebibytes_is_nothing_special() {
    static LARGE: [u8; 9 << 20] = [7; 9 << 20];
    let server = Fake::start().await;
    let call = Call { inputs: vec![tensor(&LARGE)], ..call("echo") };
    assert_eq!(within(server.client().infer(&call)).await, Ok(echoed(&call)));
}

#[tokio::test]
async fn a_capability_reaches_the_server_beside_the_model_name() {
    let server = Fake::start().await;
    let capability = Capability::try_new([("type".to_owned(), Value::Text("chat".into()))]).unwrap();
    let call = Call { capability: Some(capability), ..call("any") };
    let answer = within(server.client().infer(&call)).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.version.as_str()), ("any", "chat"));
}

#[tokio::test]
async fn every_code_of_the_set_arrives_by_its_name() {
    let server = Fake::start().await;
    let client = server.client();
    for code in Code::all() {
        let call = Call { id: code.name().into(), ..call("fail") };
        let error = within(client.infer(&call)).await.unwrap_err();
        assert_eq!((error.code, error.message), (code, format!("it is {code}")));
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_and_is_cancelled_on_the_server() {
    let mut server = Fake::start().await;
    let call = Call { timeout: SHORT, ..call("wait") };
    let error = within(server.client().infer(&call)).await.unwrap_err();
    assert_eq!(error.code, Code::Deadline);
    assert!(error.message.contains("within the timeout of 0.05 s"), "{error}");
    // On a machine that is busy enough, the call had not arrived by then.
    if server.started.try_recv().is_ok() {
        server.saw_a_cancel().await;
    }
}

#[tokio::test]
async fn dropping_a_call_cancels_it_on_the_server() {
    let mut server = Fake::start().await;
    let client = server.client();
    let waiting = tokio::spawn(async move { client.infer(&call("wait")).await });
    within(server.started.recv()).await.unwrap();
    waiting.abort();
    server.saw_a_cancel().await;
}

#[tokio::test]
async fn an_answer_that_breaks_the_protocol_is_an_error_and_the_connection_lives_on() {
    let server = Fake::start().await;
    let client = server.client();
    let error = within(client.infer(&call("nonsense"))).await.unwrap_err();
    assert_eq!(error.code, Code::Internal);
    assert!(error.message.contains("has 9 bytes, not 8"), "{error}");
    within(client.infer(&call("echo"))).await.unwrap();
}

#[tokio::test]
async fn nothing_listening_is_told_with_the_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = client(&address);
    let error = within(client.infer(&call("echo"))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&address) && error.message.contains("check that the server runs"), "{error}");
    let streamed = collect(&client, &call("echo")).await;
    assert_eq!(streamed, [Err(error)]);
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let error = within(client(&address).infer(&call("echo"))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    assert!(error.message.contains(&address), "{error}");
    other.abort();
}

#[tokio::test]
async fn a_lost_connection_fails_its_calls_and_is_made_again_by_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = client(&address.to_string());
    let closing = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let error = within(client.infer(&call("echo"))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    within(closing).await.unwrap();
    let _server = Fake::start_at(address, None).await;
    within(client.infer(&call("echo"))).await.unwrap();
}

#[tokio::test]
async fn a_stream_gives_its_answers_and_ends() {
    let server = Fake::start().await;
    let client = server.client();
    for (model, count) in [("marked", 3), ("no mark", 3), ("ordinary", 1)] {
        let call = call(model);
        let answers = collect(&client, &call).await;
        assert_eq!(answers, vec![Ok(echoed(&call)); count], "{model}");
    }
}

#[tokio::test]
async fn a_failure_ends_a_stream_after_what_came_before_it() {
    let server = Fake::start().await;
    let client = server.client();
    for (model, code) in [("message", Code::Overloaded), ("status", Code::Poison)] {
        let answers = collect(&client, &call(model)).await;
        assert_eq!(answers.len(), 4, "{model}");
        assert_eq!(answers[3].as_ref().unwrap_err().code, code);
    }
}

#[tokio::test]
async fn a_stream_ends_by_its_timeout_although_answers_came() {
    let mut server = Fake::start().await;
    let call = Call { timeout: Some(Duration::from_millis(500)), ..call("endless") };
    let mut answers = collect(&server.client(), &call).await;
    let error = answers.pop().unwrap().unwrap_err();
    assert!(error.code == Code::Deadline && error.message.contains("0.5 s"), "{error}");
    for answer in answers {
        answer.unwrap();
        server.saw_a_cancel().await;
    }
}

#[tokio::test]
async fn dropping_a_stream_cancels_it_on_the_server() {
    let mut server = Fake::start().await;
    let mut answers = server.client().stream(&call("endless")).unwrap();
    within(answers.next()).await.unwrap().unwrap();
    drop(answers);
    server.saw_a_cancel().await;
}

#[tokio::test]
async fn live_ready_and_metadata_are_asked_for() {
    let server = Fake::start().await;
    let client = server.client();
    assert_eq!(within(client.server_live(None)).await, Ok(true));
    assert_eq!(within(client.server_ready(None)).await, Ok(false));
    assert_eq!(within(client.model_ready("echo", "2", None)).await, Ok(true));
    assert_eq!(within(client.model_ready("echo", "3", None)).await, Ok(false));
    let metadata = within(client.metadata("echo", "", None)).await.unwrap();
    let spec = TensorSpec { name: "x".into(), datatype: anyserve_core::Datatype::Fp32, shape: vec![-1, 3] };
    assert_eq!((metadata.platform.as_str(), metadata.inputs), ("python", vec![spec]));
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_its_certificate_is_given() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, key));
    let server = Fake::start_at("127.0.0.1:0".parse().unwrap(), Some(tls)).await;
    let endpoint = format!("https://localhost:{}", server.address.port());
    let trusting = Tls::from(TlsPem { ca: Some(certificate.into_bytes()), identity: None });
    let client = Client::try_new(endpoint.parse().unwrap(), &trusting).unwrap();
    within(client.infer(&call("echo"))).await.unwrap();
    let error = within(fake::client(&endpoint).infer(&call("echo"))).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
}

#[tokio::test]
async fn tls_options_that_cannot_be_used_are_told_at_once() {
    let tls = Tls::from(TlsPem { ca: None, identity: Some((b"no pem".to_vec(), b"no pem".to_vec())) });
    let error = Client::try_new("https://localhost:1".parse().unwrap(), &tls).unwrap_err();
    assert_eq!(error.code, Code::InvalidInput);
}
