//! The server: accepts connections, and leaves politely.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyserve_core::TensorMemory;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::body::BodyError;
use crate::connection::Connections;
use crate::rooms::Rooms;
use crate::route::App;
use crate::threads::Threads;
use crate::{Listener, ServerConfig, ServerTls, TlsError, Upstream};

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Clean,
    /// This many requests were still in flight at the end of the grace period and were aborted.
    Aborted(u64),
}

/// Whoever answers the requests of a port.
pub trait Answers: Send + Sync + 'static {
    /// What an answer is written as.
    type Body: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static;

    /// Answers one request of `peer`. It never fails: whatever is wrong is an answer, too.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send;

    /// Requests whose answers are not written yet, on all threads.
    fn in_flight(&self) -> u64;

    /// The grace is over: whatever can be answered is to be answered now, with an error.
    fn give_up(&self) {}
}

/// An ingress that is ready to serve.
pub struct Server<A> {
    threads: Threads<A>,
    connections: Connections,
    tls: Option<Arc<ServerTls>>,
    /// The tasks of requests on HTTP/2.
    tasks: TaskTracker,
    leaving: CancellationToken,
    grace: Duration,
    max_connections: usize,
}

/// How long the answers of aborted requests, and then their tasks, are waited for.
const ABORT: Duration = Duration::from_secs(1);

/// How long nothing is accepted after the system refused, say for want of file descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);

// === impl Server ===

impl<S: Upstream> Server<App<S>> {
    /// Prepares to serve what `upstream` answers.
    ///
    /// # Errors
    /// [`TlsError`] if there are files for TLS that cannot be used.
    pub fn try_new(config: &ServerConfig, upstream: S) -> Result<Self, TlsError> {
        Self::with_memory(config, upstream, None)
    }

    /// Prepares to serve what `upstream` answers, and to receive large tensors into `memory`, if there is some.
    ///
    /// # Errors
    /// [`TlsError`] if there are files for TLS that cannot be used.
    pub fn with_memory(
        config: &ServerConfig,
        upstream: S,
        memory: Option<Arc<dyn TensorMemory>>,
    ) -> Result<Self, TlsError> {
        let leaving = CancellationToken::new();
        Self::of(config, App::new(config, upstream, Rooms::new(memory), &leaving), leaving)
    }
}

impl<A: Answers> Server<A> {
    /// Prepares to serve what `app` answers, which is told by `leaving` once the server leaves.
    ///
    /// # Errors
    /// [`TlsError`] if there are files for TLS that cannot be used.
    pub fn of(config: &ServerConfig, app: Arc<A>, leaving: CancellationToken) -> Result<Self, TlsError> {
        Self::over(config, Threads::here(app), leaving)
    }

    /// The same on several runtimes, each with an app of its own: a connection stays on one of them.
    ///
    /// # Errors
    /// [`TlsError`] if there are files for TLS that cannot be used.
    pub fn over(config: &ServerConfig, threads: Threads<A>, leaving: CancellationToken) -> Result<Self, TlsError> {
        let tls = config.tls.as_ref().map(ServerTls::read).transpose()?.map(Arc::new);
        let tasks = TaskTracker::new();
        Ok(Self {
            threads,
            connections: Connections::new(config, tls.clone(), tasks.clone(), leaving.clone()),
            tls,
            tasks,
            leaving,
            grace: config.grace,
            max_connections: config.max_connections.max(1),
        })
    }

    /// Its end of TLS, if connections are encrypted.
    pub fn tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.clone()
    }

    /// Serves until `shutdown` is cancelled, then drains: the port is closed, health turns to "not ready", clients are
    /// told to go elsewhere, and requests in flight have the grace period to end. What is left then is aborted: answered with an
    /// error where that can be.
    ///
    /// # Errors
    /// Only if the listener cannot be used by this runtime; nothing was served then.
    ///
    /// # Cancel safety
    /// Dropping it closes the port and aborts every request at once.
    pub async fn serve(self, listener: Listener, shutdown: CancellationToken) -> io::Result<Drained> {
        let listener = listener.into_tokio()?;
        let mut open = JoinSet::new();
        self.accept(&listener, &shutdown, &mut open).await;
        drop(listener);
        self.leaving.cancel();
        let drained = self.drain(&mut open).await;
        self.tasks.close();
        // Requests end by themselves once their connections are gone; this only waits for the last of them.
        let _ = tokio::time::timeout(ABORT, self.tasks.wait()).await;
        Ok(drained)
    }

    async fn accept(&self, listener: &TcpListener, shutdown: &CancellationToken, open: &mut JoinSet<()>) {
        let permits = Arc::new(Semaphore::new(self.max_connections));
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(ended) = open.join_next() => report(ended),
                (permit, stream, peer) = accept(listener, &permits) => {
                    let thread = self.threads.idlest();
                    let connection = self.connections.serve(stream, peer.ip(), Arc::clone(&thread.app));
                    let connection = hold((permit, thread.enter()), connection);
                    thread.spawn(open, connection.instrument(info_span!("connection", %peer)));
                }
            }
        }
    }

    async fn drain(&self, open: &mut JoinSet<()>) -> Drained {
        if tokio::time::timeout(self.grace, all(open)).await.is_ok() {
            return Drained::Clean;
        }
        let left = self.threads.in_flight();
        self.threads.give_up();
        // The errors are written, to whoever reads them.
        let _ = tokio::time::timeout(ABORT, all(open)).await;
        open.shutdown().await;
        // Connections without a request don't count: nobody loses an answer.
        if left == 0 { Drained::Clean } else { Drained::Aborted(left) }
    }
}

async fn all(open: &mut JoinSet<()>) {
    while let Some(ended) = open.join_next().await {
        report(ended);
    }
}

async fn hold<T>(held: T, connection: impl Future<Output = ()>) {
    connection.await;
    drop(held);
}

/// The next connection, once there may be one more. It cannot fail: an error of one connection is that connection's,
/// and what the system lacks it may have later.
///
/// # Cancel safety
/// No connection is lost.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (permit, stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted for now");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}
