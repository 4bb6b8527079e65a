//! A batch taken apart: each request with its own bytes. What the runtime wrote is checked here, once.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::decoder::DIRECT_BODY;
use crate::{MessageError, message as wire};

/// Requests that a batch may have.
pub const MAX_BATCH: usize = 256;

/// One request of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchPart {
    /// Its id.
    pub id: u64,
    /// Its metadata.
    pub request: wire::Request,
    /// Its part of the body.
    pub body: Bytes,
}

/// The requests of a batch, in order; at least one, all for the same handler.
///
/// # Errors
/// [`MessageError`] if there are none or more than [`MAX_BATCH`], one lacks its metadata, their lengths do not add up to
/// `body`, they name different handlers, or two have the same id or slot.
pub fn batch_of(batch: wire::Batch, mut body: Bytes) -> Result<Vec<BatchPart>, MessageError> {
    let members = batch.members.len();
    if !(1..=MAX_BATCH).contains(&members) {
        return Err(MessageError::Members { members, max: MAX_BATCH });
    }
    let parts = batch.members.into_iter().map(|member| part_of(member, &mut body)).collect::<Result<Vec<_>, _>>()?;
    if !body.is_empty() {
        return Err(MessageError::Memberless { left: body.len() });
    }
    check_handler(&parts)?;
    check_distinct("id", parts.iter().map(|part| part.id))?;
    check_distinct("slot", parts.iter().map(|part| part.request.slot.into()))?;
    Ok(parts)
}

fn part_of(member: wire::Member, body: &mut Bytes) -> Result<BatchPart, MessageError> {
    let wire::Member { id, len, request } = member;
    let request = request.ok_or(MessageError::Missing { what: "request of a member" })?;
    let fits = usize::try_from(len).ok().filter(|len| *len <= body.len());
    let here = fits.ok_or(MessageError::Member { id, len, left: body.len() })?;
    Ok(BatchPart { id, request, body: own(body.split_to(here)) })
}

/// As with frames: a small body gets memory of its own, so that it starts aligned and a kept tensor does not keep its
/// neighbours; a large one is not copied for that.
fn own(body: Bytes) -> Bytes {
    if body.len() < DIRECT_BODY { Bytes::copy_from_slice(&body) } else { body }
}

fn check_handler(parts: &[BatchPart]) -> Result<(), MessageError> {
    let mut handlers = parts.iter().map(|part| part.request.handler);
    let Some(first) = handlers.next() else { return Ok(()) };
    handlers.find(|other| *other != first).map_or(Ok(()), |other| Err(MessageError::Mixed { first, other }))
}

fn check_distinct(what: &'static str, numbers: impl Iterator<Item = u64>) -> Result<(), MessageError> {
    let mut sorted: Vec<_> = numbers.collect();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
    twice.map_or(Ok(()), |pair| Err(MessageError::Twice { what, number: pair[0] }))
}

