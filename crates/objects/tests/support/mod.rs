//! Peers that do what a test tells them, and a replica's end of the object plane.

#![allow(dead_code, reason = "every test crate uses another part")]
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyserve_client::Tls;
use anyserve_core::{FarObjects, ObjRef, StoreId};
use anyserve_objects::{FarStore, Peers, Spill};
use anyserve_proto::v1::object_transfer_server::{ObjectTransfer, ObjectTransferServer};
use anyserve_proto::v1::{IdentifyRequest, IdentifyResponse, PullChunk, PullHead, PullRequest};
use anyserve_testkit::Shelf;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use xxhash_rust::xxh3::xxh3_64;

/// The store that scripted peers have, if they are not told otherwise.
pub(crate) const THERE: u64 = 0xbeef;

/// What a peer says to a pull.
pub(crate) type Script = Arc<dyn Fn() -> Result<Vec<PullChunk>, Status> + Send + Sync>;

/// A peer. Dropping it ends it and its connections.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    /// Its own, so that it can be killed with all its connections.
    runtime: Option<Runtime>,
}

/// What a peer saw, and what holds it up.
pub(crate) struct Seen {
    pub(crate) store: AtomicU64,
    pub(crate) asks: AtomicUsize,
    pub(crate) pulls: AtomicUsize,
    /// Pulls whose answer is being taken.
    pub(crate) open: AtomicUsize,
    /// Chunks that may be sent.
    pub(crate) gate: Semaphore,
}

struct Service {
    seen: Arc<Seen>,
    script: Script,
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    /// A peer that says this and keeps nothing back.
    pub(crate) async fn start(script: impl Fn() -> Result<Vec<PullChunk>, Status> + Send + Sync + 'static) -> Self {
        Self::start_gated(Semaphore::MAX_PERMITS, script).await
    }

    /// A peer that says this, and so many chunks of it before the gate is opened further.
    pub(crate) async fn start_gated(
        chunks: usize,
        script: impl Fn() -> Result<Vec<PullChunk>, Status> + Send + Sync + 'static,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            store: AtomicU64::new(THERE),
            asks: AtomicUsize::new(0),
            pulls: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            gate: Semaphore::new(chunks),
        });
        let service = ObjectTransferServer::new(Service { seen: Arc::clone(&seen), script: Arc::new(script) });
        let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);
        Self { address, seen, runtime: Some(runtime) }
    }

    pub(crate) fn pulls(&self) -> usize {
        self.seen.pulls.load(Ordering::SeqCst)
    }

    pub(crate) fn asks(&self) -> usize {
        self.seen.asks.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

#[tonic::async_trait]
impl ObjectTransfer for Service {
    type PullStream = Pin<Box<dyn Stream<Item = Result<PullChunk, Status>> + Send>>;

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        self.seen.asks.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(IdentifyResponse { store: self.seen.store.load(Ordering::SeqCst) }))
    }

    async fn pull(&self, _: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        self.seen.pulls.fetch_add(1, Ordering::SeqCst);
        let chunks = (self.script)()?;
        self.seen.open.fetch_add(1, Ordering::SeqCst);
        let open = Arc::new(Open(Arc::clone(&self.seen)));
        let gated = stream::iter(chunks).then(move |chunk| {
            let open = Arc::clone(&open);
            async move {
                open.0.gate.acquire().await.unwrap().forget();
                Ok(chunk)
            }
        });
        Ok(Response::new(Box::pin(gated)))
    }
}

/// The reference of a scripted peer's object.
pub(crate) fn objref() -> ObjRef {
    ObjRef { store: StoreId(THERE), index: 3, generation: 9 }
}

/// An object as an honest peer sends it, in chunks of `size` bytes.
pub(crate) fn chunks(bytes: &[u8], size: usize) -> Vec<PullChunk> {
    let mut pieces: Vec<&[u8]> = bytes.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let mut chunks: Vec<_> = pieces.into_iter().map(chunk).collect();
    let len = u64::try_from(bytes.len()).unwrap();
    chunks[0].head = Some(PullHead { len, remaining_ms: 60_000 });
    chunks.last_mut().unwrap().whole = Some(xxh3_64(bytes));
    chunks
}

/// A chunk in the midst.
pub(crate) fn chunk(data: &[u8]) -> PullChunk {
    PullChunk { head: None, data: Bytes::copy_from_slice(data), checksum: xxh3_64(data), whole: None }
}

/// A replica's end: its own store is 1, with room for 100 bytes less than 1 MiB.
pub(crate) fn far(shelf: &Shelf, peers: &[SocketAddr], spill: Option<&Spill>) -> Arc<FarStore> {
    let endpoints = peers.iter().map(|peer| peer.to_string().parse().unwrap()).collect();
    FarStore::start(Arc::new(shelf.clone()), Peers::try_new(endpoints, &Tls::default()).unwrap(), spill.cloned())
}

pub(crate) async fn fetch(far: &FarStore) -> Result<ObjRef, anyserve_core::Error> {
    watchdog(far.fetch(objref(), None)).await
}

/// Fails the test instead of hanging it.
pub(crate) async fn watchdog<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("nothing happened for 30 seconds")
}

/// Waits until a condition holds that nothing tells about.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    watchdog(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
