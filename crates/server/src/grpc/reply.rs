//! What the upstream answered, made ready to be written: only the outputs that were asked for, under the names that
//! the caller used.

use anyserve_core::{Error, Request, Response};

use super::shared::SharedOutput;

/// What of a request its responses need.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The request's id.
    pub(super) id: String,
    /// The model, as the request named it.
    pub(super) model: String,
    /// Names of the outputs that are wanted; empty is all.
    pub(super) outputs: Vec<String>,
    /// Those of them that go to shared memory.
    pub(super) shared: Vec<SharedOutput>,
}

// === impl Asked ===

impl Asked {
    /// What responses to this request need.
    pub(super) fn of(request: &Request, shared: Vec<SharedOutput>) -> Self {
        Self { id: request.id.clone(), model: request.model.clone(), outputs: request.outputs.clone(), shared }
    }

    /// Puts id and model into a response, and takes out what was not asked for and what is in shared memory.
    ///
    /// # Errors
    /// `INVALID_INPUT` or `INTERNAL` if an output is not in the shared memory that it was wanted in.
    pub(super) fn restore(&self, response: &mut Response) -> Result<(), Error> {
        response.id.clone_from(&self.id);
        // A query by headers needs no model name; the replica's own is more than none.
        if !self.model.is_empty() {
            response.model.clone_from(&self.model);
        }
        if !self.outputs.is_empty() {
            response.outputs.retain(|output| self.outputs.contains(&output.name));
        }
        for shared in &self.shared {
            for output in response.outputs.iter_mut().filter(|output| output.name == shared.name()) {
                shared.settle(output, &self.model)?;
            }
        }
        Ok(())
    }

    /// Refuses a response that lacks an output which was asked for.
    ///
    /// # Errors
    /// `INVALID_INPUT` that names the output and the model.
    pub(super) fn check(&self, response: &Response) -> Result<(), Error> {
        let missing = |name: &&String| !response.outputs.iter().any(|output| output.name == **name);
        let Some(name) = self.outputs.iter().find(missing) else { return Ok(()) };
        Err(Error::invalid(format!("unexpected requested output '{name}' for model '{}'", self.model)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Datatype, Tensor};

    fn asked(outputs: &[&str]) -> Asked {
        Asked {
            id: "i".into(),
            model: "m".into(),
            outputs: outputs.iter().map(ToString::to_string).collect(),
            shared: Vec::new(),
        }
    }

    fn response() -> Response {
        let output = |name: &str| Tensor {
            name: name.into(),
            datatype: Datatype::Bool,
            shape: vec![0],
            data: bytes::Bytes::new(),
            parameters: Vec::new(),
        };
        Response { model: "other".into(), outputs: vec![output("a"), output("b")], ..Response::default() }
    }

    fn names(asked: &Asked) -> Vec<String> {
        let mut response = response();
        asked.restore(&mut response).unwrap();
        response.outputs.into_iter().map(|output| output.name).collect()
    }

    #[test]
    fn id_and_model_come_back_as_they_were_given() {
        let mut response = response();
        asked(&[]).restore(&mut response).unwrap();
        assert_eq!((&*response.id, &*response.model), ("i", "m"));
    }

    #[test]
    fn only_requested_outputs_come_back_and_all_where_none_is_requested() {
        assert_eq!(names(&asked(&[])), ["a", "b"]);
        assert_eq!(names(&asked(&["b"])), ["b"]);
    }

    #[test]
    fn a_requested_output_that_there_is_not_is_named() {
        let error = asked(&["a", "c"]).check(&response()).unwrap_err();
        assert_eq!(error.message, "unexpected requested output 'c' for model 'm'");
        assert_eq!(asked(&["a", "b"]).check(&response()), Ok(()));
    }
}
