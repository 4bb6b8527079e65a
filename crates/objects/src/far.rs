//! Objects that are not in this replica's memory: with the other replicas, and in the store for durable ones.

use std::sync::Arc;
use std::time::Instant;

use anyserve_core::{Code, Elsewhere, Error, FarObjects, LocalObjects, ObjRef};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::flights::Flights;
use crate::peers::{Peers, PullError};
use crate::plan::{Plan, Step};
use crate::spill::{Spill, janitor};

/// The [`FarObjects`] of a replica.
#[derive(Debug)]
pub struct FarStore {
    inner: Arc<Inner>,
    fetches: Flights<ObjRef, Result<ObjRef, Error>>,
    _janitor: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    local: Arc<dyn LocalObjects>,
    peers: Peers,
    spill: Option<Spill>,
    /// The copy here of an object from elsewhere, by the object's own reference. The copy may be gone.
    copies: Cache<ObjRef, ObjRef>,
    /// Places for those who bring an object here.
    places: Semaphore,
}

/// Copies that are remembered. One that is forgotten is pulled again.
const MAX_COPIES: usize = 1 << 16;
/// Objects that are brought here at the same time; others wait their turn.
const MAX_FETCHES: usize = 16;

// === impl FarStore ===

impl FarStore {
    /// Finds for `local` what is with `peers` and in `spill`.
    ///
    /// # Panics
    /// Outside a tokio runtime: what is in `spill` is swept on it, until this is dropped.
    pub fn start(local: Arc<dyn LocalObjects>, peers: Peers, spill: Option<Spill>) -> Arc<Self> {
        let janitor = spill.clone().map(|spill| AbortOnDropHandle::new(tokio::spawn(janitor(spill))));
        let (copies, places) = (Cache::new(MAX_COPIES), Semaphore::new(MAX_FETCHES));
        let inner = Arc::new(Inner { local, peers, spill, copies, places });
        Arc::new(Self { inner, fetches: Flights::new(), _janitor: janitor })
    }
}

fn no_spill() -> Error {
    let message = "there is no store for durable objects: start the replica with --object-spill";
    Error::new(Code::Unsupported, message)
}

impl FarObjects for FarStore {
    fn fetch(&self, objref: ObjRef, deadline: Option<Instant>) -> Elsewhere<ObjRef> {
        if let Some(here) = self.inner.here(objref) {
            return Box::pin(std::future::ready(Ok(here)));
        }
        let inner = Arc::clone(&self.inner);
        let flight = self.fetches.join(objref, async move { inner.bring(objref).await });
        Box::pin(within(deadline, flight, move || format!("the deadline passed before {objref} was here")))
    }

    fn keep(&self, objref: ObjRef, key: Option<String>) -> Elsewhere<()> {
        let (spill, object) = (self.inner.spill.clone().ok_or_else(no_spill), self.inner.local.object(objref));
        Box::pin(async move { spill?.keep(objref, object?, key.as_deref()).await })
    }

    fn lookup(&self, key: String, deadline: Option<Instant>) -> Elsewhere<Option<ObjRef>> {
        let Some(spill) = self.inner.spill.clone() else { return Box::pin(std::future::ready(Ok(None))) };
        let found = async move { spill.lookup(&key).await };
        Box::pin(within(deadline, found, || "the deadline passed before the key was found".to_owned()))
    }

    fn delete(&self, objref: ObjRef) -> Elsewhere<bool> {
        self.inner.copies.remove(&objref);
        let Some(spill) = self.inner.spill.clone() else { return Box::pin(std::future::ready(Ok(false))) };
        Box::pin(async move { spill.delete(objref).await })
    }
}

async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
    message: impl FnOnce() -> String,
) -> Result<T, Error> {
    let Some(deadline) = deadline else { return work.await };
    let ended = tokio::time::timeout_at(deadline.into(), work).await;
    ended.unwrap_or_else(|_| Err(Error::new(Code::Deadline, message())))
}

// === impl Inner ===

impl Inner {
    /// The object, or the copy of it, that is here now.
    fn here(&self, objref: ObjRef) -> Option<ObjRef> {
        let own = (objref.store == self.local.store()).then_some(objref);
        let candidates = [own, self.copies.get(&objref)].into_iter().flatten();
        candidates.into_iter().find(|candidate| self.local.object(*candidate).is_ok())
    }

    /// Finds an object wherever it is and copies it here.
    async fn bring(&self, objref: ObjRef) -> Result<ObjRef, Error> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let copy = if objref.store == self.local.store() {
            self.durable(objref).await?.ok_or_else(|| gone(objref))?
        } else {
            self.search(objref).await?
        };
        self.copies.insert(objref, copy);
        Ok(copy)
    }

    async fn search(&self, objref: ObjRef) -> Result<ObjRef, Error> {
        let (mut plan, mut step) = Plan::begin(objref, self.peers.with(objref.store));
        loop {
            step = match step {
                Step::Ask => {
                    let silent = self.peers.ask().await;
                    plan.asked(self.peers.with(objref.store), silent)
                }
                Step::Pull(peer, after) => {
                    tokio::time::sleep(after).await;
                    match self.peers.pull(peer, objref, &*self.local).await {
                        Ok(copy) => return Ok(copy),
                        Err(PullError::SetBack(by)) => plan.set_back(peer, by),
                        Err(PullError::Here(error)) => return Err(error),
                    }
                }
                Step::Durable => return self.durable(objref).await?.ok_or_else(|| plan.missing()),
            };
        }
    }

    async fn durable(&self, objref: ObjRef) -> Result<Option<ObjRef>, Error> {
        match &self.spill {
            Some(spill) => spill.fetch(objref, &*self.local).await,
            None => Ok(None),
        }
    }
}

fn gone(objref: ObjRef) -> Error {
    Error::new(Code::NotFound, format!("{objref} is gone: it was here, and it is no durable object"))
}
