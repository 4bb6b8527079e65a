//! Between the messages of the wire and the types of `core`. What a peer wrote is checked here, once.

use anyserve_core::{
    Capability, Code, Datatype, Error, Handler, Parameter, Parameters, Priority, Request, Response, Tensor, TensorSpec,
    Value, elements,
};
use bytes::Bytes;
use std::time::Duration;

use crate::{MAX_BATCH, MessageError, message as wire};

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

fn check_tensor(tensor: &Tensor) -> Result<(), MessageError> {
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
    for element in anyserve_core::BytesReader::new(&tensor.data) {
        if element.is_err() {
            return false;
        }
        count += 1;
    }
    elements(&tensor.shape) == Ok(count)
}

/// The bytes of those tensors that are not in the body, by their numbers.
fn away(
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

fn tensors(metas: Vec<wire::Tensor>, away: Vec<(u32, Bytes)>, mut body: Bytes) -> Result<Vec<Tensor>, MessageError> {
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

fn datatype(number: u32) -> Result<Datatype, MessageError> {
    Datatype::from_number(number).ok_or(MessageError::Number { what: "datatype", number })
}

fn parameters(list: Vec<wire::KeyValue>) -> Result<Parameters, MessageError> {
    list.into_iter().map(|pair| Ok((pair.key, parameter(pair.value)?))).collect()
}

fn parameter(value: Option<wire::Value>) -> Result<Parameter, MessageError> {
    Ok(match value.ok_or(MessageError::Missing { what: "value of a parameter" })? {
        wire::Value::Text(text) => Parameter::Text(text),
        wire::Value::Int(number) => Parameter::Int(number),
        wire::Value::Double(number) => Parameter::Double(number),
        wire::Value::Bool(truth) => Parameter::Bool(truth),
        wire::Value::Uint(number) => Parameter::Uint(number),
    })
}

fn key_values(parameters: &Parameters) -> Vec<wire::KeyValue> {
    let pair = |(key, value): &(String, Parameter)| wire::KeyValue { key: key.clone(), value: Some(value.into()) };
    parameters.iter().map(pair).collect()
}

fn capability(pairs: Vec<wire::KeyValue>) -> Result<Capability, MessageError> {
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|pair| match pair.value {
            Some(wire::Value::Text(text)) => Ok((pair.key, Value::Text(text))),
            Some(wire::Value::Int(number)) => Ok((pair.key, Value::Int(number))),
            Some(wire::Value::Double(number)) => Ok((pair.key, Value::Float(number))),
            Some(wire::Value::Bool(truth)) => Ok((pair.key, Value::Bool(truth))),
            Some(wire::Value::Uint(_)) | None => Err(MessageError::Missing { what: "value of a capability" }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Capability::try_new(pairs)?)
}

fn specs(declared: bool, specs: Vec<wire::TensorSpec>) -> Result<Option<Vec<TensorSpec>>, MessageError> {
    let spec = |spec: wire::TensorSpec| {
        Ok(TensorSpec { name: spec.name, datatype: datatype(spec.datatype)?, shape: spec.shape })
    };
    declared.then(|| specs.into_iter().map(spec).collect()).transpose()
}

fn spec_messages(specs: Option<&Vec<TensorSpec>>) -> Vec<wire::TensorSpec> {
    let message = |spec: &TensorSpec| wire::TensorSpec {
        name: spec.name.clone(),
        datatype: spec.datatype.number(),
        shape: spec.shape.clone(),
    };
    specs.into_iter().flatten().map(message).collect()
}

fn priority(number: u32) -> Result<Option<Priority>, MessageError> {
    let level = |number| Priority::try_new(number).ok_or(MessageError::Number { what: "priority", number });
    (number > 0).then(|| level(number)).transpose()
}

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

// === impl wire::Value ===

impl From<&Parameter> for wire::Value {
    fn from(parameter: &Parameter) -> Self {
        match parameter {
            Parameter::Bool(truth) => Self::Bool(*truth),
            Parameter::Int(number) => Self::Int(*number),
            Parameter::Uint(number) => Self::Uint(*number),
            Parameter::Double(number) => Self::Double(*number),
            Parameter::Text(text) => Self::Text(text.clone()),
        }
    }
}

impl From<&Value> for wire::Value {
    fn from(value: &Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text.clone()),
            Value::Int(number) => Self::Int(*number),
            Value::Float(number) => Self::Double(*number),
            Value::Bool(truth) => Self::Bool(*truth),
        }
    }
}

// === impl wire::Handler ===

impl From<&Handler> for wire::Handler {
    fn from(handler: &Handler) -> Self {
        let pair = |(key, value): (&str, &Value)| wire::KeyValue { key: key.to_owned(), value: Some(value.into()) };
        let micros = |timeout: Duration| u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX).max(1);
        Self {
            capability: handler.capability.iter().map(pair).collect(),
            function: handler.function.clone(),
            inputs: spec_messages(handler.inputs.as_ref()),
            declares_inputs: handler.inputs.is_some(),
            outputs: spec_messages(handler.outputs.as_ref()),
            declares_outputs: handler.outputs.is_some(),
            stream: handler.stream,
            concurrency: handler.concurrency,
            max_queue: handler.max_queue.unwrap_or(0),
            timeout_us: handler.timeout.map_or(0, micros),
            max_batch_size: handler.max_batch_size,
            max_delay_us: u64::try_from(handler.max_delay.as_micros()).unwrap_or(u64::MAX),
            priority: handler.priority.map_or(0, |priority| priority.level().into()),
            idempotent: handler.idempotent,
            sequence: handler.sequence,
        }
    }
}

