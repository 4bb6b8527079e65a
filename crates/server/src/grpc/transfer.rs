//! `ObjectTransfer`: other replicas take objects out of this one's memory.
//!
//! Nobody is asked who he is: a reference cannot be guessed, and whoever has one may read its object. What a chunk
//! carries is a slice of the object itself; gRPC copies it once, into the buffer that is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyserve_core::{Code, Error, HeldObject, LocalObjects, ObjRef, StoreId};
use anyserve_proto::v1::object_transfer_server::ObjectTransfer;
use anyserve_proto::v1::{IdentifyRequest, IdentifyResponse, PullChunk, PullHead, PullRequest};
use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::status::status;

/// Bytes of one chunk. With this much the cost of a chunk itself (a message, a call, a checksum) is lost in that of its
/// bytes, and a puller that leaves, or a deadline that passes, is noticed within a millisecond's worth of copying.
const CHUNK: usize = 1 << 20;

/// Pulls at the same time. Each holds an object, and a few chunks in the buffers of its connection.
const MAX_PULLS: usize = 64;

/// When to come back: a pull takes about as long.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How long a puller may take no chunk before its object is let go. Up to twice as long goes unnoticed.
const STALL: Duration = Duration::from_secs(30);

/// The trailer of a `NOT_FOUND` that says which store is here.
const STORE: &str = "x-anyserve-store";

/// The service.
#[derive(Debug)]
pub(super) struct Transfer {
    objects: Arc<dyn LocalObjects>,
    places: Arc<Semaphore>,
}

/// The answer to one pull. Dropping it lets the object go.
#[derive(Debug)]
pub(super) struct Chunks {
    pull: Arc<Shared>,
    _watch: AbortOnDropHandle<()>,
}

/// A pull as its stream and its watch see it; neither holds the lock for longer than one chunk takes.
type Shared = Mutex<State>;

/// Sending ──last chunk──► Ended
///    └──no chunk for STALL──► Stalled ──told──► Ended
#[derive(Debug)]
enum State {
    Sending(Box<Pull>),
    Stalled,
    Ended,
}

struct Pull {
    object: Bytes,
    remaining: Duration,
    sent: usize,
    whole: Xxh3,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

// === impl Transfer ===

impl Transfer {
    pub(super) fn new(objects: Arc<dyn LocalObjects>) -> Self {
        Self { objects, places: Arc::new(Semaphore::new(MAX_PULLS)) }
    }

    fn begin(&self, request: PullRequest) -> Result<Chunks, Error> {
        let PullRequest { store, index, generation } = request;
        let objref = ObjRef { store: StoreId(store), index, generation };
        let here = self.objects.store();
        if objref.store != here {
            let message = format!("{objref} is of the store {}, this is the store {here}", objref.store);
            return Err(Error::new(Code::NotFound, message));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| crowded())?;
        let object = self.objects.object(objref)?;
        Ok(Chunks::new(Pull::new(object, place)))
    }

    fn refuse(&self, error: &Error) -> Status {
        let mut status = status(error);
        if error.code == Code::NotFound
            && let Ok(store) = self.objects.store().to_string().parse()
        {
            status.metadata_mut().insert(STORE, store);
        }
        status
    }
}

fn crowded() -> Error {
    let message = format!("{MAX_PULLS} objects are being pulled from here already");
    Error::new(Code::Overloaded, message).with_retry_after(RETRY_AFTER)
}

#[tonic::async_trait]
impl ObjectTransfer for Transfer {
    type PullStream = Chunks;

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        Ok(Response::new(IdentifyResponse { store: self.objects.store().0 }))
    }

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Chunks>, Status> {
        self.begin(request.into_inner()).map(Response::new).map_err(|error| self.refuse(&error))
    }
}

// === impl Chunks ===

impl Chunks {
    fn new(pull: Pull) -> Self {
        let pull = Arc::new(Mutex::new(State::Sending(Box::new(pull))));
        let watch = tokio::spawn(watch(Arc::clone(&pull)));
        Self { pull, _watch: AbortOnDropHandle::new(watch) }
    }
}

impl Drop for Chunks {
    /// The watch, too, has the pull until it is gone, which may take a moment.
    fn drop(&mut self) {
        *self.pull.lock() = State::Ended;
    }
}

