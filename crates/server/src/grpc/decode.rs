//! From a `ModelInferRequest` to the runtime's request.

use anyserve_core::{Code, Datatype, Error, Expects, Limits, Parameter, Parameters, Query, Request, Tensor};
use anyserve_proto::inference::ModelInferRequest;
use anyserve_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use bytes::Bytes;

use super::metadata::Metadata;
use super::parameters::{self, Decoded};
use super::raw::{self, Named};
use super::shared::{SharedOutput, Sharing, is_shared};
use crate::budget::Charge;
use crate::rooms::Rooms;

/// Asks for an empty response at the end of the responses.
const FINAL_WANTED: &str = "triton_enable_empty_final_response";

/// A request, and what only the protocol knows of it.
#[derive(Debug)]
pub(super) struct Decode {
    /// The request.
    pub(super) request: Request,
    /// Whether the end of the responses is to be told.
    pub(super) wants_final: bool,
    /// Outputs that go to shared memory; the request has them as destinations.
    pub(super) shared: Vec<SharedOutput>,
    /// Memory that copies of inputs take. Keep it as long as they live.
    pub(super) charge: Option<Charge>,
}

/// Checks a request and turns it into the runtime's. Large tensors in typed contents become raw in the budget's rooms.
///
/// # Errors
/// `INVALID_INPUT` that names the tensor or parameter, the model and, where there are some, both numbers;
/// `UNSUPPORTED` for classification and, where clients cannot share memory, for tensors in it; `NOT_FOUND` for an unknown
/// region of it.
pub(super) fn decode(
    message: ModelInferRequest,
    metadata: &Metadata,
    expects: Expects,
    limits: &Limits,
    mut sharing: Sharing<'_>,
) -> Result<Decode, Error> {
    let ModelInferRequest { model_name: model, model_version: version, id, .. } = message;
    let wants_final = wants_final(&message.parameters);
    let parameters = request_parameters(message.parameters, &model)?;
    let query = query(metadata, &parameters, &model)?;
    let inputs = inputs(message.inputs, message.raw_input_contents, &model, limits, &mut sharing)?;
    let (outputs, shared) = outputs(message.outputs, &model, limits, &sharing)?;
    let (headers, deadline) = (metadata.headers.clone(), metadata.deadline);
    let request = Request {
        id,
        model,
        version,
        query,
        inputs,
        outputs,
        destinations: shared.iter().map(SharedOutput::destination).collect(),
        parameters,
        headers,
        deadline,
        expects,
    };
    Ok(Decode { request, wants_final, shared, charge: sharing.charge })
}

fn wants_final(parameters: &Decoded) -> bool {
    use anyserve_proto::inference::infer_parameter::ParameterChoice::BoolParam;
    parameters.get(FINAL_WANTED).is_some_and(|value| value.parameter_choice == Some(BoolParam(true)))
}

fn request_parameters(mut decoded: Decoded, model: &str) -> Result<Parameters, Error> {
    if decoded.is_empty() {
        return Ok(Parameters::new());
    }
    decoded.remove(FINAL_WANTED);
    if let Some(name) = decoded.keys().find(|name| name.starts_with("triton_")) {
        let message = format!("parameter '{name}' for model '{model}': names that start with 'triton_' are reserved");
        return Err(Error::invalid(message));
    }
    parameters::from_proto(decoded, &format_args!("the request for model '{model}'"))
}

/// The query: from headers (what it has become on its way first), from the parameter `capability`, or from the model's name; the first that is there.
fn query(metadata: &Metadata, parameters: &Parameters, model: &str) -> Result<Query, Error> {
    if let Some(query) = metadata.query() {
        return Ok(query);
    }
    match parameters.iter().find(|(name, _)| name == "capability") {
        Some((_, Parameter::Text(text))) => Query::parse(text).map_err(|error| Error::invalid(error.to_string())),
        Some(_) => Err(Error::invalid("parameter 'capability' is no text")),
        None => Ok(Query::model(model)),
    }
}

fn inputs(
    inputs: Vec<InferInputTensor>,
    raws: Vec<Bytes>,
    model: &str,
    limits: &Limits,
    sharing: &mut Sharing<'_>,
) -> Result<Vec<Tensor>, Error> {
    at_most(inputs.len(), limits.max_tensors, "inputs", model)?;
    let typed = raws.is_empty();
    if !typed {
        check_raw_count(&inputs, raws.len(), model)?;
    }
    let mut raws = raws.into_iter();
    let read = inputs.into_iter().map(|input| {
        if is_shared(&input.parameters) {
            shared_input(input, model, limits, sharing)
        } else if typed {
            typed_input(input, model, limits, sharing.budget.rooms())
        } else {
            // There is one for each such input: they were counted.
            raw_input(input, raws.next().unwrap_or_default(), model, limits)
        }
    });
    read.collect()
}

