//! An etcd that a test plays: honest, with everything in memory, until it is told to lie.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyserve_proto::etcd::event::EventType;
use anyserve_proto::etcd::kv_server::{Kv, KvServer};
use anyserve_proto::etcd::lease_server::{Lease, LeaseServer};
use anyserve_proto::etcd::watch_server::{Watch, WatchServer};
use anyserve_proto::etcd::{self, watch_request::RequestUnion};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) const PREFIX: &str = "/anyserve/replicas/";

/// What it says instead of the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    #[default]
    None,
    /// It is of another cluster every time.
    OtherCluster,
    /// Each revision is before the last one, and the first is the last that there can be.
    Backwards,
    /// Changes of keys that nobody asked for.
    OthersKeys,
    /// Values that are no entries, in the list and as changes.
    Garbage,
    /// Values that nobody may write.
    Oversized,
    /// Entries as a later version may write them, one of them under another's key.
    OtherVersion,
    /// A lease with the id 0.
    NoLease,
    /// Leases that are over when they are granted.
    DeadLeases,
    /// What changed is not there any more, whenever it is asked for.
    Compacted,
    /// Nothing is answered.
    Silence,
    /// A million changes, of which each is nonsense.
    Flood,
    /// A list that goes on for ever with the same page.
    SamePage,
    /// A list that goes on for ever with new keys.
    EndlessList,
    /// Every watch is cancelled.
    Cancelled,
}

/// An etcd on a free port; it ends with this.
pub(crate) struct Played {
    pub(crate) address: SocketAddr,
    /// Told of every call that begins.
    pub(crate) called: Arc<Notify>,
    store: Arc<Store>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    lie: Lie,
    revision: i64,
    keys: BTreeMap<Bytes, etcd::KeyValue>,
    /// Every change, from revision 1 on.
    changes: Vec<etcd::Event>,
    leases: HashSet<i64>,
    next: i64,
}

struct Store {
    state: Mutex<State>,
    /// The revision, for those who watch.
    changed: watch::Sender<i64>,
    lies: AtomicUsize,
}

#[derive(Clone)]
struct Service(Arc<Store>);

// === impl Played ===

impl Played {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Mutex::new(State { next: 1, ..State::default() });
        let store = Arc::new(Store { state, changed: watch::Sender::new(0), lies: AtomicUsize::new(0) });
        let (service, called) = (Service(Arc::clone(&store)), Arc::new(Notify::new()));
        let tells = Arc::clone(&called);
        let note = move |request: Request<()>| {
            tells.notify_one();
            Ok(request)
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(KvServer::with_interceptor(service.clone(), note.clone()))
                .add_service(LeaseServer::with_interceptor(service.clone(), note.clone()))
                .add_service(WatchServer::with_interceptor(service, note));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, called, store, _tasks: tasks }
    }

    /// Lies like this from now on. Who watches is told that the watch is over.
    pub(crate) fn lies(&self, lie: Lie) {
        {
            let mut state = self.store.state.lock();
            state.lie = lie;
            if matches!(lie, Lie::NoLease | Lie::DeadLeases) {
                state.leases.clear();
            }
        }
        self.store.lies.store(0, Ordering::SeqCst);
        self.store.changed.send_modify(|_| {});
    }

    /// How often it has lied since it was told to lie like this.
    pub(crate) fn lied(&self) -> usize {
        self.store.lies.load(Ordering::SeqCst)
    }

    /// Has the entry of a replica that somebody else heard, with a field that is not known and so many bytes.
    pub(crate) fn holds(&self, id: &str, padding: usize) {
        let value = [later(id), vec![0xca, 0x3e], varint(padding), vec![0; padding]].concat();
        self.store.change(format!("{PREFIX}{id}").into(), Some((value.into(), 0)));
    }

    /// The names of those that it has keys of.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.store.state.lock();
        state.keys.keys().map(|key| String::from_utf8_lossy(&key[PREFIX.len()..]).into_owned()).collect()
    }
}

// === impl Store ===

impl Store {
    fn lie(&self) -> Lie {
        self.state.lock().lie
    }

    fn has_lease(&self, id: i64) -> bool {
        let state = self.state.lock();
        state.leases.contains(&id) && state.lie != Lie::DeadLeases
    }

    fn lied(&self) {
        self.lies.fetch_add(1, Ordering::SeqCst);
    }

    fn header(&self) -> etcd::ResponseHeader {
        let state = self.state.lock();
        let lies = i64::try_from(self.lies.load(Ordering::SeqCst)).unwrap();
        let (cluster, revision) = match state.lie {
            Lie::OtherCluster => (u64::try_from(lies).unwrap() + 8, state.revision),
            Lie::Backwards => (7, i64::MAX - lies),
            _ => (7, state.revision),
        };
        if matches!(state.lie, Lie::OtherCluster | Lie::Backwards) {
            self.lied();
        }
        etcd::ResponseHeader { cluster_id: cluster, member_id: 1, revision, raft_term: 1 }
    }

