//! The object plane's frames: what workers want of it, and what they are answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, FarObjects, ObjRef, StoreId, StoreLoad};
use anyserve_sched::WorkerId;
use anyserve_shm::{BlockId, Extent, Lease, MAX_KEY, Owner, Plane, Usage, Writer};
use anyserve_wire::{Frame, Kind, message};

use crate::SharedMemory;
use crate::dispatch::Inner;
use crate::far::{Far, FarCall};
use crate::link::{Link, LinkError};
use crate::receive::protocol;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Room for it to write to.
    Room(Extent),
    /// The object; none under that key, or none to delete.
    Object(Option<ObjRef>),
    /// A description.
    Stat(message::Stat),
    /// Why there is none.
    Failed(Error),
}

/// How often blocks that nobody finds any more are looked after.
const TIDY: Duration = Duration::from_millis(50);
/// Blocks that a worker may go on reading before the log says so.
const MANY_KEPT: usize = 1000;
/// How often what workers keep is counted, in tidyings.
const COUNT_EVERY: u32 = 20;

// === impl Inner ===

impl Inner {
    /// Takes one of the object plane's frames. True if something has to be flushed to this worker.
    pub(crate) fn object(&self, link: &Link, frame: &Frame) -> Result<bool, LinkError> {
        let done = match frame.kind {
            Kind::Put => self.put(link, &frame.message()?).map(Some),
            Kind::Sealed => self.sealed(link, frame.id, frame.message()?),
            Kind::Get => self.get(link, frame.id, frame.message()?),
            _ => self.release(link, frame.id, &frame.message()?),
        };
        let answer = match done {
            Ok(None) => return Ok(false),
            Ok(Some(answer)) => answer,
            Err(Wrong::Refused(error)) if frame.id == 0 => {
                tracing::debug!(worker = self.name_of(link.worker), %error, kind = ?frame.kind, "nobody waits for it");
                return Ok(false);
            }
            Err(Wrong::Refused(error)) => Answer::Failed(error),
            Err(Wrong::Broken(error)) => return Err(error),
        };
        link.push_answer(&answer.frame(frame.id))?;
        Ok(true)
    }

    fn put(&self, link: &Link, put: &message::Put) -> Result<Answer, Wrong> {
        let extent = self.plane()?.grant(put.len, Writer::Worker(link.owner()), put.ahead).map_err(Error::from)?;
        Ok(Answer::Room(extent))
    }

    fn sealed(&self, link: &Link, id: u64, sealed: message::Sealed) -> Result<Option<Answer>, Wrong> {
        let message::Sealed { block, len, key, ttl_ms, cacheable, durable, answer } = sealed;
        let block = block_of(block)?;
        if key.len() > MAX_KEY {
            let text = format!("a key has {} bytes, at most {MAX_KEY} are allowed", key.len());
            return Err(Error::invalid(text).into());
        }
        if durable {
            far(&self.config.memory)?;
        }
        let key = Some(key).filter(|key| !key.is_empty());
        let lease = Lease { ttl: Duration::from_millis(ttl_ms), key: key.clone(), cacheable, durable };
        let owner = Writer::Worker(link.owner());
        let objref = self.plane()?.seal(block, owner, len, lease).map_err(Error::from)?;
        if durable {
            return ask_far(link, id, Far::Keep { objref, key });
        }
        Ok(answer.then_some(Answer::Object(Some(objref))))
    }

    fn get(&self, link: &Link, id: u64, get: message::Get) -> Result<Option<Answer>, Wrong> {
        let message::Get { wanted, remaining_us, describe } = get;
        let remaining = remaining_us.checked_sub(1).map(Duration::from_micros);
        let deadline = remaining.and_then(|remaining| Instant::now().checked_add(remaining));
        let plane = self.plane()?;
        match wanted {
            None => Ok(Some(store_stat(plane))),
            Some(message::Wanted::Key(key)) => match plane.lookup(&key) {
                None if self.config.memory.far.is_some() => ask_far(link, id, Far::Lookup { key, deadline }),
                found => Ok(Some(Answer::Object(found))),
            },
            Some(message::Wanted::Object(object)) => {
                let objref = objref_of(object);
                let here = if describe { self.describe(objref) } else { here(plane, objref) };
                match here {
                    Err(error) if error.code == Code::NotFound && self.config.memory.far.is_some() => {
                        ask_far(link, id, Far::Fetch { objref, deadline, describe })
                    }
                    here => Ok(Some(here?)),
                }
            }
        }
    }

    fn release(&self, link: &Link, id: u64, release: &message::Release) -> Result<Option<Answer>, Wrong> {
        if let Some(object) = release.object {
            let objref = objref_of(object);
            let deleted = self.plane()?.delete(objref);
            if self.config.memory.far.is_some() && !deleted {
                return ask_far(link, id, Far::Delete { objref });
            }
            return Ok(Some(Answer::Object(deleted.then_some(objref))));
        }
        self.plane()?.discard(block_of(release.block)?, Writer::Worker(link.owner()));
        Ok(None)
    }

    /// An object in numbers.
    pub(crate) fn describe(&self, objref: ObjRef) -> Result<Answer, Error> {
        let (Lease { ttl, key, cacheable, durable }, len) = self.plane()?.lease(objref)?;
        let remaining_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let key = key.unwrap_or_default();
        Ok(Answer::Stat(message::Stat { len, remaining_ms, key, cacheable, durable, ..Default::default() }))
    }