impl TryFrom<wire::Handler> for Handler {
    type Error = MessageError;

    fn try_from(row: wire::Handler) -> Result<Self, MessageError> {
        if row.concurrency == 0 {
            return Err(MessageError::Number { what: "concurrency", number: 0 });
        }
        if usize::try_from(row.max_batch_size).map_or(true, |most| most > MAX_BATCH) {
            return Err(MessageError::Number { what: "max_batch_size", number: row.max_batch_size });
        }
        Ok(Self {
            capability: capability(row.capability)?,
            function: row.function,
            inputs: specs(row.declares_inputs, row.inputs)?,
            outputs: specs(row.declares_outputs, row.outputs)?,
            stream: row.stream,
            concurrency: row.concurrency,
            max_queue: Some(row.max_queue).filter(|len| *len > 0),
            timeout: Some(row.timeout_us).filter(|us| *us > 0).map(Duration::from_micros),
            max_batch_size: row.max_batch_size,
            max_delay: Duration::from_micros(row.max_delay_us),
            priority: priority(row.priority)?,
            idempotent: row.idempotent,
            sequence: row.sequence,
        })
    }
}

// === impl wire::Failed ===

impl From<&Error> for wire::Failed {
    fn from(error: &Error) -> Self {
        let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Self {
            code: error.code.number(),
            message: error.message.clone(),
            traceback: error.traceback.clone().unwrap_or_default(),
            compute_ns: 0,
            retry_after_ms: error.retry_after.map_or(0, millis),
        }
    }
}

impl From<wire::Failed> for Error {
    /// An unknown number is a defect of ours, and told as one.
    fn from(failed: wire::Failed) -> Self {
        let code = Code::from_number(failed.code).unwrap_or(Code::Internal);
        Self {
            code,
            message: failed.message,
            retry_after: failed.retry_after_ms.checked_sub(1).map(Duration::from_millis),
            traceback: Some(failed.traceback).filter(|text| !text.is_empty()),
            // A handler has begun: nothing goes back to the API server.
            hand_back: None,
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_response_whose_shape_does_not_fit_its_bytes_is_refused() {
        let response = |len| wire::Response { outputs: vec![meta(len)], ..Default::default() };
        assert!(response_of(response(2), Bytes::from_static(b"ab"), &mut Nowhere).is_ok());
        let short = response_of(response(1), Bytes::from_static(b"a"), &mut Nowhere);
        assert!(matches!(short, Err(MessageError::Tensor { len: 1, .. })));
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

    #[test]
    fn a_handler_and_an_error_survive_the_wire() {
        let pair = |key: &str, value| (key.to_owned(), value);
        let capability = Capability::try_new([pair("type", Value::Text("t".into())), pair("n", Value::Float(0.5))]);
        let spec = TensorSpec { name: "a".into(), datatype: Datatype::Bf16, shape: vec![-1, 3] };
        let handler = Handler {
            inputs: Some(vec![spec]),
            outputs: Some(vec![]),
            stream: true,
            concurrency: 7,
            timeout: Some(Duration::from_millis(5)),
            max_queue: Some(3),
            max_batch_size: 32,
            max_delay: Duration::from_micros(1_500),
            priority: Some(Priority::LAST),
            idempotent: true,
            sequence: true,
            ..Handler::new(capability.unwrap())
        };
        assert_eq!(Handler::try_from(wire::Handler::from(&handler)), Ok(handler));
        let error = Error::new(Code::Overloaded, "full").with_retry_after(Duration::ZERO).with_traceback("t");
        assert_eq!(Error::from(wire::Failed::from(&error)), error);
    }

    #[test]
    fn a_handler_takes_no_larger_batches_than_there_are() {
        let capability = vec![wire::KeyValue { key: "type".into(), value: Some(wire::Value::Text("t".into())) }];
        let row = |max_batch_size| {
            let row =
                wire::Handler { capability: capability.clone(), concurrency: 1, max_batch_size, ..Default::default() };
            Handler::try_from(row).map(|handler| handler.max_batch_size)
        };
        assert_eq!((row(0), row(256)), (Ok(0), Ok(256)));
        assert_eq!(row(257), Err(MessageError::Number { what: "max_batch_size", number: 257 }));
    }

    #[test]
    fn a_priority_is_a_level_or_absent() {
        assert_eq!(priority(0), Ok(None));
        assert_eq!((priority(1), priority(8)), (Ok(Some(Priority::FIRST)), Ok(Some(Priority::LAST))));
        assert_eq!(priority(9), Err(MessageError::Number { what: "priority", number: 9 }));
    }
}
