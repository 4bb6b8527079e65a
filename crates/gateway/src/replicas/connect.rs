//! Making a connection: TCP, TLS if the endpoint says so, then HTTP/2.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyserve_client::{Endpoint, EndpointError};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Outgoing, ReplicaTlsError, ReplicasConfig, tls};

/// Bytes that a replica may send of one answer before they are read: what the ingress of a replica takes, too.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same of all answers on one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Longest HTTP/2 frame that a replica may send.
const MAX_FRAME: u32 = 1 << 20;

/// Longest headers or trailers of one answer, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

/// Bytes of one request that may wait to be written.
const MAX_UNSENT: usize = 1 << 20;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Connector {
    http: Builder<Tasks>,
    tls: tls::Connectors,
    faults: Arc<tls::Faults>,
    timeout: Duration,
    tasks: Tasks,
}

/// Runs connections until they are told to stop.
#[derive(Clone, Debug)]
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

// === impl Connector ===

impl Connector {
    pub(crate) fn try_new(config: &ReplicasConfig, stop: CancellationToken) -> Result<Self, ReplicaTlsError> {
        let tasks = Tasks { tracker: TaskTracker::new(), stop };
        let mut http = Builder::new(tasks.clone());
        http.timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADERS)
            .max_send_buf_size(MAX_UNSENT)
            .keep_alive_interval(config.keepalive)
            .keep_alive_timeout(config.keepalive_timeout)
            .keep_alive_while_idle(true);
        let tls = tls::Connectors::try_new(config.tls.clone())?;
        Ok(Self { http, tls, faults: Arc::default(), timeout: config.connect_timeout, tasks })
    }

    /// Makes a connection to an endpoint. The error says why there is none.
    pub(crate) async fn connect(&self, endpoint: &str) -> Result<SendRequest<Outgoing>, Arc<str>> {
        let connected = tokio::time::timeout(self.timeout, self.try_connect(endpoint)).await;
        let ended = connected.unwrap_or_else(|_| Err(format!("no connection within {:?}", self.timeout)));
        ended.map_err(|why| {
            tracing::debug!(endpoint, why, "a replica cannot be reached");
            why.into()
        })
    }

    async fn try_connect(&self, endpoint: &str) -> Result<SendRequest<Outgoing>, String> {
        let endpoint: Endpoint = endpoint.parse().map_err(|error: EndpointError| error.to_string())?;
        let host = endpoint.host();
        let stream = TcpStream::connect((host, endpoint.port())).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if !endpoint.secure() {
            return self.handshake(stream, None).await;
        }
        let tls: TlsConnector = self.tls.get()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("'{host}' is no name of a server"))?;
        let endpoint = endpoint.to_string();
        let stream = tls.connect(name, stream).await.map_err(|error| {
            self.faults.note(&endpoint, &error);
            format!("TLS: {error}")
        })?;
        self.handshake(stream, Some(endpoint)).await
    }

    /// Begins HTTP/2 on a connection, one of TLS if it says with which endpoint. A server that does not believe this side's
    /// certificate says so only then.
    async fn handshake<I>(&self, io: I, secure: Option<String>) -> Result<SendRequest<Outgoing>, String>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let made = self.http.handshake(TokioIo::new(io)).await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        let faults = Arc::clone(&self.faults);
        self.tasks.spawn(async move {
            let ended = connection.await;
            match (&ended, &secure) {
                (Ok(()), Some(endpoint)) => faults.forget(endpoint),
                (Err(error), Some(endpoint)) if faults.note(endpoint, error) => {}
                (Err(error), _) => tracing::debug!(%error, "a connection to a replica ended early"),
                (Ok(()), None) => {}
            }
        });
        Ok(sender)
    }
}

// === impl Tasks ===

impl Tasks {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, work: F) {
        self.spawn(async move {
            work.await;
        });
    }
}