    pub(crate) fn plane(&self) -> Result<&Plane, Error> {
        let none = || Error::new(Code::Unsupported, "this replica has no object store: start it with --object-store");
        self.config.memory.plane.as_ref().ok_or_else(none)
    }

    /// What the object store holds, if there is one.
    pub(crate) fn store_load(&self) -> Option<StoreLoad> {
        let plane = self.config.memory.plane.as_ref()?;
        let Usage { capacity, used, longest_free, objects, tensors, evicted, .. } = plane.usage();
        let kept =
            plane.kept().into_iter().map(|(owner, many)| (self.name_of(WorkerId(owner.0)), many as u64)).collect();
        Some(StoreLoad { capacity, used, longest_free, objects, tensors, evicted, kept })
    }

    /// Frees what nobody reads any more, and tells whom of the workers keeps much of it.
    fn tidy(&self, plane: &Plane, told: &mut HashMap<Owner, usize>, count: bool) {
        plane.tick();
        if !count {
            return;
        }
        let kept = plane.kept();
        told.retain(|owner, _| kept.iter().any(|(known, many)| known == owner && *many >= MANY_KEPT));
        for (owner, many) in kept {
            let before = told.get(&owner).copied().unwrap_or(MANY_KEPT / 2);
            if many >= before * 2 {
                let worker = self.name_of(WorkerId(owner.0));
                tracing::warn!(worker, views = many, "handlers keep views of tensors and objects that are over");
                told.insert(owner, many);
            }
        }
    }
}

/// Looks after the object plane for the life of the pool.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn tidy_forever(inner: Arc<Inner>) {
    let Some(plane) = inner.config.memory.plane.clone() else { return };
    let mut ticks = tokio::time::interval(TIDY);
    let mut told = HashMap::new();
    for round in (0..COUNT_EVERY).cycle() {
        ticks.tick().await;
        inner.tidy(&plane, &mut told, round == 0);
    }
}

/// Who has the objects that are not here.
///
/// # Errors
/// `UNSUPPORTED` if nobody was named.
pub(crate) fn far(memory: &SharedMemory) -> Result<&Arc<dyn FarObjects>, Error> {
    let nobody = || {
        Error::new(
            Code::Unsupported,
            "durable objects need a store: start the replica with --object-spill FOLDER or URL",
        )
    };
    memory.far.as_ref().ok_or_else(nobody)
}

/// Leaves an answer to others.
fn ask_far(link: &Link, id: u64, what: Far) -> Result<Option<Answer>, Wrong> {
    let full = |call| {
        tracing::warn!(?call, "too many objects are being asked for elsewhere");
        let error = Error::new(Code::Overloaded, "too many objects are being asked for elsewhere");
        Wrong::Refused(error.with_retry_after(Duration::from_millis(100)))
    };
    link.ask_far(FarCall { id, what }).map_err(full)?;
    Ok(None)
}

fn here(plane: &Plane, objref: ObjRef) -> Result<Answer, Error> {
    plane.lease(objref)?;
    Ok(Answer::Object(Some(objref)))
}

fn store_stat(plane: &Plane) -> Answer {
    let usage = plane.usage();
    let (len, capacity, objects, evicted) = (usage.used, usage.capacity, usage.objects, usage.evicted);
    Answer::Stat(message::Stat { len, capacity, objects, evicted, ..Default::default() })
}

fn objref_of(object: message::ObjectId) -> ObjRef {
    ObjRef { store: StoreId(object.store), index: object.index, generation: object.generation }
}

fn block_of(block: Option<message::Block>) -> Result<BlockId, Wrong> {
    let block = block.ok_or_else(|| Wrong::Broken(protocol("a frame about a block names none")))?;
    Ok(BlockId { index: block.index, generation: block.generation })
}

/// Why a frame is not answered as it wants.
enum Wrong {
    /// The worker is told.
    Refused(Error),
    /// The connection is over.
    Broken(LinkError),
}

// === impl Wrong ===

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<LinkError> for Wrong {
    fn from(error: LinkError) -> Self {
        Self::Broken(error)
    }
}

impl From<anyserve_wire::WireError> for Wrong {
    fn from(error: anyserve_wire::WireError) -> Self {
        Self::Broken(error.into())
    }
}

// === impl Answer ===

impl Answer {
    /// The answer to the worker's frame with this number.
    pub(crate) fn frame(self, id: u64) -> Frame {
        let id_of = |objref: ObjRef| message::ObjectId {
            store: objref.store.0,
            index: objref.index,
            generation: objref.generation,
        };
        let empty = message::View::default();
        let view = match self {
            Self::Room(Extent { block: BlockId { index, generation }, start, len }) => {
                let object = Some(message::ObjectId { store: 0, index, generation });
                message::View { object, offset: start, len, ..empty }
            }
            Self::Object(objref) => message::View { object: objref.map(id_of), ..empty },
            Self::Stat(stat) => message::View { stat: Some(stat), ..empty },
            Self::Failed(error) => message::View { failed: Some(message::Failed::from(&error)), ..empty },
        };
        Frame::with_meta(Kind::View, id, &view)
    }
}