/// Appends one member to the metadata of a `Batch` frame.
///
/// `head` and `rest` are two parts of its request's metadata: what is known only now, and what was encoded before.
/// Protobuf messages merge when they are concatenated.
pub fn encode_member(out: &mut BytesMut, id: u64, len: u64, head: &wire::Request, rest: &[u8]) {
    let request_len = head.encoded_len() + rest.len();
    let prefix_len = [id, len, request_len as u64].map(|number| 1 + encoded_len_varint(number)).iter().sum::<usize>();
    out.reserve(prefix_len + request_len + 16);
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint((prefix_len + request_len) as u64, out);
    encode_key(1, WireType::Varint, out);
    encode_varint(id, out);
    encode_key(2, WireType::Varint, out);
    encode_varint(len, out);
    encode_key(3, WireType::LengthDelimited, out);
    encode_varint(request_len as u64, out);
    head.encode_raw(out);
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(number: u32, len: u64) -> wire::Member {
        let request = wire::Request { handler: 2, slot: number, attempt: 1, ..wire::Request::default() };
        wire::Member { id: number.into(), len, request: Some(request) }
    }

    fn split(members: &[wire::Member], body: &'static [u8]) -> Result<Vec<Bytes>, MessageError> {
        let parts = batch_of(wire::Batch { members: members.to_vec() }, Bytes::from_static(body))?;
        Ok(parts.into_iter().map(|part| part.body).collect())
    }

    #[test]
    fn every_member_gets_its_own_part_of_the_body() {
        assert_eq!(split(&[member(1, 2), member(2, 0), member(3, 1)], b"abc").unwrap(), ["ab", "", "c"]);
    }

    #[test]
    fn members_must_add_up_to_the_body() {
        let error = |members: &[wire::Member]| split(members, b"abc").unwrap_err();
        assert_eq!(error(&[member(1, 2)]), MessageError::Memberless { left: 1 });
        assert_eq!(error(&[member(1, 2), member(2, 2)]), MessageError::Member { id: 2, len: 2, left: 1 });
        assert_eq!(error(&[member(1, u64::MAX)]), MessageError::Member { id: 1, len: u64::MAX, left: 3 });
    }

    #[test]
    fn a_batch_has_from_one_to_the_largest_number_of_members() {
        let many = |members: u32| split(&(1..=members).map(|number| member(number, 0)).collect::<Vec<_>>(), b"");
        assert_eq!(many(1).unwrap().len(), 1);
        assert_eq!(many(256).unwrap().len(), 256);
        for members in [0, 257] {
            let refused = MessageError::Members { members: members.try_into().unwrap(), max: 256 };
            assert_eq!(many(members), Err(refused));
        }
    }

    #[test]
    fn members_are_whole_different_and_for_one_handler() {
        let with = |change: fn(&mut wire::Member)| {
            let mut other = member(2, 0);
            change(&mut other);
            split(&[member(1, 0), other], b"").unwrap_err()
        };
        assert_eq!(with(|other| other.request = None), MessageError::Missing { what: "request of a member" });
        assert_eq!(with(|other| other.id = 1), MessageError::Twice { what: "id", number: 1 });
        let same_slot = with(|other| other.request.as_mut().unwrap().slot = 1);
        assert_eq!(same_slot, MessageError::Twice { what: "slot", number: 1 });
        let mixed = with(|other| other.request.as_mut().unwrap().handler = 3);
        assert_eq!(mixed, MessageError::Mixed { first: 2, other: 3 });
    }

    #[test]
    fn a_member_that_is_encoded_in_parts_reads_as_one_that_was_encoded_at_once() {
        let rest = wire::Request { model: "m".repeat(300), id: "i".into(), ..wire::Request::default() };
        let head = wire::Request { handler: 2, slot: 7, attempt: 1, remaining_us: 900, ..wire::Request::default() };
        let mut out = BytesMut::new();
        for id in [1, u64::MAX] {
            encode_member(&mut out, id, id, &head, &rest.encode_to_vec());
        }
        let whole = wire::Request { model: rest.model, id: rest.id, ..head };
        let member = |id| wire::Member { id, len: id, request: Some(whole.clone()) };
        let batch = wire::Batch { members: vec![member(1), member(u64::MAX)] };
        assert_eq!(wire::Batch::decode(&out[..]).unwrap(), batch);
        assert_eq!(out, batch.encode_to_vec());
    }

    proptest! {
        #[test]
        fn a_body_is_cut_where_the_members_say(lens in proptest::collection::vec(0_usize..50, 1..20)) {
            let body: Vec<u8> = (0..lens.iter().sum()).map(|place| u8::try_from(place % 251).unwrap()).collect();
            let members = (1..).zip(&lens).map(|(number, len)| member(number, *len as u64)).collect();
            let parts = batch_of(wire::Batch { members }, body.clone().into()).unwrap();
            prop_assert_eq!(parts.iter().map(|part| part.body.len()).collect::<Vec<_>>(), lens);
            prop_assert_eq!(parts.iter().flat_map(|part| part.body.to_vec()).collect::<Vec<_>>(), body);
        }

        #[test]
        fn any_bytes_are_a_batch_or_an_error(
            meta in proptest::collection::vec(any::<u8>(), 0..200),
            body in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            if let Ok(batch) = wire::Batch::decode(&meta[..]) {
                let _ = batch_of(batch, body.into());
            }
        }
    }
}
