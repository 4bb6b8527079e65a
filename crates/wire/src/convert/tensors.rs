//! Tensors of a message: their bytes are in the body, one after the other, or in memory beside the socket.

use anyserve_core::{BytesReader, Datatype, Tensor, elements};
use bytes::Bytes;

use super::values::{key_values, parameters};
use crate::{MessageError, message as wire};

/// Memory beside the socket that tensors can be in.
pub trait Places {
    /// The bytes at a place that the peer named, `len` of them; `None` if there are none.
    fn find(&mut self, place: &wire::Place, len: usize) -> Option<Bytes>;

    /// The first `len` bytes of the room that an output was to be written to; `None` if it had none, or less.
    fn written(&mut self, output: &str, len: usize) -> Option<Bytes>;
}

/// No memory beside the socket.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

// === impl Nowhere ===

impl Places for Nowhere {
    fn find(&mut self, _: &wire::Place, _: usize) -> Option<Bytes> {
        None
    }

    fn written(&mut self, _: &str, _: usize) -> Option<Bytes> {
        None
    }
}

// === impl wire::Tensor ===

impl From<&Tensor> for wire::Tensor {
    fn from(tensor: &Tensor) -> Self {
        Self {
            name: tensor.name.clone(),
            datatype: tensor.datatype.number(),
            shape: tensor.shape.clone(),
            len: tensor.data.len() as u64,
            parameters: key_values(&tensor.parameters),
        }
    }
}

/// Refuses a tensor whose shape does not fit its bytes.
pub(super) fn check_tensor(tensor: &Tensor) -> Result<(), MessageError> {
    let fits = match tensor.datatype.size() {
        Some(_) => Tensor::expected_len(tensor.datatype, &tensor.shape) == Ok(Some(tensor.data.len())),
        None => bytes_fit(tensor),
    };
    if fits {
        return Ok(());
    }
    let Tensor { name, datatype, shape, data, .. } = tensor;
    Err(MessageError::Tensor { tensor: name.clone(), datatype: *datatype, shape: shape.clone(), len: data.len() })
}

fn bytes_fit(tensor: &Tensor) -> bool {
    let mut count = 0;
    for element in BytesReader::new(&tensor.data) {
        if element.is_err() {
            return false;
        }
        count += 1;
    }
    elements(&tensor.shape) == Ok(count)
}

/// The bytes of those tensors that are not in the body, by their numbers.
pub(super) fn away(
    metas: &[wire::Tensor],
    places: &[wire::Place],
    written: &[u32],
    memory: &mut impl Places,
) -> Result<Vec<(u32, Bytes)>, MessageError> {
    let mut away = Vec::with_capacity(places.len() + written.len());
    for place in places {
        away.push(located(metas, place.tensor, |_, len| memory.find(place, len))?);
    }
    for &tensor in written {
        away.push(located(metas, tensor, |meta, len| memory.written(&meta.name, len))?);
    }
    away.sort_unstable_by_key(|(tensor, _)| *tensor);
    match away.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(MessageError::Placed { tensor: pair[0].0 }),
        None => Ok(away),
    }
}

fn located(
    metas: &[wire::Tensor],
    tensor: u32,
    find: impl FnOnce(&wire::Tensor, usize) -> Option<Bytes>,
) -> Result<(u32, Bytes), MessageError> {
    let meta = usize::try_from(tensor).ok().and_then(|number| metas.get(number));
    let meta = meta.ok_or(MessageError::Number { what: "tensor with a place", number: tensor })?;
    let bytes = usize::try_from(meta.len).ok().and_then(|len| find(meta, len).filter(|bytes| bytes.len() == len));
    let missing = || MessageError::Place { tensor: meta.name.clone(), len: meta.len };
    Ok((tensor, bytes.ok_or_else(missing)?))
}

/// The tensors of a message: each with its bytes from elsewhere, or the next ones of the body, which all belong to one.
pub(super) fn tensors(
    metas: Vec<wire::Tensor>,
    away: Vec<(u32, Bytes)>,
    mut body: Bytes,
) -> Result<Vec<Tensor>, MessageError> {
    let mut away = away.into_iter().peekable();
    let tensors = (0_u32..).zip(metas).map(|(number, meta)| {
        let elsewhere = away.next_if(|(tensor, _)| *tensor == number).map(|(_, bytes)| bytes);
        tensor(meta, elsewhere, &mut body)
    });
    let tensors: Vec<_> = tensors.collect::<Result<_, _>>()?;
    if body.is_empty() { Ok(tensors) } else { Err(MessageError::Surplus { left: body.len() }) }
}

