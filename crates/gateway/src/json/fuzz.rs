//! Fuzz targets: inference over plain HTTP, both ways.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use anyserve_core::{BytesReader, Datatype, Limits, Tensor, elements};
use anyserve_proto::inference::ModelInferResponse;
use bytes::Bytes;
use prost::Message;

use super::signatures::Signature;
use super::{request, response};

/// Bytes as the body of a request. The message that it becomes has tensors that are what they say, within the limits.
pub fn asked(data: &[u8]) {
    let limits = Limits { max_rank: 8, max_tensors: 8, max_message: 4096, ..Limits::default() };
    let read = request::parse(data).and_then(|body| body.request(&Signature::default(), &limits));
    let Ok((message, _)) = read else { return };
    let raws = &message.raw_input_contents;
    assert!(raws.len() == message.inputs.len() && raws.len() <= 8);
    assert!(raws.iter().map(Bytes::len).sum::<usize>() <= 4096);
    for (input, raw) in message.inputs.iter().zip(raws) {
        let datatype = Datatype::from_name(&input.datatype).expect("it is one");
        assert!(input.shape.len() <= 8);
        match Tensor::expected_len(datatype, &input.shape).expect("its shape is one") {
            Some(len) => assert_eq!(raw.len(), len),
            None => assert_eq!(Ok(BytesReader::new(raw).flatten().count()), elements(&input.shape)),
        }
    }
}

/// Bytes as the response of a replica, which is written as JSON that can be read.
pub fn answered(data: &[u8]) {
    let Ok(message) = ModelInferResponse::decode(data) else { return };
    let mut json = Vec::new();
    if response::render(&message, &mut json).is_err() {
        return;
    }
    let read: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
    assert_eq!(read["outputs"].as_array().map(Vec::len), Some(message.outputs.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn a_body_becomes_tensors_that_are_what_they_say_or_is_refused() {
        attack("json_asked", asked);
    }

    #[test]
    fn a_response_becomes_json_or_is_refused() {
        attack("json_answered", answered);
    }
}
