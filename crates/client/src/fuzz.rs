//! Fuzz targets: what a server answers, and endpoints as they are written.
//!
//! A target takes any bytes and panics where a property does not hold. Built for tests, and with `--cfg fuzzing`.

use std::time::Duration;

use anyserve_core::header::HAND_BACK;
use anyserve_core::{BytesReader, Query, Tensor};
use anyserve_proto::inference::ModelInferResponse;
use bytes::Bytes;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::failure::CODE_KEY;
use crate::{Endpoint, decode, from_status, handed_back};

/// Bytes as a `ModelInferResponse`. The tensors of a response have the bytes that their shapes say.
pub fn answer(data: &[u8]) {
    let Ok(message) = ModelInferResponse::decode(Bytes::copy_from_slice(data)) else { return };
    let Ok(response) = decode::response(message) else { return };
    for tensor in &response.outputs {
        match Tensor::expected_len(tensor.datatype, &tensor.shape).expect("its shape is one") {
            Some(len) => assert_eq!(tensor.data.len(), len),
            None => assert!(BytesReader::new(&tensor.data).all(|element| element.is_ok())),
        }
    }
}

/// Bytes as a failed call: the gRPC code, then lines with the message, our code and a query to go back with; then details.
pub fn failure(data: &[u8]) {
    let mut parts = data.splitn(5, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let grpc = next().first().map_or(Code::Unknown, |byte| Code::from(i32::from(*byte)));
    let message = String::from_utf8_lossy(next()).into_owned();
    let mut trailers = MetadataMap::new();
    for key in [CODE_KEY, HAND_BACK] {
        if let Ok(value) = MetadataValue::try_from(next()) {
            trailers.insert(key, value);
        }
    }
    let status = Status::with_details_and_metadata(grpc, message, Bytes::copy_from_slice(next()), trailers);
    let endpoint = "localhost:8000".parse().expect("it is an endpoint");
    let error = from_status(&status, &endpoint, Some(Duration::MAX));
    assert!(!error.message.is_empty());
    if let Some(query) = handed_back(&error, &Query::model("m")) {
        assert!(query == Query::model("m") || query.to_selector().is_some());
    }
}

/// A text as an endpoint, which is written as one that means the same.
pub fn endpoint(data: &[u8]) {
    let Ok(endpoint) = String::from_utf8_lossy(data).parse::<Endpoint>() else { return };
    assert!(endpoint.port() > 0 && !endpoint.host().is_empty());
    let scheme = if endpoint.secure() { "https" } else { "http" };
    assert_eq!(endpoint.uri().scheme_str(), Some(scheme));
    assert_eq!(endpoint.uri().to_string().trim_end_matches('/').parse(), Ok(endpoint));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_testkit::fuzz::attack;

    #[test]
    fn an_answer_has_the_bytes_that_it_says_or_is_refused() {
        attack("answer", answer);
    }

    #[test]
    fn a_failure_becomes_an_error_whatever_it_says() {
        attack("failure", failure);
    }

    #[test]
    fn an_endpoint_leads_to_where_it_is_written_or_is_refused() {
        attack("endpoint", endpoint);
    }
}
