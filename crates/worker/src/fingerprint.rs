//! What requests that do the same share.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::OnceLock;

use anyserve_core::Fingerprint;
use anyserve_wire::message;
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use crate::pending::Parcel;

/// The fingerprint of a request: of its group, its handler, its inputs and its parameters. Id, headers and deadline don't count, so
/// that the same request sent again has the same one.
///
/// It is keyed by a number of this process, so that nobody outside can make a harmless request share the fingerprint of a
/// harmful one.
pub(crate) fn of(parcel: &Parcel) -> Fingerprint {
    static KEY: OnceLock<u64> = OnceLock::new();
    let mut hash = Xxh3::with_seed(*KEY.get_or_init(|| RandomState::new().hash_one(0)));
    hash.update(&parcel.group.0.to_le_bytes());
    hash.update(&parcel.handler.to_le_bytes());
    hash.update(&what_counts(parcel).encode_to_vec());
    for input in &parcel.inputs {
        hash.update(&input.bytes);
    }
    Fingerprint(hash.digest())
}

fn what_counts(parcel: &Parcel) -> message::Request {
    // It was encoded here a moment ago, so it can be read.
    let request = message::Request::decode(parcel.meta.clone()).unwrap_or_default();
    let mut parameters = request.parameters;
    parameters.sort_by(|one, other| one.key.cmp(&other.key));
    message::Request { inputs: request.inputs, parameters, ..message::Request::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedMemory;
    use anyserve_core::{Expects, Parameter, Query, Request, Tensor};
    use anyserve_sched::GroupId;
    use bytes::Bytes;

    fn parcel(id: &str, data: &'static [u8], parameters: &[(&str, i64)]) -> Parcel {
        let input = Tensor {
            name: "x".into(),
            datatype: anyserve_core::Datatype::Uint8,
            shape: vec![2],
            data: Bytes::from_static(data),
            parameters: vec![],
        };
        let parameter = |(name, value): &(&str, i64)| ((*name).to_owned(), Parameter::Int(*value));
        let mut request = Request {
            id: id.into(),
            model: "m".into(),
            version: String::new(),
            query: Query::model("m"),
            inputs: vec![input],
            outputs: vec![],
            destinations: vec![],
            parameters: parameters.iter().map(parameter).collect(),
            headers: vec![("traceparent".into(), id.into())],
            deadline: None,
            expects: Expects::One,
        };
        Parcel::try_new(&mut request, (GroupId(0), 3), 1 << 20, &SharedMemory::default(), Vec::new()).unwrap()
    }

    #[test]
    fn the_same_request_sent_again_has_the_same_fingerprint_and_another_has_not() {
        let first = of(&parcel("1", b"ab", &[("a", 1), ("b", 2)]));
        assert_eq!(first, of(&parcel("2", b"ab", &[("b", 2), ("a", 1)])));
        assert_ne!(first, of(&parcel("1", b"ac", &[("a", 1), ("b", 2)])));
        assert_ne!(first, of(&parcel("1", b"ab", &[("a", 1), ("b", 3)])));
    }
}
