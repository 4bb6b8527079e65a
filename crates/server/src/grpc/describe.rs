//! What KServe and Triton clients read of a model, written from its handler.

use anyserve_core::{Datatype, Durations, Handler, Priority, Statistics, TensorSpec};
use anyserve_proto::inference::model_config::SchedulingChoice;
use anyserve_proto::inference::model_metadata_response::TensorMetadata;
use anyserve_proto::inference::repository_index_response::ModelIndex;
use anyserve_proto::inference::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput,
    ModelMetadataResponse, ModelOutput, ModelParameter, ModelSequenceBatching, ModelStatistics, ModelTransactionPolicy,
    StatisticDuration,
};

use super::models::Model;

/// What every model runs on.
const PLATFORM: &str = "anyserve";
const BACKEND: &str = "python";

/// The state of a model that can be served now, and of one that cannot.
pub(super) const READY: &str = "READY";
const UNAVAILABLE: &str = "UNAVAILABLE";

/// The answer to `ModelMetadata`.
pub(super) fn metadata(name: String, versions: Vec<String>, handler: &Handler) -> ModelMetadataResponse {
    ModelMetadataResponse {
        name,
        versions,
        platform: PLATFORM.to_owned(),
        inputs: handler.inputs.iter().flatten().map(tensor).collect(),
        outputs: handler.outputs.iter().flatten().map(tensor).collect(),
    }
}

/// The answer to `ModelConfig`.
pub(super) fn config(name: String, handler: &Handler) -> ModelConfig {
    let parameter = |(key, value): (&str, &anyserve_core::Value)| {
        (key.to_owned(), ModelParameter { string_value: value.to_string() })
    };
    ModelConfig {
        name,
        platform: PLATFORM.to_owned(),
        backend: BACKEND.to_owned(),
        // To Triton's clients more than 0 means that the first axis of every tensor is not declared. Here it is.
        max_batch_size: 0,
        input: handler.inputs.iter().flatten().map(input).collect(),
        output: handler.outputs.iter().flatten().map(output).collect(),
        parameters: handler.capability.iter().map(parameter).collect(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: handler.stream }),
        scheduling_choice: scheduling(handler),
        ..ModelConfig::default()
    }
}

/// How its requests are put together, if they are.
fn scheduling(handler: &Handler) -> Option<SchedulingChoice> {
    if handler.sequence {
        return Some(SchedulingChoice::SequenceBatching(ModelSequenceBatching::default()));
    }
    let size = i32::try_from(handler.max_batch_size).ok().filter(|size| *size > 0)?;
    let default_priority = handler.priority.unwrap_or(Priority::MIDDLE).level();
    Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching {
        preferred_batch_size: vec![size],
        max_queue_delay_microseconds: u64::try_from(handler.max_delay.as_micros()).unwrap_or(u64::MAX),
        priority_levels: u64::try_from(Priority::LEVELS).unwrap_or(u64::MAX),
        default_priority_level: default_priority.into(),
        ..ModelDynamicBatching::default()
    }))
}

/// One row of the answer to `ModelStatistics`: `counted` of all the model's capabilities, summed up.
pub(super) fn statistics(model: &Model, counted: impl Iterator<Item = Statistics>) -> ModelStatistics {
    let sum = counted.fold(Statistics::default(), |sum, more| add(&sum, &more));
    // Input and output are no steps of their own; their counts add up with the others all the same.
    let none = Durations { count: sum.compute.count, ..Durations::default() };
    ModelStatistics {
        name: model.name.clone(),
        version: model.version.clone(),
        last_inference: sum.last_request_ms,
        inference_count: sum.success.count,
        execution_count: sum.success.count,
        inference_stats: Some(InferStatistics {
            success: Some(duration(sum.success)),
            fail: Some(duration(both(sum.fail, sum.cancel))),
            queue: Some(duration(sum.queue)),
            compute_input: Some(duration(none)),
            compute_infer: Some(duration(sum.compute)),
            compute_output: Some(duration(none)),
            cache_hit: Some(StatisticDuration::default()),
            cache_miss: Some(StatisticDuration::default()),
        }),
        batch_stats: batches(sum.compute, none),
        ..ModelStatistics::default()
    }
}

/// One row of the answer to `RepositoryIndex`; `group` is the state of the workers that serve the model.
pub(super) fn index(model: Model, draining: bool, group: &str) -> ModelIndex {
    let (state, reason) = match (draining, model.ready) {
        (true, _) => (UNAVAILABLE, "the server is leaving".to_owned()),
        (false, true) => (READY, String::new()),
        (false, false) => (UNAVAILABLE, reason(group)),
    };
    ModelIndex { name: model.name, version: model.version, state: state.to_owned(), reason }
}

