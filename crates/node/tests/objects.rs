//! Two replicas' ports, and objects that go from the memory of one to that of the other.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyserve_client::Tls;
use anyserve_core::{
    Catalog, Changed, Code, Control, Decision, Directory, Error, Explanation, FarObjects, Fingerprint, Lease,
    LocalObjects, Obeyed, ObjRef, Order, Quarantined, Reply, Request, Snapshot, Statistics, Status, StoreId,
};
use anyserve_objects::{FarStore, Peers};
use anyserve_server::{Listener, Server, ServerConfig};
use anyserve_testkit::Shelf;
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;

/// Nothing is served but objects.
#[derive(Clone)]
struct Nothing;

impl tower::Service<Request> for Nothing {
    type Response = Reply;
    type Error = Error;
    type Future = std::future::Ready<Result<Reply, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        std::future::ready(Err(nothing()))
    }
}

fn nothing() -> Error {
    Error::new(Code::NoCapability, "nothing is served")
}

impl Directory for Nothing {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::default()
    }

    fn statistics(&self, _: usize) -> Option<Statistics> {
        None
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }

    fn changed(&self, _: u64) -> Changed {
        Box::pin(std::future::pending())
    }

    fn explain(&self, request: &Request) -> Explanation {
        let decision = Decision::Refuse(nothing());
        Explanation { query: request.query.to_string(), candidates: Vec::new(), decision }
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        Vec::new()
    }

    fn release(&self, _: Option<Fingerprint>) -> usize {
        0
    }
}

impl Control for Nothing {
    fn status(&self) -> Status {
        Status::default()
    }

    fn order(&self, _: Order) -> Obeyed {
        Box::pin(std::future::ready(Err(Error::new(Code::Unsupported, "there are no workers"))))
    }

    fn give_up(&self) {}
}

/// A replica without workers.
struct Replica {
    address: SocketAddr,
    shelf: Shelf,
    serving: JoinHandle<()>,
}

impl Replica {
    fn start(store: u64) -> Self {
        Self::start_with(Some(Shelf::new(store, 128 * MIB)))
    }

    fn start_with(shelf: Option<Shelf>) -> Self {
        let objects = shelf.clone().map(|shelf| Arc::new(shelf) as Arc<dyn LocalObjects>);
        let config = ServerConfig { objects, ..ServerConfig::default() };
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr();
        let serving = Server::try_new(&config, Nothing).unwrap().serve(listener, CancellationToken::new());
        let serving = tokio::spawn(async { drop(serving.await) });
        Self { address, shelf: shelf.unwrap_or_else(|| Shelf::new(0, 0)), serving }
    }

    /// What finds objects for a replica with these peers.
    fn far(&self, peers: &[&Self]) -> Arc<FarStore> {
        let endpoints = peers.iter().map(|peer| peer.address.to_string().parse().unwrap()).collect();
        FarStore::start(Arc::new(self.shelf.clone()), Peers::try_new(endpoints, &Tls::default()).unwrap(), None)
    }

    fn put(&self, bytes: &[u8]) -> ObjRef {
        let lease = Lease { ttl: Duration::from_mins(1), ..Lease::default() };
        self.shelf.put(bytes, lease).unwrap()
    }

    fn bytes(&self, objref: ObjRef) -> Bytes {
        self.shelf.object(objref).unwrap().bytes
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = (0..=250).collect::<Vec<u8>>().repeat(len / 251 + 1);
    bytes.truncate(len);
    bytes
}

async fn watchdog<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), work).await.expect("nothing happened for 60 seconds")
}

#[tokio::test]
async fn objects_of_every_length_go_from_one_replica_to_the_other() {
    let (one, other) = (Replica::start(1), Replica::start(2));
    // The list of a fleet is the same everywhere: a replica is a peer of its own.
    let (far, back) = (other.far(&[&one, &other]), one.far(&[&one, &other]));
    for len in [0, 1, MIB - 1, MIB, MIB + 1, 64 * MIB] {
        let made = one.put(&bytes(len));
        let copy = watchdog(far.fetch(made, None)).await.unwrap();
        assert_eq!(copy.store, StoreId(2));
        assert!(other.bytes(copy) == one.bytes(made), "{len} bytes");
        // A copy is an object like any other, and is copied under its own name.
        let again = watchdog(back.fetch(copy, None)).await.unwrap();
        assert!(one.bytes(again) == one.bytes(made), "{len} bytes");
        assert!(one.shelf.evict(made) && one.shelf.evict(again) && other.shelf.evict(copy));
    }
    assert_eq!((one.shelf.used(), other.shelf.used()), (0, 0));
}

#[tokio::test]
async fn what_a_replica_does_not_have_is_not_found() {
    let (one, other) = (Replica::start(1), Replica::start(2));
    let far = other.far(&[&one]);
    let made = one.put(b"x");
    assert!(watchdog(far.fetch(made, None)).await.is_ok());
    let gone = ObjRef { generation: 99, ..made };
    assert_eq!(watchdog(far.fetch(gone, None)).await.unwrap_err().code, Code::NotFound);
    let elsewhere = ObjRef { store: StoreId(3), ..made };
    assert_eq!(watchdog(far.fetch(elsewhere, None)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_replica_that_is_killed_in_the_midst_is_named_and_the_room_given_back() {
    let (one, other) = (Replica::start(1), Replica::start(2));
    let far = other.far(&[&one]);
    let made = one.put(&bytes(64 * MIB));
    let fetched = tokio::spawn(far.fetch(made, None));
    watchdog(async {
        while other.shelf.used() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    one.serving.abort();
    let error = watchdog(fetched).await.unwrap().unwrap_err();
    assert_eq!((error.code, other.shelf.used()), (Code::Unavailable, 0));
    assert!(error.message.contains(&one.address.to_string()), "{error}");
}

#[tokio::test]
async fn a_replica_lets_an_object_go_whose_puller_leaves() {
    let (one, other) = (Replica::start(1), Replica::start(2));
    let far = other.far(&[&one]);
    let made = one.put(&bytes(64 * MIB));
    let fetched = tokio::spawn(far.fetch(made, Some(Instant::now() + Duration::from_mins(1))));
    watchdog(async {
        while other.shelf.used() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    fetched.abort();
    let _ = fetched.await;
    assert_eq!(other.shelf.used(), 0);
    let mut held = one.bytes(made);
    assert!(one.shelf.evict(made));
    watchdog(async {
        loop {
            match held.try_into_mut() {
                Ok(_) => return,
                Err(shared) => held = shared,
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_without_an_object_plane_has_nothing_to_pull() {
    let (none, other) = (Replica::start_with(None), Replica::start(2));
    let objref = ObjRef { store: StoreId(1), index: 0, generation: 1 };
    let error = watchdog(other.far(&[&none]).fetch(objref, None)).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&none.address.to_string()), "{error}");
}