impl Stream for Chunks {
    type Item = Result<PullChunk, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.pull.lock().next())
    }
}

/// Lets the object go once nobody takes its chunks any more. A connection that takes nothing does not poll the stream
/// either, so that the stream cannot see to this itself.
async fn watch(pull: Arc<Shared>) {
    let mut before = pull.lock().sent();
    while before.is_some() {
        tokio::time::sleep(STALL).await;
        let mut state = pull.lock();
        let now = state.sent();
        if now.is_some() && now == before {
            *state = State::Stalled;
            return;
        }
        before = now;
    }
}

// === impl State ===

impl State {
    /// How far it is, if it is not over.
    fn sent(&self) -> Option<(bool, usize)> {
        if let Self::Sending(pull) = self { Some((pull.begun, pull.sent)) } else { None }
    }

    fn next(&mut self) -> Option<Result<PullChunk, Status>> {
        let (chunk, over) = match self {
            Self::Sending(pull) => {
                let chunk = pull.next();
                let over = chunk.whole.is_some();
                (Some(Ok(chunk)), over)
            }
            Self::Stalled => (Some(Err(stalled())), true),
            Self::Ended => (None, true),
        };
        if over {
            *self = Self::Ended;
        }
        chunk
    }
}

fn stalled() -> Status {
    let message = format!("no chunk was taken for {} s: the object was let go", STALL.as_secs());
    status(&Error::new(Code::Unavailable, message))
}

// === impl Pull ===

impl Pull {
    fn new(object: HeldObject, place: OwnedSemaphorePermit) -> Self {
        let HeldObject { bytes, lease } = object;
        Self { object: bytes, remaining: lease.ttl, sent: 0, whole: Xxh3::new(), begun: false, _place: place }
    }

    fn next(&mut self) -> PullChunk {
        let end = self.object.len().min(self.sent.saturating_add(CHUNK));
        let data = self.object.slice(self.sent..end);
        self.whole.update(&data);
        self.sent = end;
        let whole = (end == self.object.len()).then(|| self.whole.digest());
        PullChunk { head: self.head(), checksum: xxh3_64(&data), data, whole }
    }

