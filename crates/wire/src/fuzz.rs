//! Fuzz targets: everything that comes through the socket of a worker, a template, or the runtime.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::fmt::Debug;

use anyserve_core::{Error, GroupSpec, Handler, Limits, Parameters, Response, Tensor, elements};
use bytes::Bytes;
use prost::Message;

use crate::message as wire;
use crate::{
    Decoder, Frame, Kind, MessageError, Places, WireError, batch_of, call_of, request_of, response_of, result_of,
    result_to_frame,
};

/// Bytes as a stream of frames that comes at once, and in pieces as long as its first byte says.
///
/// Both give the same frames and end alike, and what is read is written as the bytes that it was.
pub fn frames(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let (whole, end) = read(stream, stream.len());
    let (pieces, other_end) = read(stream, usize::from(*size));
    assert_eq!((&whole, &end), (&pieces, &other_end));
    let written: Vec<u8> = whole.iter().flat_map(Frame::to_bytes).collect();
    assert!(stream.starts_with(&written));
    whole.iter().for_each(meaning);
}

/// Bytes as one frame that is well formed: its kind, the length of its metadata in two bytes, metadata, body.
pub fn messages(data: &[u8]) {
    let [kind, len_low, len_high, rest @ ..] = data else { return };
    let kinds: Vec<_> = Kind::all().collect();
    let kind = kinds[usize::from(*kind) % kinds.len()];
    let len = usize::from(u16::from_le_bytes([*len_low, *len_high]));
    let (meta, body) = rest.split_at(len.min(rest.len()));
    let (meta, body) = (Bytes::copy_from_slice(meta), Bytes::copy_from_slice(body));
    meaning(&Frame { meta, body, ..Frame::bare(kind, 1) });
}

fn read(stream: &[u8], size: usize) -> (Vec<Frame>, String) {
    let mut decoder = Decoder::new(Limits { max_meta: 2048, max_message: 40 << 10, ..Limits::default() });
    let mut frames = Vec::new();
    for piece in stream.chunks(size.max(1)) {
        if let Err(error) = feed(&mut decoder, piece, &mut frames) {
            return (frames, error.to_string());
        }
    }
    (frames, format!("in a frame: {}", decoder.is_mid_frame()))
}