fn check_raw_count(inputs: &[InferInputTensor], got: usize, model: &str) -> Result<(), Error> {
    if let Some(input) = inputs.iter().find(|input| input.contents.is_some()) {
        let message = "contents field must not be specified when using raw_input_contents for";
        return Err(Error::invalid(format!("{message} '{}' for model '{model}'", input.name)));
    }
    let mut in_message = inputs.iter().filter(|input| !is_shared(&input.parameters));
    let expected = in_message.clone().count();
    if got == expected {
        return Ok(());
    }
    let which = if expected == inputs.len() { "" } else { " that is not in shared memory" };
    let message =
        format!("expected {expected} entries of raw_input_contents for model '{model}', one per input{which}");
    let odd = in_message.nth(got).map(|input| format!(": none for input '{}'", input.name));
    Err(Error::invalid(format!("{message}, but got {got}{}", odd.unwrap_or_default())))
}

fn raw_input(input: InferInputTensor, data: Bytes, model: &str, limits: &Limits) -> Result<Tensor, Error> {
    let (named, datatype) = head(&input, model, limits)?;
    raw::check(named, datatype, &input.shape, &data)?;
    tensor(input, datatype, data, model)
}

fn typed_input(mut input: InferInputTensor, model: &str, limits: &Limits, rooms: &Rooms) -> Result<Tensor, Error> {
    let contents = input.contents.take().unwrap_or_default();
    let (named, datatype) = head(&input, model, limits)?;
    let count = raw::count(named, &input.shape)?;
    let data = super::contents::to_raw(named, datatype, count, contents, rooms)?;
    tensor(input, datatype, data, model)
}

fn shared_input(
    mut input: InferInputTensor,
    model: &str,
    limits: &Limits,
    sharing: &mut Sharing<'_>,
) -> Result<Tensor, Error> {
    let mut parameters = std::mem::take(&mut input.parameters);
    let (named, datatype) = head(&input, model, limits)?;
    if input.contents.is_some() {
        return Err(Error::invalid(format!(
            "contents field must not be specified when using shared memory for {named}"
        )));
    }
    let data = sharing.input(named, datatype, &mut parameters)?;
    raw::check(named, datatype, &input.shape, &data)?;
    input.parameters = parameters;
    tensor(input, datatype, data, model)
}

fn head<'a>(input: &'a InferInputTensor, model: &'a str, limits: &Limits) -> Result<(Named<'a>, Datatype), Error> {
    let named = Named { input: &input.name, model };
    if input.shape.len() > limits.max_rank {
        let (rank, max) = (input.shape.len(), limits.max_rank);
        return Err(Error::invalid(format!("{named} has {rank} dimensions, the limit is {max}")));
    }
    let datatype = Datatype::from_name(&input.datatype);
    let unknown = || Error::invalid(format!("{named} has datatype '{}', which there is not", input.datatype));
    Ok((named, datatype.ok_or_else(unknown)?))
}

fn tensor(input: InferInputTensor, datatype: Datatype, data: Bytes, model: &str) -> Result<Tensor, Error> {
    let InferInputTensor { name, shape, parameters, .. } = input;
    let parameters = parameters::from_proto(parameters, &Named { input: &name, model })?;
    Ok(Tensor { name, datatype, shape, data, parameters })
}

/// Names of the wanted outputs, and those of them that go to shared memory.
fn outputs(
    wanted: Vec<InferRequestedOutputTensor>,
    model: &str,
    limits: &Limits,
    sharing: &Sharing<'_>,
) -> Result<(Vec<String>, Vec<SharedOutput>), Error> {
    at_most(wanted.len(), limits.max_tensors, "outputs", model)?;
    let (mut names, mut shared) = (Vec::with_capacity(wanted.len()), Vec::new());
    for mut output in wanted {
        if output.parameters.contains_key("classification") {
            let message = format!("output '{}' for model '{model}' is wanted as classes", output.name);
            return Err(Error::new(Code::Unsupported, format!("{message}, which this server does not do")));
        }
        if names.contains(&output.name) {
            return Err(Error::invalid(format!("output '{}' is requested twice for model '{model}'", output.name)));
        }
        if is_shared(&output.parameters) {
            shared.push(sharing.output(&output.name, model, &mut output.parameters)?);
        }
        names.push(output.name);
    }
    Ok((names, shared))
}

