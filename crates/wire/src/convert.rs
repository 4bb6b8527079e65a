//! Between the messages of the wire and the types of `core`. What a peer wrote is checked here, once.

mod failed;
mod handler;
mod tensors;
mod values;

use anyserve_core::{Error, Parameters, Request, Response, Tensor};
use bytes::Bytes;

use crate::{MessageError, message as wire};
use tensors::{away, check_tensor, tensors};
use values::{key_values, parameters};

pub use tensors::{Nowhere, Places};

/// The metadata of a request's frame. The body is the inputs' data, in order.
pub fn request_to_frame(request: &Request) -> wire::Request {
    let header = |(name, value): &(String, String)| wire::Header { name: name.clone(), value: value.clone() };
    wire::Request {
        model: request.model.clone(),
        version: request.version.clone(),
        id: request.id.clone(),
        inputs: request.inputs.iter().map(wire::Tensor::from).collect(),
        outputs: request.outputs.clone(),
        parameters: key_values(&request.parameters),
        headers: request.headers.iter().map(header).collect(),
        ..wire::Request::default()
    }
}

/// The inputs and parameters of a request, as the worker gets them.
///
/// # Errors
/// [`MessageError`] if a number has no meaning or the tensors do not add up to `body`.
pub fn request_of(
    meta: &mut wire::Request,
    body: Bytes,
    memory: &mut impl Places,
) -> Result<(Vec<Tensor>, Parameters), MessageError> {
    let inputs = std::mem::take(&mut meta.inputs);
    let away = away(&inputs, &meta.places, &[], memory)?;
    let inputs = tensors(inputs, away, body)?;
    Ok((inputs, parameters(std::mem::take(&mut meta.parameters))?))
}

/// The inputs and parameters of a call, as the runtime gets them.
///
/// # Errors
/// [`MessageError`] if a number has no meaning, a shape does not fit its bytes, or the tensors do not add up to `body`.
pub fn call_of(
    meta: &mut wire::Request,
    body: Bytes,
    memory: &mut impl Places,
) -> Result<(Vec<Tensor>, Parameters), MessageError> {
    let (inputs, parameters) = request_of(meta, body, memory)?;
    inputs.iter().try_for_each(check_tensor)?;
    Ok((inputs, parameters))
}

/// What a call's result says: a response, or with `None` the end without one, or why there is none.
///
/// # Errors
/// [`MessageError`] as for [`response_of`].
pub fn result_of(
    meta: wire::CallResult,
    body: Bytes,
    memory: &mut impl Places,
) -> Result<Result<Option<Response>, Error>, MessageError> {
    if let Some(failed) = meta.failed {
        return Ok(Err(failed.into()));
    }
    let wire::CallResult { response, id, model, version, .. } = meta;
    let Some(response) = response else { return Ok(Ok(None)) };
    let response = response_of(response, body, memory)?;
    Ok(Ok(Some(Response { id, model, version, ..response })))
}

/// The metadata of a call's result. The body is the outputs' data, in order.
pub fn result_to_frame(response: &Response) -> wire::CallResult {
    let outputs = response.outputs.iter().map(wire::Tensor::from).collect();
    let parameters = key_values(&response.parameters);
    wire::CallResult {
        response: Some(wire::Response { outputs, parameters, ..Default::default() }),
        id: response.id.clone(),
        model: response.model.clone(),
        version: response.version.clone(),
        ..Default::default()
    }
}

/// A response as the runtime gets it; id, model and version are the request's and not set here.
///
/// # Errors
/// [`MessageError`] if a number has no meaning, a shape does not fit its bytes, or the tensors do not add up to `body`.
pub fn response_of(meta: wire::Response, body: Bytes, memory: &mut impl Places) -> Result<Response, MessageError> {
    let away = away(&meta.outputs, &meta.places, &meta.written, memory)?;
    let outputs = tensors(meta.outputs, away, body)?;
    outputs.iter().try_for_each(check_tensor)?;
    Ok(Response { outputs, parameters: parameters(meta.parameters)?, ..Response::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Code, Datatype, Parameter};
    use proptest::prelude::*;
    use prost::Message;

    fn meta(len: u64) -> wire::Tensor {
        wire::Tensor { name: "x".into(), datatype: Datatype::Uint8.number(), shape: vec![2], len, parameters: vec![] }
    }

    #[test]
    fn a_response_whose_shape_does_not_fit_its_bytes_is_refused() {
        let response = |len| wire::Response { outputs: vec![meta(len)], ..Default::default() };
        assert!(response_of(response(2), Bytes::from_static(b"ab"), &mut Nowhere).is_ok());
        let short = response_of(response(1), Bytes::from_static(b"a"), &mut Nowhere);
        assert!(matches!(short, Err(MessageError::Tensor { len: 1, .. })));
    }

    #[test]
    fn a_call_whose_shape_does_not_fit_its_bytes_is_refused() {
        let call = |len| wire::Request { inputs: vec![meta(len)], ..Default::default() };
        assert!(call_of(&mut call(2), Bytes::from_static(b"ab"), &mut Nowhere).is_ok());
        let short = call_of(&mut call(1), Bytes::from_static(b"a"), &mut Nowhere);
        assert!(matches!(short, Err(MessageError::Tensor { len: 1, .. })));
    }

    #[test]
    fn a_result_of_a_call_survives_the_wire_and_so_do_its_ends() {
        let outputs = vec![Tensor {
            name: "y".into(),
            datatype: Datatype::Uint8,
            shape: vec![2],
            data: Bytes::from_static(b"ab"),
            parameters: vec![("p".into(), Parameter::Int(-1))],
        }];
        let (id, model, version) = ("i".to_owned(), "m".to_owned(), "3".to_owned());
        let response = Response { id, model, version, outputs, parameters: vec![("q".into(), Parameter::Bool(true))] };
        let read = |meta, body| result_of(meta, body, &mut Nowhere);
        let whole = read(result_to_frame(&response), Bytes::from_static(b"ab"));
        assert_eq!(whole, Ok(Ok(Some(response.clone()))));
        assert_eq!(read(wire::CallResult { end: true, ..Default::default() }, Bytes::new()), Ok(Ok(None)));
        let error = Error::new(Code::Overloaded, "full");
        let failed = wire::CallResult { failed: Some(wire::Failed::from(&error)), ..Default::default() };
        assert_eq!(read(failed, Bytes::new()), Ok(Err(error)));
        let short = read(result_to_frame(&response), Bytes::from_static(b"a"));
        assert_eq!(short, Err(MessageError::Body { tensor: "y".into(), len: 2, left: 1 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_call_and_a_result_or_an_error(
            meta in proptest::collection::vec(any::<u8>(), 0..200),
            body in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            if let Ok(wire::Call { request: Some(mut request), .. }) = wire::Call::decode(&meta[..]) {
                let _ = call_of(&mut request, body.clone().into(), &mut Nowhere);
            }
            if let Ok(result) = wire::CallResult::decode(&meta[..]) {
                let _ = result_of(result, body.into(), &mut Nowhere);
            }
        }
    }
}