fn tensor(meta: wire::Tensor, elsewhere: Option<Bytes>, body: &mut Bytes) -> Result<Tensor, MessageError> {
    let datatype = datatype(meta.datatype)?;
    let parameters = parameters(meta.parameters)?;
    let data = match elsewhere {
        Some(data) => data,
        None => match usize::try_from(meta.len).ok().filter(|len| *len <= body.len()) {
            Some(len) => body.split_to(len),
            None => return Err(MessageError::Body { tensor: meta.name, len: meta.len, left: body.len() }),
        },
    };
    Ok(Tensor { name: meta.name, datatype, shape: meta.shape, data, parameters })
}

/// The datatype with this number.
pub(super) fn datatype(number: u32) -> Result<Datatype, MessageError> {
    Datatype::from_number(number).ok_or(MessageError::Number { what: "datatype", number })
}

#[cfg(test)]
mod tests {
    use super::super::response_of;
    use super::*;

    fn meta(len: u64) -> wire::Tensor {
        wire::Tensor { name: "x".into(), datatype: Datatype::Uint8.number(), shape: vec![2], len, parameters: vec![] }
    }

    #[test]
    fn tensors_must_add_up_to_the_body() {
        let split = |lens: &[u64], body: &'static [u8]| {
            let metas = lens.iter().map(|len| meta(*len)).collect();
            tensors(metas, Vec::new(), Bytes::from_static(body)).map(|list| list.len())
        };
        assert_eq!(split(&[2, 1], b"abc"), Ok(2));
        assert_eq!(split(&[2], b"abc"), Err(MessageError::Surplus { left: 1 }));
        assert_eq!(split(&[2, 2], b"abc"), Err(MessageError::Body { tensor: "x".into(), len: 2, left: 1 }));
        assert_eq!(split(&[u64::MAX], b"a"), Err(MessageError::Body { tensor: "x".into(), len: u64::MAX, left: 1 }));
    }

    /// Memory with one block and one room.
    struct Memory;

    impl Places for Memory {
        fn find(&mut self, place: &wire::Place, len: usize) -> Option<Bytes> {
            let start = usize::try_from(place.offset).unwrap();
            Some(Bytes::from_static(b"abcdef"))
                .filter(|block| start + len <= block.len())
                .map(|block| block.slice(start..start + len))
        }

        fn written(&mut self, output: &str, len: usize) -> Option<Bytes> {
            (output == "x").then(|| Bytes::from_static(b"zz").slice(..len))
        }
    }

    fn place(tensor: u32, offset: u64) -> wire::Place {
        wire::Place { tensor, offset, memory: Some(wire::Memory::Block(wire::Block { index: 0, generation: 1 })) }
    }

    fn placed(places: Vec<wire::Place>, written: Vec<u32>, body: &'static [u8]) -> Result<Vec<Bytes>, MessageError> {
        let response = wire::Response { outputs: vec![meta(2); 3], places, written, ..Default::default() };
        let response = response_of(response, Bytes::from_static(body), &mut Memory)?;
        Ok(response.outputs.into_iter().map(|output| output.data).collect())
    }

    #[test]
    fn tensors_are_in_the_body_unless_they_have_a_place() {
        assert_eq!(placed(vec![place(2, 1)], vec![1], b"01").unwrap(), ["01", "zz", "bc"]);
        assert_eq!(placed(vec![place(1, 4), place(0, 0)], vec![], b"01").unwrap(), ["ab", "ef", "01"]);
    }

    #[test]
    fn a_place_that_is_none_or_given_twice_ends_the_connection() {
        let beyond = MessageError::Place { tensor: "x".into(), len: 2 };
        assert_eq!(placed(vec![place(0, 5)], vec![], b"0123"), Err(beyond.clone()));
        assert_eq!(
            placed(vec![place(3, 0)], vec![], b"0123"),
            Err(MessageError::Number { what: "tensor with a place", number: 3 })
        );
        let twice = Err(MessageError::Placed { tensor: 0 });
        assert_eq!(placed(vec![place(0, 0)], vec![0], b"0123"), twice);
        assert_eq!(placed(vec![place(0, 0)], vec![], b"012345"), Err(MessageError::Surplus { left: 2 }));
        let response = wire::Response { outputs: vec![meta(2)], places: vec![place(0, 0)], ..Default::default() };
        assert_eq!(response_of(response, Bytes::new(), &mut Nowhere).unwrap_err(), beyond);
    }
}