/// [`Decoder::feed`] that keeps the frames before a broken one.
fn feed(decoder: &mut Decoder, mut bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), WireError> {
    use bytes::{Buf, BufMut};
    while !bytes.is_empty() {
        let mut room = decoder.buffer();
        let len = bytes.len().min(room.remaining_mut());
        room.put_slice(&bytes[..len]);
        bytes.advance(len);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(())
}

/// Reads a frame for whoever it is for.
fn meaning(frame: &Frame) {
    let (kind, body) = (frame.kind, frame.body.clone());
    match kind {
        Kind::Hello => with(frame, |hello: wire::Hello| hello.handlers.into_iter().for_each(handler)),
        Kind::Manifest => with(frame, |manifest: wire::Manifest| manifest.groups.into_iter().for_each(group)),
        Kind::Request => with(frame, |meta| request(meta, body)),
        Kind::Call => with(frame, |call: wire::Call| call.request.into_iter().for_each(|meta| called(meta, &body))),
        Kind::Batch => with(frame, |meta| batch(meta, &body)),
        Kind::Chunk | Kind::Done => with(frame, |meta| response(meta, body)),
        Kind::CallResult => with(frame, |meta| result(meta, body)),
        Kind::Failed => with(frame, failed),
        Kind::Welcome => with(frame, |_: wire::Welcome| ()),
        Kind::Credit => with(frame, |_: wire::Credit| ()),
        Kind::Put => with(frame, |_: wire::Put| ()),
        Kind::Sealed => with(frame, |_: wire::Sealed| ()),
        Kind::Get => with(frame, |_: wire::Get| ()),
        Kind::View => with(frame, |_: wire::View| ()),
        Kind::Release => with(frame, |_: wire::Release| ()),
        Kind::Fork => with(frame, |_: wire::Fork| ()),
        Kind::Forked => with(frame, |_: wire::Forked| ()),
        // These have no metadata.
        Kind::Ready
        | Kind::Cancel
        | Kind::Drain
        | Kind::Ping
        | Kind::Pong
        | Kind::Sleep
        | Kind::Asleep
        | Kind::Wake => {}
    }
}

/// Reads the metadata, if they are such a message: it is written as a message that means the same.
fn with<M: Message + Default>(frame: &Frame, then: impl FnOnce(M)) {
    let Ok(message) = frame.message::<M>() else { return };
    let written = message.encode_to_vec();
    let again = M::decode(&*written).expect("what was written is read");
    assert_eq!(again.encode_to_vec(), written);
    then(message);
}

fn handler(row: wire::Handler) {
    let Ok(handler) = Handler::try_from(row) else { return };
    assert!(handler.concurrency > 0);
    same(&Handler::try_from(wire::Handler::from(&handler)), &handler);
}

fn group(row: wire::Group) {
    let Ok(spec) = GroupSpec::try_from(row) else { return };
    assert!(spec.workers.is_none_or(|(min, max)| min <= max && max > 0));
    same(&GroupSpec::try_from(wire::Group::from(&spec)), &spec);
}

fn same<T: Debug + PartialEq>(again: &Result<T, MessageError>, first: &T) {
    assert_eq!(again.as_ref().expect("what was written is read"), first);
}

fn request(mut meta: wire::Request, body: Bytes) {
    let (bytes, away) = (body.len(), meta.places.len());
    let Ok((inputs, _)) = request_of(&mut meta, body, &mut Memory) else { return };
    adds_up(&inputs, bytes, away);
}

fn called(mut meta: wire::Request, body: &Bytes) {
    let away = meta.places.len();
    let Ok((inputs, parameters)) = call_of(&mut meta, body.clone(), &mut Memory) else { return };
    adds_up(&inputs, body.len(), away);
    inputs.iter().for_each(fits);
    let metas = inputs.iter().map(wire::Tensor::from).collect();
    let mut again = wire::Request { inputs: metas, ..crate::request_to_frame(&nothing(parameters)) };
    let body: Vec<u8> = inputs.iter().flat_map(|input| input.data.to_vec()).collect();
    let (read, _) = call_of(&mut again, body.into(), &mut crate::Nowhere).expect("what was written is read");
    assert_eq!(format!("{read:?}"), format!("{inputs:?}"));
}

fn nothing(parameters: Parameters) -> anyserve_core::Request {
    anyserve_core::Request {
        id: String::new(),
        model: String::new(),
        version: String::new(),
        query: anyserve_core::Query::model("m"),
        inputs: Vec::new(),
        outputs: Vec::new(),
        destinations: Vec::new(),
        parameters,
        headers: Vec::new(),
        deadline: None,
        expects: anyserve_core::Expects::One,
    }
}

fn batch(meta: wire::Batch, body: &Bytes) {
    let Ok(parts) = batch_of(meta, body.clone()) else { return };
    let own: Vec<u8> = parts.iter().flat_map(|part| part.body.to_vec()).collect();
    assert_eq!(own, **body);
    for part in parts {
        request(part.request, part.body);
    }
}

fn response(meta: wire::Response, body: Bytes) {
    let (bytes, away) = (body.len(), meta.places.len() + meta.written.len());
    let Ok(Response { outputs, .. }) = response_of(meta, body, &mut Memory) else { return };
    adds_up(&outputs, bytes, away);
    outputs.iter().for_each(fits);
}

fn result(meta: wire::CallResult, body: Bytes) {
    let Ok(Ok(Some(response))) = result_of(meta, body, &mut Memory) else { return };
    let body: Vec<u8> = response.outputs.iter().flat_map(|output| output.data.to_vec()).collect();
    let again = result_of(result_to_frame(&response), body.into(), &mut crate::Nowhere);
    let again = again.expect("what was written is read").expect("it is no failure").expect("it is a response");
    assert_eq!(format!("{again:?}"), format!("{response:?}"));
}

fn failed(meta: wire::Failed) {
    let error = Error::from(meta);
    assert_eq!(Error::from(wire::Failed::from(&error)), error);
}

/// Without places, the tensors have the bytes of the body, and all of them.
fn adds_up(tensors: &[Tensor], body: usize, away: usize) {
    let own: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
    assert!(own >= body && (own == body || away > 0));
}

fn fits(tensor: &Tensor) {
    match tensor.datatype.size() {
        Some(size) => assert_eq!(elements(&tensor.shape).map(|count| count * size), Ok(tensor.data.len())),
        None => assert!(elements(&tensor.shape).is_ok_and(|count| count * 4 <= tensor.data.len())),
    }
}

/// Some memory beside the socket.
struct Memory;

const BESIDE: [u8; 256] = [1; 256];

impl Places for Memory {
    fn find(&mut self, place: &wire::Place, len: usize) -> Option<Bytes> {
        let start = usize::try_from(place.offset).ok()?;
        BESIDE.get(start..start.checked_add(len)?).map(Bytes::from_static)
    }

    fn written(&mut self, _: &str, len: usize) -> Option<Bytes> {
        BESIDE.get(..len).map(Bytes::from_static)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn frames_are_the_same_however_they_come_and_mean_something_or_are_refused() {
        attack("wire_frames", frames);
    }

    #[test]
    fn metadata_of_every_kind_are_read_as_they_are_written_or_refused() {
        attack("wire_messages", messages);
    }
}
