//! One connection: TLS if told, then HTTP/1 or HTTP/2, whichever the client speaks.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Answers;
use crate::{ServerConfig, ServerTls};

/// Bytes that a client may send of one request before they are read. The default of 64 KiB makes large tensors crawl.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same of all requests of one connection.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Longest HTTP/2 frame that a client may send.
const MAX_FRAME: u32 = 1 << 20;

/// Longest headers of one request, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

/// Bytes of one answer that may wait to be written.
const MAX_UNSENT: usize = 1 << 20;

/// How long a client may leave a keepalive ping unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The connection preface of HTTP/2 has this many bytes; until they have arrived the protocol is not known.
const PREFACE: usize = 24;

/// What all connections share.
pub(crate) struct Connections {
    http: auto::Builder<Tasks>,
    tls: Option<Arc<ServerTls>>,
    handshake_timeout: Duration,
    leaving: CancellationToken,
}

/// Runs the requests of HTTP/2 connections, and can be waited for.
#[derive(Clone, Debug)]
struct Tasks(TaskTracker);

/// A connection that counts what it has read.
struct Counted<I> {
    io: I,
    read: Arc<AtomicUsize>,
}

// === impl Connections ===

impl Connections {
    pub(crate) fn new(
        config: &ServerConfig,
        tls: Option<Arc<ServerTls>>,
        tasks: TaskTracker,
        leaving: CancellationToken,
    ) -> Self {
        let mut http = auto::Builder::new(Tasks(tasks));
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.handshake_timeout)
            .max_buf_size(usize::try_from(MAX_HEADERS).unwrap_or(usize::MAX));
        http.http2()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADERS)
            .max_concurrent_streams(config.max_concurrent_streams)
            .max_send_buf_size(MAX_UNSENT)
            .keep_alive_interval(config.keepalive)
            .keep_alive_timeout(PING_TIMEOUT);
        Self { http, tls, handshake_timeout: config.handshake_timeout, leaving }
    }

    /// Serves one connection of `peer` to its end. Errors are the client's and end nothing but this connection.
    pub(crate) fn serve<A: Answers>(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        app: Arc<A>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (http, timeout) = (self.http.clone(), self.handshake_timeout);
        let tls = self.tls.as_deref().map(ServerTls::acceptor);
        let leaving = self.leaving.clone();
        let stream = stream.into_std();
        async move {
            let stream = match stream.and_then(settle) {
                Ok(stream) => stream,
                Err(error) => return tracing::debug!(%error, "a connection cannot be used"),
            };
            let Some(tls) = tls else { return run(http, stream, peer, app, timeout, leaving).await };
            match tokio::time::timeout(timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => run(http, stream, peer, app, timeout, leaving).await,
                Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                Err(_) => tracing::debug!("the TLS handshake took too long"),
            }
        }
    }
}

/// Makes the runtime that this is called on the one that the connection's bytes wake.
fn settle(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

async fn run<A, I>(
    http: auto::Builder<Tasks>,
    io: I,
    peer: IpAddr,
    app: Arc<A>,
    timeout: Duration,
    leaving: CancellationToken,
) where
    A: Answers,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let read = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(Counted { io, read: Arc::clone(&read) });
    // Boxed where it is made: hyper and the runtime move a request's future several times before its first poll.
    let service = service_fn(move |request| Box::pin(Arc::clone(&app).answer(request, peer)));
    let mut connection = pin!(http.serve_connection(io, service));
    let mut silent = pin!(tokio::time::sleep(timeout));
    let mut left = pin!(leaving.cancelled());
    let (mut asked_to_leave, mut checked) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                return ended.unwrap_or_else(|error| tracing::debug!(%error, "a connection ended early"));
            }
            () = left.as_mut(), if !asked_to_leave => {
                asked_to_leave = true;
                connection.as_mut().graceful_shutdown();
            }
            () = silent.as_mut(), if !checked => {
                checked = true;
                if read.load(Ordering::Relaxed) < PREFACE {
                    return tracing::debug!("a connection said nothing");
                }
            }
        }
    }
}

// === impl Tasks ===

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.0.spawn(request);
    }
}

// === impl Counted ===

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read.fetch_add(buf.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