/// The row of a model that is declared and not in the catalog now.
pub(super) fn not_listed(name: String, group: &str) -> ModelIndex {
    ModelIndex { name, version: String::new(), state: UNAVAILABLE.to_owned(), reason: reason(group) }
}

/// Why a model is not ready. Of one that was unloaded, Triton's word.
fn reason(group: &str) -> String {
    match group {
        "" | "ready" => "no worker is ready".to_owned(),
        "unloaded" => "unloaded".to_owned(),
        state => format!("its workers: {state}"),
    }
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    let datatype = spec.datatype.name().to_owned();
    TensorMetadata { name: spec.name.clone(), datatype, shape: spec.shape.clone() }
}

fn input(spec: &TensorSpec) -> ModelInput {
    let data_type = data_type(spec.datatype).into();
    ModelInput { name: spec.name.clone(), data_type, dims: spec.shape.clone(), ..ModelInput::default() }
}

fn output(spec: &TensorSpec) -> ModelOutput {
    let data_type = data_type(spec.datatype).into();
    ModelOutput { name: spec.name.clone(), data_type, dims: spec.shape.clone(), ..ModelOutput::default() }
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
        Datatype::Bf16 => DataType::TypeBf16,
    }
}

fn add(sum: &Statistics, more: &Statistics) -> Statistics {
    Statistics {
        success: both(sum.success, more.success),
        fail: both(sum.fail, more.fail),
        cancel: both(sum.cancel, more.cancel),
        queue: both(sum.queue, more.queue),
        compute: both(sum.compute, more.compute),
        last_request_ms: sum.last_request_ms.max(more.last_request_ms),
        failures: Vec::new(),
    }
}

fn both(left: Durations, right: Durations) -> Durations {
    Durations { count: left.count + right.count, total: left.total + right.total }
}

fn batches(compute: Durations, none: Durations) -> Vec<InferBatchStatistics> {
    let one = InferBatchStatistics {
        batch_size: 1,
        compute_input: Some(duration(none)),
        compute_infer: Some(duration(compute)),
        compute_output: Some(duration(none)),
    };
    if compute.count == 0 { Vec::new() } else { vec![one] }
}

fn duration(durations: Durations) -> StatisticDuration {
    let ns = u64::try_from(durations.total.as_nanos()).unwrap_or(u64::MAX);
    StatisticDuration { count: durations.count, ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_datatype_has_its_number_in_configurations() {
        for datatype in Datatype::all() {
            let name = if datatype == Datatype::Bytes { "STRING" } else { datatype.name() };
            assert_eq!(data_type(datatype).as_str_name(), format!("TYPE_{name}"));
        }
    }

    fn handler() -> Handler {
        let pair = ("model".to_owned(), anyserve_core::Value::Int(1));
        Handler::new(anyserve_core::Capability::try_new([pair]).unwrap())
    }

    #[test]
    fn batches_and_sequences_are_told_and_the_first_axis_stays_declared() {
        assert_eq!(config("m".into(), &handler()).scheduling_choice, None);
        let batched = Handler { max_batch_size: 32, max_delay: Duration::from_millis(5), ..handler() };
        let batched = config("m".into(), &batched);
        let Some(SchedulingChoice::DynamicBatching(told)) = batched.scheduling_choice else { panic!("no batches") };
        assert_eq!((batched.max_batch_size, told.preferred_batch_size), (0, vec![32]));
        assert_eq!((told.max_queue_delay_microseconds, told.priority_levels), (5000, 8));
        assert_eq!(told.default_priority_level, 4);
        let sequences = config("m".into(), &Handler { sequence: true, ..handler() });
        assert!(matches!(sequences.scheduling_choice, Some(SchedulingChoice::SequenceBatching(_))));
    }

    #[test]
    fn statistics_of_capabilities_are_summed_up() {
        let handler = std::sync::Arc::new(handler());
        let (name, version, places) = ("m".to_owned(), "1".to_owned(), vec![0, 1]);
        let model = Model { name, version, ready: true, handler, places };
        let of = |count, ms| Durations { count, total: Duration::from_millis(ms) };
        let counted = |last_request_ms| Statistics {
            success: of(2, 10),
            fail: of(1, 1),
            cancel: of(1, 1),
            compute: of(2, 4),
            last_request_ms,
            ..Statistics::default()
        };
        let row = statistics(&model, [counted(5), counted(3)].into_iter());
        let stats = row.inference_stats.unwrap();
        assert_eq!(stats.success, Some(StatisticDuration { count: 4, ns: 20_000_000 }));
        assert_eq!(stats.fail, Some(StatisticDuration { count: 4, ns: 4_000_000 }));
        assert_eq!((row.inference_count, row.last_inference, row.batch_stats[0].batch_size), (4, 5, 1));
    }
}
