//! Rows of the handler table.

use std::time::Duration;

use anyserve_core::{Handler, Priority, TensorSpec, Value};

use super::tensors::datatype;
use super::values::capability;
use crate::{MAX_BATCH, MessageError, message as wire};

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

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, Datatype, Value};

    #[test]
    fn a_handler_survives_the_wire() {
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
