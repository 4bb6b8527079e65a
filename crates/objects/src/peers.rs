//! The other replicas that objects are pulled from.
//!
//! They are those that the operator named, and no other: neither a reference nor a client can make this replica connect
//! anywhere. A peer's store is learnt by asking and believed until it turns out to be another, after a restart say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_client::{Endpoint, Tls, channel, from_status};
use anyserve_core::{Code, Error, LocalObjects, ObjRef, StoreId};
use anyserve_proto::v1::object_transfer_client::ObjectTransferClient;
use anyserve_proto::v1::{IdentifyRequest, PullChunk, PullRequest};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::assembly::{Assembly, AssemblyError, Progress, Whole};
use crate::flights::Flights;
use crate::plan::{Peer, Setback};

/// Where objects of other replicas are pulled from. Clones share connections and what was learnt.
#[derive(Clone, Debug)]
pub struct Peers {
    all: Arc<[Remote]>,
    asks: Arc<Flights<(), Option<Error>>>,
}

/// One replica.
#[derive(Debug)]
struct Remote {
    endpoint: Endpoint,
    grpc: ObjectTransferClient<Channel>,
    /// The store that it had when it was last asked. Held for a read or a write, never across anything.
    store: Mutex<Option<StoreId>>,
}

/// How a pull ended without the object.
pub(crate) enum PullError {
    /// The peer's end: another try, or another place, may have it.
    SetBack(Setback),
    /// This end has no room.
    Here(Error),
}

/// A list of peers that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeersError {
    /// More than a replica can keep in touch with.
    #[error("{have} peers are more than {max}")]
    TooMany {
        /// How many were given.
        have: usize,
        /// How many there may be.
        max: usize,
    },
    /// No secure connection can be made.
    #[error(transparent)]
    Tls(Error),
}

/// Most peers that a replica may have.
const MAX_PEERS: usize = 256;
/// Peers that are asked at the same time, and how long each may take.
const ASKED_AT_ONCE: usize = 16;
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer may send nothing in the midst of an object.
const STALL: Duration = Duration::from_secs(30);
/// Longest message of a peer: a chunk of 1 MiB and what says so.
const MAX_MESSAGE: usize = (1 << 20) + 256;
/// Peers that an error names.
const NAMED: usize = 3;
/// The trailer of a `NOT_FOUND` that says which store is there.
const STORE: &str = "x-anyserve-store";

// === impl Peers ===

impl Peers {
    /// The replicas at these endpoints, with TLS like this where one is `https://`. Nothing is sent before an object is
    /// asked for.
    ///
    /// # Errors
    /// [`PeersError`] for too many of them, and for TLS options that cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime; the connections live on the one this is called in.
    pub fn try_new(endpoints: Vec<Endpoint>, tls: &Tls) -> Result<Self, PeersError> {
        let have = endpoints.len();
        if have > MAX_PEERS {
            return Err(PeersError::TooMany { have, max: MAX_PEERS });
        }
        let all = endpoints.into_iter().map(|endpoint| Remote::try_new(endpoint, tls));
        let all = all.collect::<Result<_, _>>().map_err(PeersError::Tls)?;
        Ok(Self { all, asks: Arc::new(Flights::new()) })
    }

    /// Who is known to have a store.
    pub(crate) fn with(&self, store: StoreId) -> Option<Peer> {
        self.all.iter().position(|remote| *remote.store.lock() == Some(store)).map(Peer)
    }

    /// Asks everybody which store is there. The error names those who did not say.
    ///
    /// # Cancel safety
    /// Safe; who asks at the same time waits for the same answers.
    pub(crate) async fn ask(&self) -> Option<Error> {
        let all = Arc::clone(&self.all);
        let work = async move {
            let places = futures_util::stream::iter(0..all.len());
            let silent = places.map(|place| identify(Arc::clone(&all), place)).buffered(ASKED_AT_ONCE);
            let silent: Vec<String> = silent.filter_map(std::future::ready).collect().await;
            (!silent.is_empty()).then(|| unanswered(&silent))
        };
        self.asks.join((), work).await
    }

    /// Pulls an object from a peer into the store here.
    ///
    /// # Cancel safety
    /// Dropping it ends the pull and gives the room back.
    pub(crate) async fn pull(
        &self,
        Peer(place): Peer,
        objref: ObjRef,
        objects: &dyn LocalObjects,
    ) -> Result<ObjRef, PullError> {
        let remote = &self.all[place];
        let (whole, began) = remote.read(objref, objects).await?;
        let sealed = whole.seal(began.elapsed()).map_err(PullError::Here)?;
        sealed.ok_or(PullError::SetBack(Setback::Gone))
    }
}

