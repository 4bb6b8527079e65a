//! Which requests may share a batch.

use std::hash::{BuildHasher, Hash, Hasher};

use crate::{Handler, Request, Tensor};

/// A number that is the same for two requests of one handler if they may share a batch; `None` if the handler takes
/// requests one by one.
///
/// Requests share a batch if they have the same inputs, by name, datatype, rank and shape past the first axis, and want
/// the same outputs. In which order they name them does not matter, nor do the first axis, the tensors' bytes,
/// priorities, parameters and headers. A tensor of rank 0 has no first axis: it goes only with its like.
///
/// `state` holds the key of the hash: one for the whole process, random, so that no caller can make requests that
/// look alike but are not. Where two do all the same, they meet in a batch whose handler may refuse it as a whole;
/// it is then run again in parts.
pub fn batch_key(request: &Request, handler: &Handler, state: &impl BuildHasher) -> Option<u64> {
    if handler.max_batch_size == 0 {
        return None;
    }
    let inputs = sum(request.inputs.iter().map(|input| kind(input, state)));
    let outputs = sum(request.outputs.iter().map(|name| state.hash_one(name)));
    Some(state.hash_one((request.inputs.len(), inputs, request.outputs.len(), outputs)))
}

/// A sum does not depend on the order, and unlike `^` it does not forget what comes twice.
fn sum(hashes: impl Iterator<Item = u64>) -> u64 {
    hashes.fold(0, u64::wrapping_add)
}

fn kind(input: &Tensor, state: &impl BuildHasher) -> u64 {
    let mut hasher = state.build_hasher();
    input.name.hash(&mut hasher);
    input.datatype.number().hash(&mut hasher);
    input.shape.len().hash(&mut hasher);
    input.shape.iter().skip(1).for_each(|len| len.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capability, Datatype, Expects, Parameter, Query, Value};
    use bytes::Bytes;
    use std::hash::RandomState;

    fn tensor((name, datatype, shape): (&str, Datatype, &[i64])) -> Tensor {
        Tensor { name: name.into(), datatype, shape: shape.to_vec(), data: Bytes::new(), parameters: vec![] }
    }

    fn request(inputs: &[(&str, Datatype, &[i64])], outputs: &[&str]) -> Request {
        Request {
            id: String::new(),
            model: String::new(),
            version: String::new(),
            query: Query::model("echo"),
            inputs: inputs.iter().copied().map(tensor).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            destinations: vec![],
            parameters: vec![],
            headers: vec![],
            deadline: None,
            expects: Expects::One,
        }
    }

    fn handler(max_batch_size: u32) -> Handler {
        let capability = Capability::try_new([("type".to_owned(), Value::Text("echo".into()))]).unwrap();
        Handler { max_batch_size, ..Handler::new(capability) }
    }

    const A: (&str, Datatype, &[i64]) = ("a", Datatype::Fp32, &[1, 3]);
    const B: (&str, Datatype, &[i64]) = ("b", Datatype::Int64, &[]);

    #[test]
    fn a_handler_that_takes_requests_one_by_one_has_no_batches() {
        let state = RandomState::new();
        assert_eq!(batch_key(&request(&[A], &[]), &handler(0), &state), None);
        assert!(batch_key(&request(&[A], &[]), &handler(1), &state).is_some());
    }

    #[test]
    fn order_first_axis_and_what_is_not_shape_do_not_matter() {
        let state = RandomState::new();
        let key = |request: &Request| batch_key(request, &handler(8), &state);
        let one = request(&[A, B], &["x", "y"]);
        let mut other = request(&[B, ("a", Datatype::Fp32, &[7, 3])], &["y", "x"]);
        other.id = "other".into();
        other.parameters = vec![("priority".into(), Parameter::Int(1))];
        other.headers = vec![("x-tenant".into(), "blue".into())];
        other.inputs[1].data = Bytes::from_static(b"data");
        assert_eq!(key(&one), key(&other));
        assert_eq!(key(&request(&[], &[])), key(&request(&[], &[])));
    }

    #[test]
    fn requests_of_different_kinds_do_not_share_a_batch() {
        let state = RandomState::new();
        let kinds = [
            request(&[], &[]),
            request(&[A], &[]),
            request(&[A, A], &[]),
            request(&[B, B], &[]),
            request(&[A, B], &[]),
            request(&[("other", Datatype::Fp32, &[1, 3])], &[]),
            request(&[("a", Datatype::Fp16, &[1, 3])], &[]),
            request(&[("a", Datatype::Fp32, &[1, 4])], &[]),
            request(&[("a", Datatype::Fp32, &[1, 3, 1])], &[]),
            request(&[("a", Datatype::Fp32, &[3])], &[]),
            request(&[("a", Datatype::Fp32, &[])], &[]),
            request(&[A], &["x"]),
            request(&[A], &["y"]),
            request(&[A], &["x", "x"]),
            request(&[A], &["y", "y"]),
            request(&[A], &["x", "y"]),
        ];
        let keys: Vec<_> = kinds.iter().map(|kind| batch_key(kind, &handler(8), &state)).collect();
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{:?} shares a batch", kinds[place]);
        }
    }
}
