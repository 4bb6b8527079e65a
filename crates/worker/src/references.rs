//! References among a request's inputs: the objects that they mean take their places, before any handler sees them.

use anyserve_core::{BytesReader, Code, Datatype, Error, HeldObject, ObjRef, Parameter, Request, Tensor};
use anyserve_shm::object::{Kind, Object};
use bytes::Bytes;

use crate::dispatch::Inner;
use crate::objects::far;

/// The parameter of a tensor whose one element is a reference; `true` until the object stands in its place, then the
/// reference.
const OBJREF: &str = "objref";

/// Whether any input is a reference.
pub(crate) fn has_any(request: &Request) -> bool {
    request.inputs.iter().any(is_reference)
}

fn is_reference(input: &Tensor) -> bool {
    input.parameters.iter().any(|(name, value)| name == OBJREF && *value == Parameter::Bool(true))
}

// === impl Inner ===

impl Inner {
    /// Puts arrays and bytes in the place of the references to them; a reference to a dict stays what it is. Returns what
    /// the request has to hold on to.
    ///
    /// # Errors
    /// `INVALID_INPUT` for what is no reference, `NOT_FOUND` for an object that is gone; the message names the input.
    ///
    /// # Cancel safety
    /// Dropping it changes some inputs and not others.
    pub(crate) async fn resolve(&self, request: &mut Request) -> Result<Vec<Bytes>, Error> {
        let mut held = Vec::new();
        let (model, deadline) = (request.model.clone(), request.deadline);
        for input in request.inputs.iter_mut().filter(|input| is_reference(input)) {
            let named = |error: Error| Error { message: named(&input.name, &model, &error.message), ..error };
            let objref = reference(input).map_err(named)?;
            let object = self.bring(objref, deadline).await.map_err(named)?;
            let read = Object::read(&object.bytes).map_err(|error| named(Error::invalid(error.to_string())))?;
            if read.kind != Kind::Dict {
                replace(input, read, objref);
            }
            held.push(object.bytes);
        }
        Ok(held)
    }

    async fn bring(&self, objref: ObjRef, deadline: Option<std::time::Instant>) -> Result<HeldObject, Error> {
        let plane = self.plane()?;
        match plane.object(objref) {
            Ok(held) => return Ok(held),
            Err(error) if self.config.memory.far.is_none() => return Err(error.into()),
            Err(_) => {}
        }
        let here = far(&self.config.memory)?.fetch(objref, deadline).await?;
        Ok(plane.object(here)?)
    }
}

fn named(input: &str, model: &str, message: &str) -> String {
    format!("input '{input}' for model '{model}': {message}")
}

fn reference(input: &Tensor) -> Result<ObjRef, Error> {
    if input.datatype != Datatype::Bytes || input.shape != [1] {
        let (datatype, shape) = (input.datatype, &input.shape);
        let text = format!("a reference is BYTES of shape [1], not {datatype} of shape {shape:?}");
        return Err(Error::invalid(text));
    }
    let element = BytesReader::new(&input.data).next().and_then(Result::ok).unwrap_or_default();
    let text = std::str::from_utf8(element).map_err(|_| Error::invalid("a reference is text"))?;
    text.parse().map_err(|error: anyserve_core::ObjRefError| Error::new(Code::InvalidInput, error.to_string()))
}

fn replace(input: &mut Tensor, object: Object, objref: ObjRef) {
    let Some(part) = object.parts.into_iter().next() else { return };
    (input.datatype, input.shape, input.data) = match part.framed {
        Some(framed) => (Datatype::Bytes, vec![1], framed),
        None => (part.tensor.datatype, part.tensor.shape, part.tensor.data),
    };
    for (name, value) in &mut input.parameters {
        if name == OBJREF {
            *value = Parameter::Text(objref.to_string());
        }
    }
}