    /// The head, once.
    fn head(&mut self) -> Option<PullHead> {
        let len = u64::try_from(self.object.len()).unwrap_or(u64::MAX);
        let remaining_ms = u64::try_from(self.remaining.as_millis()).unwrap_or(u64::MAX);
        (!std::mem::replace(&mut self.begun, true)).then_some(PullHead { len, remaining_ms })
    }
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { object, sent, .. } = self;
        f.debug_struct("Pull").field("len", &object.len()).field("sent", sent).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Lease, ObjectRoom};
    use futures_util::{FutureExt, StreamExt};

    const HERE: StoreId = StoreId(7);

    /// One object, at place 0.
    #[derive(Debug)]
    struct One(Bytes);

    impl LocalObjects for One {
        fn store(&self) -> StoreId {
            HERE
        }

        fn capacity(&self) -> usize {
            usize::MAX
        }

        fn object(&self, objref: ObjRef) -> Result<HeldObject, Error> {
            let lease = Lease { ttl: Duration::from_millis(1500), ..Lease::default() };
            let held = HeldObject { bytes: self.0.clone(), lease };
            (objref.index == 0).then_some(held).ok_or_else(|| Error::new(Code::NotFound, "gone"))
        }

        fn create(&self, _: usize) -> Result<Box<dyn ObjectRoom>, Error> {
            Err(Error::new(Code::ObjectStoreFull, "full"))
        }
    }

    fn transfer(bytes: impl Into<Bytes>) -> Transfer {
        Transfer::new(Arc::new(One(bytes.into())))
    }

    fn request(store: StoreId, index: u32) -> Request<PullRequest> {
        Request::new(PullRequest { store: store.0, index, generation: 1 })
    }

    async fn pull(transfer: &Transfer) -> Result<Chunks, Status> {
        transfer.pull(request(HERE, 0)).await.map(Response::into_inner)
    }

    #[tokio::test]
    async fn an_object_is_cut_into_chunks_that_are_slices_of_it() {
        for (len, chunks) in [(0, 1), (CHUNK - 1, 1), (CHUNK, 1), (CHUNK + 1, 2), (2 * CHUNK, 2)] {
            let object = Bytes::from((0..=250).cycle().take(len).collect::<Vec<u8>>());
            let sent: Vec<_> = pull(&transfer(object.clone())).await.unwrap().map(Result::unwrap).collect().await;
            assert_eq!(sent.len(), chunks, "{len} bytes");
            assert_eq!(sent.iter().flat_map(|chunk| chunk.data.clone()).collect::<Vec<_>>(), object);
            assert!(len == 0 || sent[0].data.as_ptr() == object.as_ptr());
            assert!(sent.iter().all(|chunk| chunk.checksum == xxh3_64(&chunk.data)));
            let head = PullHead { len: u64::try_from(len).unwrap(), remaining_ms: 1500 };
            assert_eq!(sent[0].head, Some(head));
            assert!(sent[1..].iter().all(|chunk| chunk.head.is_none()));
            assert_eq!(sent[chunks - 1].whole, Some(xxh3_64(&object)));
            assert!(sent[..chunks - 1].iter().all(|chunk| chunk.whole.is_none()));
        }
    }

    #[tokio::test]
    async fn what_is_not_here_is_not_found_and_the_answer_says_which_store_is() {
        let transfer = transfer("x");
        for (store, index, part) in [(HERE, 1, "gone"), (StoreId(8), 0, "store 0000000000000008, this is the store 00")]
        {
            let refused = transfer.pull(request(store, index)).await.unwrap_err();
            assert!(refused.message().contains(part), "{refused}");
            let trailers = ["x-anyserve-code", STORE].map(|name| refused.metadata().get(name).unwrap());
            assert_eq!(trailers, ["NOT_FOUND", "0000000000000007"]);
        }
        let identified = transfer.identify(Request::new(IdentifyRequest {})).await.unwrap();
        assert_eq!(identified.into_inner().store, HERE.0);
    }

    #[tokio::test]
    async fn one_pull_more_than_there_may_be_is_told_to_come_back() {
        let transfer = transfer("x");
        let mut pulls = Vec::new();
        for _ in 0..MAX_PULLS {
            pulls.push(pull(&transfer).await.unwrap());
        }
        let refused = pull(&transfer).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(refused.metadata().get("x-anyserve-code").unwrap(), "OVERLOADED");
        assert!(!refused.details().is_empty());
        pulls.pop();
        assert!(pull(&transfer).await.is_ok());
    }

    #[tokio::test]
    async fn an_object_is_let_go_with_its_last_chunk_or_when_its_puller_leaves() {
        let object = Bytes::from(vec![1; CHUNK + 1]);
        let transfer = transfer("x");
        let held = |object: &Bytes| HeldObject { bytes: object.clone(), lease: Lease::default() };
        let place = || Arc::clone(&transfer.places).try_acquire_owned().unwrap();
        let object = {
            let mut chunks = Chunks::new(Pull::new(held(&object), place()));
            while chunks.next().await.is_some() {}
            object.try_into_mut().expect("nobody else has it after the last chunk").freeze()
        };
        let mut chunks = Chunks::new(Pull::new(held(&object), place()));
        drop(chunks.next().await);
        drop(chunks);
        assert!(object.try_into_mut().is_ok(), "nobody else has it after the puller left");
        assert_eq!(transfer.places.available_permits(), MAX_PULLS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_whose_chunks_nobody_takes_is_let_go() {
        let transfer = transfer(vec![1; 3 * CHUNK]);
        let mut chunks = pull(&transfer).await.unwrap();
        for _ in 0..2 {
            assert!(chunks.next().await.unwrap().is_ok());
            tokio::time::sleep(STALL.checked_sub(Duration::from_millis(1)).unwrap()).await;
        }
        assert_eq!(transfer.places.available_permits(), MAX_PULLS - 1);
        tokio::time::sleep(2 * STALL).await;
        assert_eq!(transfer.places.available_permits(), MAX_PULLS);
        let told = chunks.next().now_or_never().flatten().unwrap().unwrap_err();
        assert_eq!(told.message(), "no chunk was taken for 30 s: the object was let go");
        assert!(chunks.next().await.is_none());
    }
}
