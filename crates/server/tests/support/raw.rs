//! A client that knows HTTP/2 and nothing of gRPC, for what a gRPC client would not send or would hide.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// The gRPC status, wherever it stands.
    pub(crate) fn status(&self) -> &str {
        let status = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        status.expect("every answer has a status").to_str().unwrap()
    }
}

/// Posts bytes to a gRPC method.
pub(crate) async fn call(server: SocketAddr, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{server}/{method}");
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    connection.abort();
    Answer { headers: head.headers, body: collected.to_bytes(), trailers }
}

/// Begins a call with a body that may go on for ever; dropping what is returned closes the connection.
pub(crate) async fn open(
    server: SocketAddr,
    method: &str,
    body: UnsyncBoxBody<Bytes, std::io::Error>,
) -> tokio::task::JoinSet<()> {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let uri = format!("http://{server}/{method}");
    let request = Request::post(uri).header("content-type", "application/grpc").body(body).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    tasks.spawn(async move { drop(client.send_request(request).await) });
    tasks
}

/// A message with its prefix.
pub(crate) fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &len[..], &message].concat()
}