    fn change(&self, key: Bytes, put: Option<(Bytes, i64)>) {
        let mut state = self.state.lock();
        state.revision += 1;
        let mod_revision = state.revision;
        let kind = if put.is_some() { EventType::Put } else { EventType::Delete };
        let (value, lease) = put.unwrap_or_default();
        let kv = etcd::KeyValue { key: key.clone(), value, lease, mod_revision, ..Default::default() };
        match kind {
            EventType::Put => drop(state.keys.insert(key, kv.clone())),
            EventType::Delete => drop(state.keys.remove(&key)),
        }
        state.changes.push(etcd::Event { r#type: kind.into(), kv: Some(kv) });
        let revision = state.revision;
        drop(state);
        self.changed.send_replace(revision);
    }

    fn range(&self, asked: &etcd::RangeRequest) -> (Vec<etcd::KeyValue>, bool) {
        let state = self.state.lock();
        let found = state.keys.range(asked.key.clone()..asked.range_end.clone().max(asked.key.clone()));
        let mut found: Vec<_> = found.map(|(_, kv)| kv.clone()).collect();
        let limit = usize::try_from(asked.limit).unwrap();
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        (found, more)
    }

    /// What is listed by somebody who lies.
    fn false_page(&self, asked: &etcd::RangeRequest) -> Option<(Vec<etcd::KeyValue>, bool)> {
        let lie = self.lie();
        let page = match lie {
            Lie::Garbage | Lie::Oversized | Lie::OtherVersion => (wrong(lie), false),
            Lie::SamePage => (wrong(Lie::Garbage), true),
            Lie::EndlessList => ((0..=255).map(|number| after(&asked.key, number)).collect(), true),
            _ => return None,
        };
        self.lied();
        Some(page)
    }
}

/// A key with garbage that comes after another one.
fn after(key: &Bytes, number: u8) -> etcd::KeyValue {
    // Keys that become longer are in their order whatever they are.
    let stem = if key.ends_with(b"\0") { &key[..key.len() - 1] } else { &key[..] };
    let next: u64 = std::str::from_utf8(&stem[PREFIX.len().min(stem.len())..]).unwrap().parse().unwrap_or(0);
    let key = format!("{PREFIX}{:020}", next + 1 + u64::from(number));
    etcd::KeyValue { key: key.into(), value: Bytes::from_static(b"\xff"), ..Default::default() }
}

/// Keys with values that they may not have.
fn wrong(lie: Lie) -> Vec<etcd::KeyValue> {
    let kv = |name: &str, value: Vec<u8>| etcd::KeyValue {
        key: format!("{PREFIX}{name}").into(),
        value: value.into(),
        ..Default::default()
    };
    match lie {
        Lie::Oversized => vec![kv("large", vec![0; (1 << 20) + 1]), kv("larger", vec![10; 8 << 20])],
        Lie::OtherVersion => vec![kv("later", later("later")), kv("somebody", later("else"))],
        _ => vec![kv("empty", vec![]), kv("garbage", vec![0xff; 100]), kv(&"x".repeat(10_000), vec![0xff; 9])],
    }
}

/// An entry with fields that are not known yet.
fn later(id: &str) -> Vec<u8> {
    use prost::Message as _;
    let registration = crate::support::registration(id, 1, 1, &["later"]);
    let stored = anyserve_proto::v1::StoredReplica { registration: Some(registration), ..Default::default() };
    // Field 1000, a varint; and field 1001, a text.
    [stored.encode_to_vec(), vec![0xc0, 0x3e, 1], vec![0xca, 0x3e, 3, b'n', b'e', b'w']].concat()
}

/// A number as messages have it.
fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

// === impl Service ===

impl Service {
    /// Never returns while it is silent.
    async fn may_answer(&self) {
        if self.0.lie() == Lie::Silence {
            self.0.lied();
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<etcd::RangeRequest>) -> Result<Response<etcd::RangeResponse>, Status> {
        self.may_answer().await;
        let asked = request.into_inner();
        let header = Some(self.0.header());
        if asked.count_only {
            return Ok(Response::new(etcd::RangeResponse { header, ..Default::default() }));
        }
        let (kvs, more) = self.0.false_page(&asked).unwrap_or_else(|| self.0.range(&asked));
        Ok(Response::new(etcd::RangeResponse { header, kvs, more, ..Default::default() }))
    }

    async fn put(&self, request: Request<etcd::PutRequest>) -> Result<Response<etcd::PutResponse>, Status> {
        self.may_answer().await;
        let asked = request.into_inner();
        if !self.0.state.lock().leases.contains(&asked.lease) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        self.0.change(asked.key, Some((asked.value, asked.lease)));
        Ok(Response::new(etcd::PutResponse { header: Some(self.0.header()) }))
    }

    async fn delete_range(
        &self,
        request: Request<etcd::DeleteRangeRequest>,
    ) -> Result<Response<etcd::DeleteRangeResponse>, Status> {
        self.may_answer().await;
        self.0.change(request.into_inner().key, None);
        Ok(Response::new(etcd::DeleteRangeResponse { header: Some(self.0.header()), deleted: 1 }))
    }
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(
        &self,
        request: Request<etcd::LeaseGrantRequest>,
    ) -> Result<Response<etcd::LeaseGrantResponse>, Status> {
        self.may_answer().await;
        let ttl = request.into_inner().ttl;
        let (header, mut state) = (Some(self.0.header()), self.0.state.lock());
        let id = if state.lie == Lie::NoLease { 0 } else { state.next };
        state.next += 1;
        if matches!(state.lie, Lie::NoLease | Lie::DeadLeases) {
            self.0.lied();
        } else {
            state.leases.insert(id);
        }
        Ok(Response::new(etcd::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<etcd::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<etcd::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.may_answer().await;
        let store = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |asked| {
            let id = asked?.id;
            let lives = store.has_lease(id);
            Ok(etcd::LeaseKeepAliveResponse { header: Some(store.header()), id, ttl: if lives { 5 } else { 0 } })
        });
        Ok(Response::new(answers.boxed()))
    }
}

type Watched = Pin<Box<dyn Stream<Item = Result<etcd::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Watched;

    async fn watch(&self, request: Request<Streaming<etcd::WatchRequest>>) -> Result<Response<Watched>, Status> {
        self.may_answer().await;
        let asked = request.into_inner().next().await.unwrap()?;
        let Some(RequestUnion::CreateRequest(create)) = asked.request_union else {
            return Err(Status::invalid_argument("no watch is created"));
        };
        let lie = self.0.lie();
        let created = etcd::WatchResponse { header: Some(self.0.header()), created: true, ..Default::default() };
        let created = stream::iter([Ok(created)]);
        let honest = honest(Arc::clone(&self.0), lie, create.start_revision);
        Ok(Response::new(created.chain(self.0.false_watch(lie).chain(honest)).boxed()))
    }
}

impl Store {
    /// What a watch says that lies, before it goes on honestly.
    fn false_watch(self: &Arc<Self>, lie: Lie) -> Watched {
        let of = |more: etcd::WatchResponse| -> Watched {
            self.lied();
            stream::iter([Ok(etcd::WatchResponse { header: Some(self.header()), ..more })]).boxed()
        };
        let put = |kv| etcd::Event { r#type: EventType::Put.into(), kv: Some(kv) };
        match lie {
            Lie::Compacted => of(etcd::WatchResponse { canceled: true, compact_revision: 5, ..Default::default() }),
            Lie::Cancelled => {
                of(etcd::WatchResponse { canceled: true, cancel_reason: "no".repeat(100_000), ..Default::default() })
            }
            Lie::Garbage | Lie::Oversized | Lie::OtherVersion => {
                of(etcd::WatchResponse { events: wrong(lie).into_iter().map(put).collect(), ..Default::default() })
            }
            Lie::OthersKeys => {
                let names = ["", "/", "/anyserve/replicas", "/anyserve/replicas0", "zzz", "\u{ff}"];
                let events = names.map(|name| put(etcd::KeyValue { key: name.into(), ..Default::default() }));
                let nothing = etcd::Event { r#type: 77, kv: None };
                of(etcd::WatchResponse { events: events.into_iter().chain([nothing]).collect(), ..Default::default() })
            }
            Lie::Flood => self.flood(),
            _ => stream::empty().boxed(),
        }
    }

    /// A million events, a thousand at once: garbage, nothing, and keys that are gone.
    fn flood(self: &Arc<Self>) -> Watched {
        let store = Arc::clone(self);
        let events: Vec<_> = (0..1000)
            .map(|number| {
                let name = format!("{PREFIX}flood-{number}");
                let kind = if number % 2 == 0 { EventType::Put } else { EventType::Delete };
                let value = if number % 4 == 0 { Bytes::from_static(b"\xff") } else { Bytes::new() };
                let kv = etcd::KeyValue { key: name.into(), value, ..Default::default() };
                etcd::Event { r#type: kind.into(), kv: (number % 10 != 9).then_some(kv) }
            })
            .collect();
        let answer = etcd::WatchResponse { events, ..Default::default() };
        let all = stream::iter(0..1000).map(move |_| {
            store.lied();
            Ok(answer.clone())
        });
        all.boxed()
    }
}

/// Every change from a revision on, as long as nothing else is said.
fn honest(store: Arc<Store>, lie: Lie, from: i64) -> Watched {
    let changed = store.changed.subscribe();
    let next = usize::try_from(from.max(1) - 1).unwrap_or(usize::MAX);
    let all = stream::unfold((store, changed, next), move |(store, mut changed, next)| async move {
        loop {
            let (events, over) = {
                let state = store.state.lock();
                (state.changes.get(next..).unwrap_or_default().to_vec(), state.lie != lie)
            };
            if over {
                return Some((Err(Status::unavailable("it thinks otherwise now")), (store, changed, next)));
            }
            if !events.is_empty() {
                let count = events.len();
                let answer = etcd::WatchResponse { header: Some(store.header()), events, ..Default::default() };
                return Some((Ok(answer), (store, changed, next + count)));
            }
            changed.changed().await.ok()?;
        }
    });
    all.boxed()
}