fn at_most(got: usize, max: usize, what: &str, model: &str) -> Result<(), Error> {
    if got <= max {
        return Ok(());
    }
    Err(Error::invalid(format!("{got} {what} for model '{model}', the limit is {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use anyserve_proto::inference::infer_parameter::ParameterChoice;
    use anyserve_proto::inference::{InferParameter, InferTensorContents};
    use proptest::prelude::*;

    fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
        InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
    }

    fn message(inputs: Vec<InferInputTensor>, raws: &[&'static [u8]]) -> ModelInferRequest {
        let raw_input_contents = raws.iter().map(|raw| Bytes::from_static(raw)).collect();
        ModelInferRequest { model_name: "m".into(), inputs, raw_input_contents, ..Default::default() }
    }

    fn sharing(budget: &Budget) -> Sharing<'_> {
        Sharing { regions: None, budget, max_copy: 0, charge: None }
    }

    fn read(message: ModelInferRequest) -> Result<Request, Error> {
        let limits = Limits { max_rank: 3, max_tensors: 2, ..Limits::default() };
        decode(message, &Metadata::default(), Expects::One, &limits, sharing(&Budget::new(0, Rooms::new(None))))
            .map(|read| read.request)
    }

    fn refusal(message: ModelInferRequest) -> String {
        read(message).unwrap_err().message
    }

    #[test]
    fn raw_inputs_keep_their_bytes_where_they_are() {
        let raw: &[u8] = &[1, 2, 3, 4];
        let request = read(message(vec![input("x", "UINT8", &[4])], &[raw])).unwrap();
        assert_eq!(request.inputs[0].data.as_ptr(), raw.as_ptr());
        assert_eq!((request.inputs[0].datatype, &*request.inputs[0].shape), (Datatype::Uint8, &[4][..]));
    }

    #[test]
    fn typed_inputs_become_raw_and_zero_sized_ones_need_no_contents() {
        let contents = Some(InferTensorContents { int_contents: vec![-1], ..Default::default() });
        let inputs = vec![InferInputTensor { contents, ..input("x", "INT16", &[1]) }, input("y", "FP64", &[0, 7])];
        let request = read(message(inputs, &[])).unwrap();
        assert_eq!((&*request.inputs[0].data, &*request.inputs[1].data), (&[0xff, 0xff][..], &[][..]));
        assert_eq!(request.inputs[1].shape, [0, 7]);
    }

    #[test]
    fn a_missing_raw_entry_names_the_input_without_one() {
        let inputs = vec![input("x", "UINT8", &[1]), input("y", "UINT8", &[1])];
        let expected =
            "expected 2 entries of raw_input_contents for model 'm', one per input, but got 1: none for input 'y'";
        assert_eq!(refusal(message(inputs, &[&[1]])), expected);
    }

    #[test]
    fn rank_and_number_of_tensors_go_to_their_limits_and_no_further() {
        let of_rank = |rank: usize| message(vec![input("x", "UINT8", &vec![1; rank])], &[&[1]]);
        assert!(read(of_rank(2)).is_ok() && read(of_rank(3)).is_ok());
        assert_eq!(refusal(of_rank(4)), "input 'x' for model 'm' has 4 dimensions, the limit is 3");
        let of_count = |count: usize| message(vec![input("x", "UINT8", &[0]); count], &[]);
        assert!(read(of_count(1)).is_ok() && read(of_count(2)).is_ok());
        assert_eq!(refusal(of_count(3)), "3 inputs for model 'm', the limit is 2");
    }

    #[test]
    fn classes_are_not_offered_and_shared_memory_only_where_it_is_on() {
        let parameter = |name: &str| [(name.to_owned(), InferParameter::default())].into();
        let output = |name| InferRequestedOutputTensor { name: "y".into(), parameters: parameter(name) };
        let wants = |name| ModelInferRequest { outputs: vec![output(name)], ..message(vec![], &[]) };
        assert_eq!(read(wants("classification")).unwrap_err().code, Code::Unsupported);
        let shared = InferInputTensor { parameters: parameter("shared_memory_region"), ..input("x", "UINT8", &[1]) };
        for asks in [wants("shared_memory_region"), message(vec![shared], &[])] {
            let error = read(asks).unwrap_err();
            assert_eq!(error.code, Code::Unsupported);
            assert!(error.message.contains("start the replica with --client-shm"), "{error}");
        }
    }

    #[test]
    fn the_final_response_is_wanted_only_by_true_and_reaches_no_handler() {
        for (choice, wanted) in [(ParameterChoice::BoolParam(true), true), (ParameterChoice::Int64Param(1), false)] {
            let mut asks = message(vec![], &[]);
            asks.parameters.insert(FINAL_WANTED.into(), InferParameter { parameter_choice: Some(choice) });
            let read = decode(
                asks,
                &Metadata::default(),
                Expects::Many,
                &Limits::default(),
                sharing(&Budget::new(0, Rooms::new(None))),
            )
            .unwrap();
            assert_eq!((read.wants_final, read.request.parameters.len()), (wanted, 0));
        }
    }

    proptest! {
        #[test]
        fn any_request_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = prost::Message::decode(Bytes::from(bytes)) {
                let _ = read(message);
            }
        }

        #[test]
        fn any_bytes_tensor_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..100), count in 0..9_i64) {
            let mut asks = message(vec![input("x", "BYTES", &[count])], &[]);
            asks.raw_input_contents = vec![data.into()];
            let _ = read(asks);
        }
    }
}
