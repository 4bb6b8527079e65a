//! One HTTP/2 connection: requests go onto it from the tasks that they are of, and one task moves its bytes.
//!
//! ```text
//! a request's task ─► frames of its message, as they lie ─┐
//!                                                         ├─► drive: reads, writes, pings ─► socket
//! a request's task ◄─ headers, data, trailers ◄───────────┘
//! ```
//!
//! Nothing is handed from task to task: what a request sends is queued by reference and leaves as flow control lets it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Lost;
use crate::proxy::Message;

/// Requests that are under way on one connection; as many as a replica takes. Further ones wait, and are not sent.
pub(super) const MAX_REQUESTS: usize = 4096;

/// What a request says before its message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) path: &'static str,
    pub(crate) headers: HeaderMap,
}

/// Where a connection leads to: what every URI on it begins with.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

/// A connection that is made.
#[derive(Clone)]
pub(super) struct Link {
    origin: Arc<Origin>,
    sender: SendRequest<Bytes>,
    /// A place for each request; closed with the connection.
    places: Arc<Semaphore>,
}

/// What a replica sends after the headers, as it comes. Dropped before its end, the request is cancelled.
pub(crate) struct Arriving {
    stream: RecvStream,
    _place: OwnedSemaphorePermit,
}

/// How often the other side is asked whether it is there, and how long it may take to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    pub(super) every: Duration,
    pub(super) timeout: Duration,
}

/// Why a connection ended before anybody wanted it to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// What the connection itself says.
    #[error(transparent)]
    Http(#[from] h2::Error),
    /// The replica does not answer any more.
    #[error("a ping had no answer within {0:?}")]
    Silent(Duration),
}

/// A place on a connection for one request.
pub(super) struct Place {
    origin: Arc<Origin>,
    sender: SendRequest<Bytes>,
    held: OwnedSemaphorePermit,
}

// === impl Link ===

impl Link {
    /// A connection of which [`drive`] moves the bytes, with the places that it is to close.
    pub(super) fn new(origin: Origin, sender: SendRequest<Bytes>) -> (Self, Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        (Self { origin: Arc::new(origin), sender, places: Arc::clone(&places) }, places)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.places.is_closed()
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.places, &other.places)
    }

    /// Waits for a place for one request.
    ///
    /// # Errors
    /// [`Lost::Unreached`] if the connection takes none any more.
    pub(super) async fn place(&self) -> Result<Place, Lost> {
        let held = Arc::clone(&self.places).acquire_owned().await;
        let held = held.map_err(|_| Lost::Unreached("the connection is closed".to_owned()))?;
        let mut sender = self.sender.clone();
        std::future::poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|error| Lost::unsent(&error))?;
        Ok(Place { origin: Arc::clone(&self.origin), sender, held })
    }
}

// === impl Place ===

impl Place {
    /// Sends a request and waits for the headers of its answer.
    ///
    /// # Errors
    /// [`Lost`] with whether the replica may have begun it.
    ///
    /// # Cancel safety
    /// Dropping it cancels the request at the replica.
    pub(super) async fn send(mut self, head: Head, message: &Message) -> Result<Response<Arriving>, Lost> {
        let sent = self.sender.send_request(self.origin.request(head), false);
        let (response, mut body) = sent.map_err(|error| Lost::unsent(&error))?;
        let last = message.pieces().len().saturating_sub(1);
        for (at, piece) in message.pieces().iter().enumerate() {
            if let Err(error) = body.send_data(piece.clone(), at == last) {
                // The stream has ended already; how, its response says.
                tracing::debug!(%error, "a request was cut short");
                break;
            }
        }
        let response = response.await.map_err(|error| Lost::of(&error))?;
        Ok(response.map(|stream| Arriving { stream, _place: self.held }))
    }
}

// === impl Origin ===

impl Origin {
    fn request(&self, head: Head) -> Request<()> {
        let mut uri = uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(PathAndQuery::from_static(head.path));
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(uri).expect("there are all three parts");
        *request.headers_mut() = head.headers;
        request
    }
}

/// Moves the bytes of a connection until it ends, a ping stays unanswered, or it is told to stop. Then requests on it end.
///
/// # Errors
/// [`Ended`] unless it was told to, or the replica closed it.
pub(super) async fn drive<I>(
    mut connection: Connection<I, Bytes>,
    places: Arc<Semaphore>,
    keepalive: Keepalive,
    stop: CancellationToken,
) -> Result<(), Ended>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong().expect("nobody else has taken it");
    let ended = {
        let (connection, silent) = (pin!(&mut connection), pin!(keepalive.until_silent(pings)));
        tokio::select! {
            ended = connection => ended.map_err(Ended::from),
            () = silent => Err(Ended::Silent(keepalive.timeout)),
            () = stop.cancelled() => Ok(()),
        }
    };
    places.close();
    ended
}

// === impl Keepalive ===

impl Keepalive {
    /// Pings for as long as there are answers.
    async fn until_silent(self, mut pings: PingPong) {
        loop {
            tokio::time::sleep(self.every).await;
            match tokio::time::timeout(self.timeout, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The connection's own end says what it is.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return,
            }
        }
    }
}

// === impl Arriving ===

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            return Poll::Ready(Some(data.map(|data| {
                // It fails only where the stream is over, which the next poll says.
                let _ = self.stream.flow_control().release_capacity(data.len());
                Frame::data(data)
            })));
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
