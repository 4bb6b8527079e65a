//! A client that knows HTTP and nothing of gRPC.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// A trailer or, where the answer is nothing but a status, a header.
    pub(crate) fn told(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.headers.get(name)).map(|value| value.to_str().unwrap())
    }

    /// The gRPC status, wherever it stands.
    pub(crate) fn status(&self) -> &str {
        self.told("grpc-status").expect("every answer has a status")
    }

    pub(crate) fn message(&self) -> &str {
        self.told("grpc-message").unwrap_or_default()
    }

    pub(crate) fn code(&self) -> Option<&str> {
        self.told("x-anyserve-code")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Self { http: head.status, headers: head.headers, body: collected.to_bytes(), trailers }
    }
}

/// Posts bytes to a gRPC method and reads all of the answer.
pub(crate) async fn call(server: SocketAddr, method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let (response, connection) = begin(server, method, headers, body).await;
    let answer = super::watchdog(Answer::of(response)).await;
    drop(connection);
    answer
}

/// Posts bytes to a gRPC method and waits for the headers of the answer. The connection ends with what is returned.
pub(crate) async fn begin(
    server: SocketAddr,
    method: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (Response<Incoming>, JoinSet<()>) {
    let stream = TcpStream::connect(server).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_frame_size(1 << 20);
    let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let mut request = Request::post(format!("http://{server}/{method}"));
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = super::watchdog(client.send_request(request.body(Full::new(body.into())).unwrap())).await.unwrap();
    (response, tasks)
}

/// One HTTP/1 request, begun; the connection ends with what is returned.
pub(crate) async fn http1(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (Response<Incoming>, JoinSet<()>) {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let mut request = Request::builder().method(method).uri(path).header("host", server.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = super::watchdog(client.send_request(request.body(Full::new(body.into())).unwrap())).await.unwrap();
    (response, tasks)
}

/// Posts a text over HTTP/1 and reads all of the answer.
pub(crate) async fn post(server: SocketAddr, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let (response, connection) = http1(server, "POST", path, headers, body).await;
    let answer = super::watchdog(Answer::of(response)).await;
    drop(connection);
    answer
}

/// A message with its prefix.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    prefixed(0, &message.encode_to_vec())
}

/// Bytes with a prefix.
pub(crate) fn prefixed(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[flag], &len[..], bytes].concat()
}
