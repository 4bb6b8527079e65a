//! HTTP/1.1 POST or GET on keep-alive connections: one write and as few reads as the answer needs.
//!
//! Servers that speak HTTP are measured against servers that speak gRPC on the same cores, so this
//! has to be as cheap as the other: the request is one buffer, made once.

use std::fmt::Write;
use std::io;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::answer::{AnswerError, Head, Step};
use crate::exchange::{Failure, Lane, Meter, Protocol, Success, Title};
use crate::options::HttpOptions;
use crate::request::{self, RequestError};

/// Room for what one read may bring.
const READ: usize = 256 << 10;

/// One POST to one URL.
#[derive(Debug)]
pub(crate) struct Http1 {
    url: String,
    address: String,
    /// Head and body.
    request: Bytes,
    body: Bytes,
}

/// A connection, opened again where the server closes it between answers.
#[derive(Debug)]
pub(crate) struct Http1Lane {
    address: String,
    socket: Option<TcpStream>,
    request: Bytes,
    buffer: BytesMut,
}

/// What ends a connection.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("closed before the answer's end")]
    Closed,
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
        let mut request = head(&url, options, body.len())?.into_bytes();
        request.extend_from_slice(&body);
        Ok(Self { url: options.url.clone(), address, request: request.into(), body })
    }
}

impl Protocol for Http1 {
    type Lane = Http1Lane;
    const MULTIPLEXED: bool = false;

    fn title(&self) -> Title {
        Title { protocol: "HTTP/1.1", target: self.url.clone(), request_bytes: self.body.len() }
    }

    async fn connect(&self, lanes: usize) -> io::Result<Vec<Http1Lane>> {
        debug_assert_eq!(lanes, 1, "a connection carries one request at a time");
        Ok(vec![Http1Lane {
            address: self.address.clone(),
            socket: Some(connect(&self.address).await?),
            request: self.request.clone(),
            buffer: BytesMut::with_capacity(READ),
        }])
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

fn head(url: &Uri, options: &HttpOptions, length: usize) -> Result<String, RequestError> {
    let content_type = request::header(&format!("content-type:{}", options.content_type))?;
    let given = options.headers.iter().map(|text| request::header(text));
    let headers = given.chain([Ok(content_type)]).collect::<Result<Vec<_>, _>>()?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let host = url.authority().map_or("", |authority| authority.as_str());
    let method = if options.get { "GET" } else { "POST" };
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        let value = value.to_str().map_err(|_| RequestError::NoHeader(name.to_string()))?;
        write!(head, "{name}: {value}\r\n").expect("a string takes whatever fits in memory");
    }
    Ok(head + "\r\n")
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

// === impl Http1Lane ===

impl Lane for Http1Lane {
    async fn exchange(&mut self, meter: &Meter, sink: impl FnMut(Bytes) + Send) -> Result<Success, Failure> {
        match self.call(meter, sink).await {
            Ok(status) if status.is_success() => Ok(Success { first_at: None, messages: 1 }),
            Ok(status) => {
                let reason = status.canonical_reason().unwrap_or_default();
                Err(Failure::refused(format!("HTTP {}", status.as_u16()), reason))
            }
            Err(error) => Err(Failure::broken("connection", &error)),
        }
    }
}

impl Http1Lane {
    async fn call(&mut self, meter: &Meter, mut sink: impl FnMut(Bytes)) -> Result<StatusCode, Broken> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.address).await?,
        };
        socket.write_all(&self.request).await?;
        let mut head = loop {
            read(&mut socket, &mut self.buffer).await?;
            if let Some(head) = Head::take(&mut self.buffer)? {
                break head;
            }
        };
        loop {
            match head.body.take(&mut self.buffer)? {
                Step::Piece(piece) => {
                    meter.add(piece.len(), 0);
                    sink(piece);
                }
                Step::NeedMore => read(&mut socket, &mut self.buffer).await?,
                Step::End => break,
            }
        }
        meter.add(0, 1);
        self.socket = Some(socket).filter(|_| !head.closes);
        Ok(StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// Reads what is there, at least one byte. Pieces taken out and dropped make room again.
async fn read(socket: &mut TcpStream, buffer: &mut BytesMut) -> Result<(), Broken> {
    buffer.reserve(READ / 2);
    match socket.read_buf(buffer).await? {
        0 => Err(Broken::Closed),
        _ => Ok(()),
    }
}