/// Asks one peer. Its name, if it does not say.
async fn identify(all: Arc<[Remote]>, place: usize) -> Option<String> {
    let remote = &all[place];
    let mut grpc = remote.grpc.clone();
    let answer = tokio::time::timeout(ASK_TIMEOUT, grpc.identify(IdentifyRequest {})).await;
    let store = answer.ok().and_then(Result::ok).map(|answer| StoreId(answer.into_inner().store));
    *remote.store.lock() = store;
    store.is_none().then(|| remote.endpoint.to_string())
}

fn unanswered(silent: &[String]) -> Error {
    let named = silent[..silent.len().min(NAMED)].join(", ");
    let more = silent.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let message = format!("no replica that answers has the object's store; those that do not: {named}{more}");
    Error::new(Code::Unavailable, message)
}

// === impl Remote ===

impl Remote {
    fn try_new(endpoint: Endpoint, tls: &Tls) -> Result<Self, Error> {
        let channel = channel(&endpoint, tls)?;
        let grpc = ObjectTransferClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { endpoint, grpc, store: Mutex::new(None) })
    }

    /// Reads an object to its end, and says when its first chunk came.
    async fn read(&self, objref: ObjRef, objects: &dyn LocalObjects) -> Result<(Whole, Instant), PullError> {
        let ObjRef { store, index, generation } = objref;
        let request = PullRequest { store: store.0, index, generation };
        let mut grpc = self.grpc.clone();
        let answer = tokio::time::timeout(STALL, grpc.pull(request)).await.map_err(|_| self.silent(objref))?;
        let mut chunks = answer.map_err(|status| self.refused(objref, &status))?.into_inner();
        let first = self.next(objref, &mut chunks, 0, 0).await?;
        let began = Instant::now();
        let mut progress = Assembly::begin(&first, objects);
        loop {
            match progress.map_err(|error| self.wrong(objref, error))? {
                Progress::Whole(whole) => return Ok((whole, began)),
                Progress::More(assembly) => {
                    let chunk = self.next(objref, &mut chunks, assembly.have(), assembly.len()).await?;
                    progress = assembly.add(&chunk);
                }
            }
        }
    }

    /// The next chunk; `have` of `len` bytes are there.
    async fn next(
        &self,
        objref: ObjRef,
        chunks: &mut Streaming<PullChunk>,
        have: usize,
        len: usize,
    ) -> Result<PullChunk, PullError> {
        let chunk = tokio::time::timeout(STALL, chunks.message()).await.map_err(|_| self.silent(objref))?;
        let chunk = chunk.map_err(|status| self.refused(objref, &status))?;
        chunk.ok_or_else(|| self.broken(objref, &format!("it ends at byte {have} of {len}")))
    }

    fn silent(&self, objref: ObjRef) -> PullError {
        self.broken(objref, &format!("nothing came for {} s", STALL.as_secs()))
    }

    fn wrong(&self, objref: ObjRef, error: AssemblyError) -> PullError {
        match error {
            AssemblyError::Room(error) => PullError::Here(error),
            AssemblyError::TooLarge { .. } => PullError::Here(Error::new(
                Code::ObjectStoreFull,
                format!("{objref} cannot be pulled from {}: {error}", self.endpoint),
            )),
            error => self.broken(objref, &error.to_string()),
        }
    }

    fn broken(&self, objref: ObjRef, why: &str) -> PullError {
        let message = format!("{objref} cannot be pulled from {}: {why}", self.endpoint);
        PullError::SetBack(Setback::Broken(Error::new(Code::Unavailable, message)))
    }

    fn refused(&self, objref: ObjRef, status: &Status) -> PullError {
        let error = from_status(status, &self.endpoint, None);
        match error.code {
            Code::NotFound => PullError::SetBack(self.not_found(objref, status)),
            Code::Overloaded => PullError::SetBack(Setback::Busy(error.retry_after)),
            _ => self.broken(objref, &error.message),
        }
    }

    /// The object may be gone, or the whole store that it was in.
    fn not_found(&self, objref: ObjRef, status: &Status) -> Setback {
        let said = status.metadata().get(STORE).and_then(|text| text.to_str().ok());
        let Some(store) = said.and_then(|text| u64::from_str_radix(text, 16).ok()) else { return Setback::Gone };
        *self.store.lock() = Some(StoreId(store));
        if StoreId(store) == objref.store { Setback::Gone } else { Setback::Moved }
    }
}
