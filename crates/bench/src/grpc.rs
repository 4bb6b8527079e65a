//! KServe v2 over bare HTTP/2: no codec between the prepared bytes and the socket.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request, Version, header};
use tokio::net::TcpStream;

use crate::exchange::{Failure, Lane, Meter, Protocol, Success, Title};
use crate::messages::Messages;
use crate::options::GrpcOptions;
use crate::request::{self, GrpcRequest, RequestError};

/// Large enough that no answer of tens of MiB waits for a window update.
const STREAM_WINDOW: u32 = 32 << 20;
const CONNECTION_WINDOW: u32 = 256 << 20;
/// Fewer, larger frames for large answers.
const MAX_FRAME: u32 = 1 << 20;
/// Many small messages (tokens) are this program's purpose, not an attack on it.
const SMALL_FRAMES: usize = 256 << 20;

/// Which RPC is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// `ModelInfer`: one answer.
    Unary,
    /// `ModelStreamInfer`: one request on a stream of its own, any number of answers.
    Stream,
}

/// One request of one RPC to one server.
#[derive(Debug)]
pub(crate) struct Grpc {
    target: String,
    method: Method,
    request: GrpcRequest,
    head: Arc<Request<()>>,
}

/// One stream at a time on a connection shared with other lanes.
#[derive(Debug)]
pub(crate) struct GrpcLane {
    connection: SendRequest<Bytes>,
    method: Method,
    head: Arc<Request<()>>,
    framed: Bytes,
}

/// What has arrived of an answer.
#[derive(Debug, Default)]
struct Arrived {
    messages: Messages,
    count: u64,
    first_at: Option<Instant>,
}

// === impl Method ===

impl Method {
    fn path(self) -> &'static str {
        match self {
            Self::Unary => "/inference.GRPCInferenceService/ModelInfer",
            Self::Stream => "/inference.GRPCInferenceService/ModelStreamInfer",
        }
    }
}

// === impl Grpc ===

impl Grpc {
    /// # Errors
    /// The options do not make a request.
    pub(crate) fn try_from_options(options: &GrpcOptions, method: Method) -> Result<Self, RequestError> {
        let target = options.target.strip_prefix("http://").unwrap_or(&options.target);
        let target = target.trim_end_matches('/').to_owned();
        Ok(Self {
            head: Arc::new(head(&target, method, &options.headers)?),
            target,
            method,
            request: GrpcRequest::try_from_options(options)?,
        })
    }
}

impl Protocol for Grpc {
    type Lane = GrpcLane;
    const MULTIPLEXED: bool = true;

    fn title(&self) -> Title {
        let protocol = match self.method {
            Method::Unary => "gRPC unary",
            Method::Stream => "gRPC stream",
        };
        let request_bytes = self.request.framed.len();
        Title { protocol, target: self.target.clone(), request_bytes }
    }

    async fn connect(&self, lanes: usize) -> io::Result<Vec<GrpcLane>> {
        let socket = TcpStream::connect(&self.target).await?;
        socket.set_nodelay(true)?;
        let handshake = settings().handshake::<_, Bytes>(socket).await;
        let (connection, driver) = handshake.map_err(io::Error::other)?;
        // The driver ends with the last lane; what broke it reaches each lane as its own error.
        tokio::spawn(driver);
        let lane = || GrpcLane {
            connection: connection.clone(),
            method: self.method,
            head: Arc::clone(&self.head),
            framed: self.request.framed.clone(),
        };
        Ok((0..lanes).map(|_| lane()).collect())
    }

    fn is_echo(&self, answer: &[u8]) -> bool {
        self.method == Method::Unary && self.request.is_echoed_by(answer)
    }
}

fn head(target: &str, method: Method, headers: &[String]) -> Result<Request<()>, RequestError> {
    let mut request = Request::post(format!("http://{target}{}", method.path()))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
        .map_err(|_| RequestError::NoTarget(target.to_owned()))?;
    if request.uri().port_u16().is_none() {
        return Err(RequestError::NoTarget(target.to_owned()));
    }
    for text in headers {
        let (name, value) = request::header(text)?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

fn settings() -> Builder {
    let mut settings = Builder::new();
    settings
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .data_frame_budget(SMALL_FRAMES)
        .enable_push(false);
    settings
}

// === impl GrpcLane ===

impl Lane for GrpcLane {
    async fn exchange(&mut self, meter: &Meter, sink: impl FnMut(Bytes) + Send) -> Result<Success, Failure> {
        self.call(meter, sink).await.unwrap_or_else(|error| Err(transport(&error)))
    }
}

impl GrpcLane {
    async fn call(
        &mut self,
        meter: &Meter,
        mut sink: impl FnMut(Bytes),
    ) -> Result<Result<Success, Failure>, h2::Error> {
        poll_fn(|cx| self.connection.poll_ready(cx)).await?;
        let (answer, mut body) = self.connection.send_request(Request::clone(&self.head), false)?;
        body.send_data(self.framed.clone(), true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut arrived = Arrived::default();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            let count = arrived.feed(&piece);
            meter.add(piece.len(), count);
            sink(piece);
        }
        if !head.status.is_success() {
            return Ok(Err(Failure::refused(format!("HTTP {}", head.status.as_u16()), "")));
        }
        let trailers = body.trailers().await?;
        Ok(status(trailers.as_ref().unwrap_or(&head.headers)).and(arrived.judge(self.method)))
    }
}

/// A reset ends one call, everything else the connection.
fn transport(error: &h2::Error) -> Failure {
    match error.reason() {
        Some(reason) if error.is_reset() => Failure::refused(format!("reset {reason:?}"), error.to_string()),
        _ => Failure::broken("connection", error),
    }
}

fn status(trailers: &HeaderMap) -> Result<(), Failure> {
    let Some(status) = trailers.get("grpc-status") else {
        return Err(Failure::refused("no grpc-status", "the answer ended without one"));
    };
    match tonic::Code::from_bytes(status.as_bytes()) {
        tonic::Code::Ok => Ok(()),
        code => {
            // The message is percent-encoded on its way.
            let told = tonic::Status::from_header_map(trailers);
            let detail = told.map(|status| status.message().to_owned()).unwrap_or_default();
            Err(Failure::refused(format!("{code:?}"), detail))
        }
    }
}

// === impl Arrived ===

impl Arrived {
    fn feed(&mut self, piece: &[u8]) -> u64 {
        let count = self.messages.feed(piece);
        if count > 0 && self.count == 0 {
            self.first_at = Some(Instant::now());
        }
        self.count += count;
        count
    }

    /// What an answer whose status is OK amounts to.
    fn judge(&self, method: Method) -> Result<Success, Failure> {
        if !self.messages.is_between_messages() {
            return Err(Failure::refused("truncated", "the answer ended inside a message"));
        }
        if method == Method::Unary && self.count != 1 {
            let detail = format!("{} messages in an answer of one", self.count);
            return Err(Failure::refused("not one message", detail));
        }
        if method == Method::Stream && self.messages.errors > 0 {
            let detail = format!("{} of {} messages", self.messages.errors, self.count);
            return Err(Failure::refused("error_message in the stream", detail));
        }
        let first_at = self.first_at.filter(|_| method == Method::Stream);
        Ok(Success { first_at, messages: self.count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_as_it_was_written() {
        let headers = tonic::Status::not_found("no 'é', 100 % sure").into_http::<()>().into_parts().0.headers;
        let failure = status(&headers).unwrap_err();
        assert_eq!((&*failure.kind, &*failure.detail), ("NotFound", "no 'é', 100 % sure"));
    }
}
