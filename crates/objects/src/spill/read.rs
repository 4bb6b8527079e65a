//! Reading a durable object back. Nothing of it is believed.

use anyserve_core::{Code, Error, Lease, LocalObjects, ObjRef, ObjectRoom};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use xxhash_rust::xxh3::Xxh3;

use super::header::{HEADER, Header, HeaderError};
use super::{failed, object_path};

/// What became of reading an object.
pub(super) enum Found {
    /// It was copied into the store here, under this reference.
    Here(ObjRef),
    /// Its lease has ended.
    Expired,
    /// There is no such file.
    Nothing,
}

type Body = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum Damage {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("it has {have} bytes behind its header, which says {len}")]
    Length { have: u64, len: u64 },
    #[error("its header says the checksum {expected:016x}, its bytes have {have:016x}")]
    Checksum { have: u64, expected: u64 },
}

/// Copies an object into the store here.
pub(super) async fn object(
    store: &dyn ObjectStore,
    objref: ObjRef,
    local: &dyn LocalObjects,
    now_ms: u64,
) -> Result<Found, Error> {
    let path = object_path(objref);
    let file = match store.get(&path).await {
        Ok(file) => file,
        Err(object_store::Error::NotFound { .. }) => return Ok(Found::Nothing),
        Err(error) => return Err(failed(&path, &error)),
    };
    let size = file.meta.size;
    let mut body = file.into_stream();
    let (header, first) = begin(&mut body, &path).await?;
    let header = header.map_err(|error| damaged(objref, error))?;
    if header.is_over(now_ms) {
        return Ok(Found::Expired);
    }
    let room = room(objref, &header, size, local)?;
    let room = fill(room, first, body, &header, &path).await?.map_err(|damage| damaged(objref, damage))?;
    let lease = Lease { ttl: header.remaining(now_ms), cacheable: true, ..Lease::default() };
    room.seal(lease).map(Found::Here)
}

/// The header of a file that may not be there. What is damaged counts as not there.
pub(super) async fn header(store: &dyn ObjectStore, path: &Path) -> Result<Option<Header>, Error> {
    let end = u64::try_from(HEADER).unwrap_or(u64::MAX);
    match store.get_range(path, 0..end).await {
        Ok(bytes) => Ok(Header::read(&bytes).ok()),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        // A range beyond the end of a file is an error of its own with every store.
        Err(error) => match store.head(path).await {
            Ok(meta) if meta.size < end => Ok(None),
            _ => Err(failed(path, &error)),
        },
    }
}

/// Reads the header, and what came with it of the object.
async fn begin(body: &mut Body, path: &Path) -> Result<(Result<Header, HeaderError>, Bytes), Error> {
    let mut have = BytesMut::new();
    while have.len() < HEADER {
        let Some(piece) = body.next().await else { break };
        let piece = piece.map_err(|error| failed(path, &error))?;
        if have.is_empty() && piece.len() >= HEADER {
            return Ok((Header::read(&piece), piece.slice(HEADER..)));
        }
        have.extend_from_slice(&piece);
    }
    let rest = have.split_off(have.len().min(HEADER));
    Ok((Header::read(&have), rest.freeze()))
}

/// Room for an object whose length its header and its file agree on.
fn room(objref: ObjRef, header: &Header, size: u64, local: &dyn LocalObjects) -> Result<Box<dyn ObjectRoom>, Error> {
    let have = size.saturating_sub(u64::try_from(HEADER).unwrap_or(u64::MAX));
    if have != header.len {
        return Err(damaged(objref, Damage::Length { have, len: header.len }));
    }
    let capacity = local.capacity();
    let len = usize::try_from(have).ok().filter(|len| *len <= capacity);
    let message = || format!("{objref} has {have} bytes, more than the store here can ever hold, {capacity}");
    local.create(len.ok_or_else(|| Error::new(Code::ObjectStoreFull, message()))?)
}

async fn fill(
    mut room: Box<dyn ObjectRoom>,
    first: Bytes,
    mut body: Body,
    header: &Header,
    path: &Path,
) -> Result<Result<Box<dyn ObjectRoom>, Damage>, Error> {
    let (mut whole, mut next) = (Xxh3::new(), Some(Ok(first)));
    let mut have: u64 = 0;
    while let Some(piece) = next {
        let piece = piece.map_err(|error| failed(path, &error))?;
        have = have.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if piece.len() > room.missing() {
            return Ok(Err(Damage::Length { have, len: header.len }));
        }
        whole.update(&piece);
        room.write(&piece);
        next = body.next().await;
    }
    if room.missing() > 0 {
        return Ok(Err(Damage::Length { have, len: header.len }));
    }
    let have = whole.digest();
    Ok(if have == header.checksum { Ok(room) } else { Err(Damage::Checksum { have, expected: header.checksum }) })
}

/// A copy that is damaged stays so: nobody has the object any more.
fn damaged(objref: ObjRef, damage: impl Into<Damage>) -> Error {
    Error::new(Code::NotFound, format!("the durable copy of {objref} is damaged: {}", damage.into()))
}
