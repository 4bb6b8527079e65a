//! `_core.ObjectPlane`: objects as a handler makes and finds them. See `anyserve/objects.py` for what users see of it.
//!
//! An object of this replica is found and pinned in shared memory, without asking anybody; the runtime is asked for room,
//! for keys, for what is described or deleted, and for what is not here.

use std::sync::Arc;
use std::time::Duration;

use anyserve_core::{Error, Parameter, StoreId};
use anyserve_shm::object::{Kind, Object, Part, Plan};
use anyserve_shm::{Attached, BlockId, Extent};
use anyserve_wire::{self as wire, Frame, message};
use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::reply::Piece;
use super::session::Session;
use crate::errors::to_py;
use crate::kserve::{InferInput, InferOutput, Label, check_len};
use crate::objref::ObjRef;

/// The worker's end of the object plane.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct ObjectPlane {
    session: Arc<Session>,
    plane: Arc<Attached>,
}

/// How often an object is asked for that is gone again when it is looked at.
const TRIES: usize = 3;
/// The parameter of a part that is bytes and not an array.
const BYTES: &str = "bytes";

// === impl ObjectPlane ===

impl ObjectPlane {
    /// The object plane of this worker; `None` if its replica has none.
    pub(super) fn of(session: &Arc<Session>) -> Option<Self> {
        let plane = session.link.memory.plane.as_ref()?;
        Some(Self { session: Arc::clone(session), plane: Arc::clone(plane) })
    }

    fn ask(&self, py: Python<'_>, kind: wire::Kind, meta: &impl prost::Message) -> PyResult<message::View> {
        let view = self.session.ask(py, kind, meta)?;
        match view.failed {
            Some(failed) => Err(to_py(py, &failed.into())),
            None => Ok(view),
        }
    }

    /// The bytes of an object, wherever it is.
    fn bring(&self, py: Python<'_>, objref: anyserve_core::ObjRef, timeout_s: Option<f64>) -> PyResult<Bytes> {
        if let Some(bytes) = self.here(objref) {
            return Ok(bytes);
        }
        let object = Some(message::Wanted::Object(id_of(objref)));
        let get = message::Get { wanted: object, remaining_us: remaining_us(timeout_s), describe: false };
        for _ in 0..TRIES {
            let found = self.ask(py, wire::Kind::Get, &get)?.object.map(objref_of);
            if let Some(bytes) = found.and_then(|found| self.here(found)) {
                return Ok(bytes);
            }
        }
        Err(to_py(py, &Error::new(anyserve_core::Code::NotFound, format!("{objref} is gone"))))
    }

    fn here(&self, objref: anyserve_core::ObjRef) -> Option<Bytes> {
        let anyserve_core::ObjRef { store, index, generation } = objref;
        if store != self.plane.store() {
            return None;
        }
        self.plane.view(BlockId { index, generation })
    }

    fn write(&self, room: &Extent, plan: &Plan, parts: &[Part<'_>]) -> bool {
        let part = |(part, offset): (&Part<'_>, &u64)| {
            let prefix = part.prefix().is_none_or(|prefix| self.plane.write(room, offset - 4, &prefix));
            prefix && self.plane.write(room, *offset, part.data)
        };
        self.plane.write(room, 0, &plan.header) && parts.iter().zip(&plan.offsets).all(part)
    }

    fn room(&self, py: Python<'_>, len: u64) -> PyResult<Extent> {
        self.session.room(py, len)?.map_err(|error| to_py(py, &error))
    }

    fn seal(&self, py: Python<'_>, sealed: &message::Sealed) -> PyResult<()> {
        if sealed.answer {
            return self.ask(py, wire::Kind::Sealed, sealed).map(|_| ());
        }
        // What is sent after it comes after it: nobody gets the reference from us before the runtime has the object.
        py.detach(|| self.session.link.send_detached(&Frame::with_meta(wire::Kind::Sealed, 0, sealed)));
        Ok(())
    }
}

#[pymethods]
#[allow(clippy::needless_pass_by_value, clippy::too_many_arguments)] // Python calls them.
impl ObjectPlane {
    fn create(
        &self,
        py: Python<'_>,
        kind: &str,
        parts: Vec<PyRef<'_, InferOutput>>,
        key: Option<String>,
        ttl_s: f64,
        cacheable: bool,
        durable: bool,
        checksum: bool,
    ) -> PyResult<ObjRef> {
        let kind = kind_named(kind)?;
        let pieces = parts.iter().map(|part| Piece::of(py, part)).collect::<PyResult<Vec<_>>>()?;
        let parts = parts.iter().zip(&pieces);
        let parts = parts.map(|(part, piece)| part_of(py, kind, part, piece)).collect::<PyResult<Vec<_>>>()?;
        let plan = py.detach(|| Plan::of(kind, &parts, checksum));
        let plan = plan.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let room = self.room(py, plan.len)?;
        if !py.detach(|| self.write(&room, &plan, &parts)) {
            return Err(to_py(py, &Error::internal("the granted block is not in the arena")));
        }
        let BlockId { index, generation } = room.block;
        let answer = key.is_some() || durable;
        self.seal(
            py,
            &message::Sealed {
                block: Some(message::Block { index, generation }),
                len: plan.len,
                key: key.unwrap_or_default(),
                ttl_ms: millis(ttl_s),
                cacheable,
                durable,
                answer,
            },
        )?;
        Ok(ObjRef(anyserve_core::ObjRef { store: self.plane.store(), index, generation }))
    }

