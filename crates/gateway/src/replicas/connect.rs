//! Making a connection: TCP, TLS if the endpoint says so, then HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use anyserve_client::{Endpoint, EndpointError};
use h2::client::Builder;
use http::Uri;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::{Ended, Keepalive, Link, MAX_REQUESTS, Origin, drive};
use super::{ReplicaTlsError, ReplicasConfig, tls};

/// Bytes that a replica may send of one answer before they are read: what the ingress of a replica takes, too.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same of all answers on one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Longest HTTP/2 frame that a replica may send.
const MAX_FRAME: u32 = 1 << 20;

/// Longest headers or trailers of one answer, in bytes.
const MAX_HEADERS: u32 = 64 << 10;

/// What small frames that wait to be read may cost, beyond their bytes: 256 less their length for each. A connection's window is
/// full of tokens of 55 bytes before it; h2's own bound, half the window, would end the connection, and with it
/// the requests of everybody, because of a few clients that read slowly.
const SMALL_FRAMES: usize = 64 << 20;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Connector {
    http: Builder,
    tls: tls::Connectors,
    faults: Arc<tls::Faults>,
    timeout: Duration,
    keepalive: Keepalive,
    /// Every connection.
    tasks: TaskTracker,
    /// Ends them.
    stop: CancellationToken,
}

// === impl Connector ===

impl Connector {
    pub(crate) fn try_new(config: &ReplicasConfig, stop: CancellationToken) -> Result<Self, ReplicaTlsError> {
        let mut http = Builder::new();
        http.initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADERS)
            // One more is refused by the replica, and then it was not begun.
            .initial_max_send_streams(MAX_REQUESTS)
            .data_frame_budget(SMALL_FRAMES)
            .enable_push(false);
        let tls = tls::Connectors::try_new(config.tls.clone())?;
        let keepalive = Keepalive { every: config.keepalive, timeout: config.keepalive_timeout };
        let (faults, timeout, tasks) = (Arc::default(), config.connect_timeout, TaskTracker::new());
        Ok(Self { http, tls, faults, timeout, keepalive, tasks, stop })
    }

    /// Makes a connection to an endpoint. The error says why there is none.
    pub(crate) async fn connect(&self, endpoint: &str) -> Result<Link, Arc<str>> {
        let connected = tokio::time::timeout(self.timeout, self.try_connect(endpoint)).await;
        let ended = connected.unwrap_or_else(|_| Err(format!("no connection within {:?}", self.timeout)));
        ended.map_err(|why| {
            tracing::debug!(endpoint, why, "a replica cannot be reached");
            why.into()
        })
    }

    async fn try_connect(&self, endpoint: &str) -> Result<Link, String> {
        let origin = origin(endpoint)?;
        let endpoint: Endpoint = endpoint.parse().map_err(|error: EndpointError| error.to_string())?;
        let host = endpoint.host();
        let stream = TcpStream::connect((host, endpoint.port())).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if !endpoint.secure() {
            return self.handshake(origin, stream, None).await;
        }
        let tls: TlsConnector = self.tls.get()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("'{host}' is no name of a server"))?;
        let endpoint = endpoint.to_string();
        let stream = tls.connect(name, stream).await.map_err(|error| {
            self.faults.note(&endpoint, &error);
            format!("TLS: {error}")
        })?;
        self.handshake(origin, stream, Some(endpoint)).await
    }

    /// Begins HTTP/2 on a connection, one of TLS if it says with which endpoint. A server that does not believe this side's
    /// certificate says so only then.
    async fn handshake<I>(&self, origin: Origin, io: I, secure: Option<String>) -> Result<Link, String>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let made = self.http.handshake(io).await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        let (link, places) = Link::new(origin, sender);
        let (keepalive, stop, faults) = (self.keepalive, self.stop.clone(), Arc::clone(&self.faults));
        self.tasks.spawn(async move {
            let ended = drive(connection, places, keepalive, stop).await;
            match (&ended, &secure) {
                (Ok(()), Some(endpoint)) => faults.forget(endpoint),
                (Err(Ended::Http(error)), Some(endpoint)) if faults.note(endpoint, error) => {}
                (Err(error), _) => tracing::debug!(%error, "a connection to a replica ended early"),
                (Ok(()), None) => {}
            }
        });
        Ok(link)
    }
}

fn origin(endpoint: &str) -> Result<Origin, String> {
    let uri: Uri = endpoint.parse().map_err(|error| format!("'{endpoint}' is no URI: {error}"))?;
    let parts = uri.into_parts();
    let whole = parts.scheme.zip(parts.authority);
    let (scheme, authority) = whole.ok_or_else(|| format!("'{endpoint}' is no http:// or https:// and a host"))?;
    Ok(Origin { scheme, authority })
}
