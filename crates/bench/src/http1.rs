//! HTTP/1.1 POST on keep-alive connections.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::exchange::{Failure, Lane, Meter, Protocol, Success, Title};
use crate::options::HttpOptions;
use crate::request::{self, RequestError};

/// One POST to one URL.
#[derive(Debug)]
pub(crate) struct Http1 {
    url: Uri,
    address: String,
    request: Request<Full<Bytes>>,
    body: Bytes,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Http1Lane {
    connection: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
}

// === impl Http1 ===

impl Http1 {
    /// # Errors
    /// The options do not make a request.
    pub(crate) fn try_from_options(options: &HttpOptions) -> Result<Self, RequestError> {
        let no_url = || RequestError::NoUrl(options.url.clone());
        let url: Uri = options.url.parse().map_err(|_| no_url())?;
        let authority = url.authority().ok_or_else(no_url)?;
        if url.scheme_str() != Some("http") {
            return Err(no_url());
        }
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let body = body(options)?;
        let mut request = post(&url, &options.content_type, body.clone()).ok_or_else(no_url)?;
        for text in &options.headers {
            let (name, value) = request::header(text)?;
            request.headers_mut().append(name, value);
        }
        Ok(Self { address, request, body, url })
    }
}

impl Protocol for Http1 {
    type Lane = Http1Lane;
    const MULTIPLEXED: bool = false;

    fn title(&self) -> Title {
        Title {
            protocol: "HTTP/1.1",
            target: self.url.to_string(),
            request_bytes: self.body.len(),
        }
    }

    async fn connect(&self, lanes: usize) -> io::Result<Vec<Http1Lane>> {
        debug_assert_eq!(lanes, 1, "a connection carries one request at a time");
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        let (connection, driver) =
            handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        // The driver ends with its lane; what broke it reaches the lane as its own error.
        tokio::spawn(driver);
        Ok(vec![Http1Lane { connection, request: self.request.clone() }])
    }

    fn is_echo(&self, answer: &[u8]) -> bool {
        answer == self.body
    }
}

fn body(options: &HttpOptions) -> Result<Bytes, RequestError> {
    match (&options.body, &options.payload, options.zero_bytes) {
        (Some(text), _, _) => Ok(Bytes::from(text.clone())),
        (_, Some(path), _) => request::read(path),
        (_, _, Some(length)) => Ok(Bytes::from(vec![0; length])),
        (None, None, None) => Ok(Bytes::new()),
    }
}

fn post(url: &Uri, content_type: &str, body: Bytes) -> Option<Request<Full<Bytes>>> {
    Request::post(url.path_and_query()?.as_str())
        .header(header::HOST, url.authority()?.as_str())
        .header(header::CONTENT_TYPE, HeaderValue::from_str(content_type).ok()?)
        .body(Full::new(body))
        .ok()
}

// === impl Http1Lane ===

impl Lane for Http1Lane {
    async fn exchange(
        &mut self,
        meter: &Meter,
        sink: impl FnMut(Bytes) + Send,
    ) -> Result<Success, Failure> {
        self.call(meter, sink)
            .await
            .unwrap_or_else(|error| Err(Failure::broken("connection", &error)))
    }
}

impl Http1Lane {
    async fn call(
        &mut self,
        meter: &Meter,
        mut sink: impl FnMut(Bytes),
    ) -> Result<Result<Success, Failure>, hyper::Error> {
        self.connection.ready().await?;
        let (head, mut body) =
            self.connection.send_request(self.request.clone()).await?.into_parts();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                meter.add(piece.len(), 0);
                sink(piece);
            }
        }
        meter.add(0, 1);
        if head.status.is_success() {
            return Ok(Ok(Success { first_at: None, messages: 1 }));
        }
        let reason = head.status.canonical_reason().unwrap_or_default();
        Ok(Err(Failure::refused(format!("HTTP {}", head.status.as_u16()), reason)))
    }
}