    #[pyo3(signature = (objref, timeout_s))]
    fn get(
        &self,
        py: Python<'_>,
        objref: PyRef<'_, ObjRef>,
        timeout_s: Option<f64>,
    ) -> PyResult<(&'static str, Vec<InferInput>)> {
        let bytes = self.bring(py, objref.0, timeout_s)?;
        let read = py.detach(|| Object::read(&bytes).and_then(|object| object.verify().map(|()| object)));
        let object = read.map_err(|error| to_py(py, &Error::internal(format!("{}: {error}", objref.0))))?;
        let parts = object.parts.into_iter().map(|part| {
            let plain = part.framed.is_some().then(|| (BYTES.to_owned(), Parameter::Bool(true)));
            InferInput::from_tensor(anyserve_core::Tensor { parameters: plain.into_iter().collect(), ..part.tensor })
        });
        Ok((kind_name(object.kind), parts.collect()))
    }

    #[pyo3(signature = (key, timeout_s))]
    fn lookup(&self, py: Python<'_>, key: String, timeout_s: Option<f64>) -> PyResult<Option<ObjRef>> {
        let wanted = Some(message::Wanted::Key(key));
        let get = message::Get { wanted, remaining_us: remaining_us(timeout_s), describe: false };
        Ok(self.ask(py, wire::Kind::Get, &get)?.object.map(|object| ObjRef(objref_of(object))))
    }

    fn delete(&self, py: Python<'_>, objref: PyRef<'_, ObjRef>) -> PyResult<bool> {
        let release = message::Release { object: Some(id_of(objref.0)), ..Default::default() };
        Ok(self.ask(py, wire::Kind::Release, &release)?.object.is_some())
    }

    fn stat<'py>(&self, py: Python<'py>, objref: PyRef<'_, ObjRef>) -> PyResult<Bound<'py, PyDict>> {
        let wanted = Some(message::Wanted::Object(id_of(objref.0)));
        let stat = self.ask(py, wire::Kind::Get, &message::Get { wanted, remaining_us: 0, describe: true })?.stat;
        let message::Stat { len, remaining_ms, key, cacheable, durable, .. } = stat.unwrap_or_default();
        let dict = PyDict::new(py);
        dict.set_item("nbytes", len)?;
        dict.set_item("ttl_s", Duration::from_millis(remaining_ms).as_secs_f64())?;
        dict.set_item("key", Some(key).filter(|key| !key.is_empty()))?;
        dict.set_item("cacheable", cacheable)?;
        dict.set_item("durable", durable)?;
        Ok(dict)
    }

    fn usage<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stat = self.ask(py, wire::Kind::Get, &message::Get { describe: true, ..Default::default() })?.stat;
        let message::Stat { len, capacity, objects, evicted, .. } = stat.unwrap_or_default();
        let dict = PyDict::new(py);
        dict.set_item("capacity", capacity)?;
        dict.set_item("used", len)?;
        dict.set_item("objects", objects)?;
        dict.set_item("evicted", evicted)?;
        Ok(dict)
    }
}

fn part_of<'a>(py: Python<'_>, kind: Kind, part: &'a PyRef<'_, InferOutput>, piece: &'a Piece) -> PyResult<Part<'a>> {
    let data = piece.as_slice();
    check_len(py, Label::Output(&part.name), part.datatype, &part.shape, data)?;
    let marked = |(name, value): &(String, Parameter)| name == BYTES && *value == Parameter::Bool(true);
    let plain = kind == Kind::Bytes || part.given_parameters(py)?.iter().any(marked);
    Ok(Part { name: &part.name, datatype: part.datatype, shape: &part.shape, data, plain })
}

fn kind_named(name: &str) -> PyResult<Kind> {
    let kind = [Kind::Array, Kind::Bytes, Kind::Dict].into_iter().find(|kind| kind_name(*kind) == name);
    kind.ok_or_else(|| PyValueError::new_err(format!("an object is an array, bytes or a dict, not {name:?}")))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Array => "array",
        Kind::Bytes => "bytes",
        Kind::Dict => "dict",
    }
}

fn id_of(objref: anyserve_core::ObjRef) -> message::ObjectId {
    message::ObjectId { store: objref.store.0, index: objref.index, generation: objref.generation }
}

fn objref_of(object: message::ObjectId) -> anyserve_core::ObjRef {
    anyserve_core::ObjRef { store: StoreId(object.store), index: object.index, generation: object.generation }
}

fn millis(seconds: f64) -> u64 {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn remaining_us(timeout_s: Option<f64>) -> u64 {
    let span = timeout_s.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    span.map_or(0, |span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX - 1) + 1)
}
