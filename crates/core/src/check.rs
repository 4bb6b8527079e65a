//! Whether a request fits what its handler declared.

use crate::{Error, Handler, Request, Tensor, TensorSpec};

/// Checks version, inputs and requested outputs of a request against the handler that is to serve it.
///
/// # Errors
/// `NOT_FOUND` for another version than the handler's, `INVALID_INPUT` for an input that is missing, repeated,
/// unknown, or of another datatype or shape than declared, and for a requested output that is not declared. Only repeated inputs are refused where nothing is
/// declared. The message names the input and both sides.
pub fn check_request(request: &Request, handler: &Handler) -> Result<(), Error> {
    check_version(request, handler)?;
    check_repeated(request)?;
    check_outputs(request, handler)?;
    let Some(specs) = &handler.inputs else { return Ok(()) };
    check_missing(request, specs)?;
    request.inputs.iter().try_for_each(|input| check_input(input, specs, &request.model))
}

fn check_version(request: &Request, handler: &Handler) -> Result<(), Error> {
    if request.version.is_empty() || request.version == handler.version() {
        return Ok(());
    }
    let (model, version, own) = (&request.model, &request.version, handler.version());
    let message = format!("Request for unknown version {version} of model '{model}': it has version {own}");
    Err(Error::new(crate::Code::NotFound, message))
}

fn check_repeated(request: &Request) -> Result<(), Error> {
    for (place, input) in request.inputs.iter().enumerate() {
        if request.inputs[..place].iter().any(|other| other.name == input.name) {
            let message = format!("input '{}' is given twice for model '{}'", input.name, request.model);
            return Err(Error::invalid(message));
        }
    }
    Ok(())
}

/// Before the handler runs, where it has said what it gives; otherwise its answer shows.
fn check_outputs(request: &Request, handler: &Handler) -> Result<(), Error> {
    let Some(specs) = &handler.outputs else { return Ok(()) };
    let unknown = |name: &&String| !specs.iter().any(|spec| spec.name == **name);
    let Some(name) = request.outputs.iter().find(unknown) else { return Ok(()) };
    Err(Error::invalid(format!("unexpected requested output '{name}' for model '{}'", request.model)))
}

fn check_missing(request: &Request, specs: &[TensorSpec]) -> Result<(), Error> {
    let missing = |spec: &&TensorSpec| !request.inputs.iter().any(|input| input.name == spec.name);
    let Some(spec) = specs.iter().find(missing) else { return Ok(()) };
    let (model, got, expected) = (&request.model, request.inputs.len(), specs.len());
    if got == expected {
        // As many as there are to be, so that one of them has another name.
        request.inputs.iter().try_for_each(|input| check_input(input, specs, model))?;
    }
    let message = format!("expected {expected} inputs but got {got} for model '{model}': '{}' is missing", spec.name);
    Err(Error::invalid(message))
}

fn check_input(input: &Tensor, specs: &[TensorSpec], model: &str) -> Result<(), Error> {
    let name = &input.name;
    let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
        let known: Vec<_> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
        let message = format!("unexpected input '{name}' for model '{model}': it takes {}", known.join(", "));
        return Err(Error::invalid(message));
    };
    if spec.datatype != input.datatype {
        let (got, expected) = (input.datatype, spec.datatype);
        let message = format!("input '{name}' for model '{model}' has datatype {got}, expected {expected}");
        return Err(Error::invalid(message));
    }
    if !fits(&input.shape, &spec.shape) {
        let (got, expected) = (&input.shape, &spec.shape);
        let message = format!("input '{name}' for model '{model}' has shape {got:?}, expected {expected:?}");
        return Err(Error::invalid(message));
    }
    Ok(())
}

fn fits(shape: &[i64], spec: &[i64]) -> bool {
    shape.len() == spec.len() && shape.iter().zip(spec).all(|(got, expected)| *expected == -1 || got == expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capability, Code, Datatype, Expects, Query, Value};
    use bytes::Bytes;

    fn spec(name: &str, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec() }
    }

    fn handler() -> Handler {
        let capability = Capability::try_new([("type".to_owned(), Value::Text("add".into()))]).unwrap();
        Handler { inputs: Some(vec![spec("a", &[-1]), spec("b", &[2, -1])]), ..Handler::new(capability) }
    }

    type Given<'a> = (&'a str, Datatype, &'a [i64]);

    fn request(inputs: &[Given<'_>]) -> Request {
        let tensor = |(name, datatype, shape): &Given<'_>| Tensor {
            name: (*name).into(),
            datatype: *datatype,
            shape: shape.to_vec(),
            data: Bytes::new(),
            parameters: vec![],
        };
        Request {
            id: String::new(),
            model: "add".into(),
            version: String::new(),
            query: Query::model("add"),
            inputs: inputs.iter().map(tensor).collect(),
            outputs: vec![],
            destinations: vec![],
            parameters: vec![],
            headers: vec![],
            deadline: None,
            expects: Expects::One,
        }
    }

    const A: Given<'static> = ("a", Datatype::Fp32, &[3]);
    const B: Given<'static> = ("b", Datatype::Fp32, &[2, 0]);

    #[test]
    fn inputs_come_in_any_order_and_fit_variable_dimensions() {
        assert_eq!(check_request(&request(&[B, A]), &handler()), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_named_with_both_sides() {
        let cases: [(&[Given<'_>], &str); 7] = [
            (&[A], "expected 2 inputs but got 1 for model 'add': 'b' is missing"),
            (&[A, ("c", Datatype::Fp32, &[1])], "unexpected input 'c' for model 'add': it takes 'a', 'b'"),
            (&[A, A, B], "input 'a' is given twice for model 'add'"),
            (&[A, B, ("c", Datatype::Fp32, &[1])], "unexpected input 'c' for model 'add': it takes 'a', 'b'"),
            (&[("a", Datatype::Int8, &[3]), B], "input 'a' for model 'add' has datatype INT8, expected FP32"),
            (&[A, ("b", Datatype::Fp32, &[2])], "input 'b' for model 'add' has shape [2], expected [2, -1]"),
            (&[A, ("b", Datatype::Fp32, &[3, 1])], "input 'b' for model 'add' has shape [3, 1], expected [2, -1]"),
        ];
        for (inputs, message) in cases {
            assert_eq!(check_request(&request(inputs), &handler()), Err(Error::invalid(message)));
        }
    }

    #[test]
    fn a_requested_output_that_is_not_declared_is_refused_before_the_handler_runs() {
        let declared = Handler { outputs: Some(vec![spec("sum", &[-1])]), ..handler() };
        let mut asks = request(&[A, B]);
        asks.outputs = vec!["sum".into()];
        assert_eq!(check_request(&asks, &declared), Ok(()));
        asks.outputs.push("difference".into());
        let message = "unexpected requested output 'difference' for model 'add'";
        assert_eq!(check_request(&asks, &declared), Err(Error::invalid(message)));
        assert_eq!(check_request(&asks, &handler()), Ok(()), "nothing is declared");
    }

    #[test]
    fn another_version_is_not_found() {
        let mut versioned = request(&[A, B]);
        versioned.version = "1".into();
        assert_eq!(check_request(&versioned, &handler()), Ok(()));
        versioned.version = "2".into();
        assert_eq!(check_request(&versioned, &handler()).unwrap_err().code, Code::NotFound);
    }
}
