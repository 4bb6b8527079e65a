//! What the registry says becomes messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyserve_cluster::{Answer, RegistryConfig, Resolved};
use anyserve_core::{Capability, Value};
use anyserve_proto::v1;
use anyserve_proto::v1::capability_value::Value as Written;
use anyserve_proto::v1::{CapabilityValue, Verdict};

/// The verdict and the newest epoch or seq, 0 where there is none to tell.
pub(crate) fn verdict(answer: Answer) -> (Verdict, u64) {
    match answer {
        Answer::Accepted => (Verdict::Accepted, 0),
        Answer::AnnounceAgain => (Verdict::RegisterAgain, 0),
        Answer::StaleEpoch { latest } => (Verdict::StaleEpoch, latest),
        Answer::Outdated { latest } => (Verdict::Outdated, latest),
    }
}

/// The answer to an announcement.
pub(crate) fn registered(answer: Answer, config: &RegistryConfig) -> v1::RegisterResponse {
    let (verdict, latest) = verdict(answer);
    let (heartbeat_ms, lease_ms) = (millis(config.heartbeat), millis(config.lease));
    v1::RegisterResponse { verdict: verdict.into(), latest, heartbeat_ms, lease_ms }
}

/// Who a request should go to.
pub(crate) fn resolved(found: &Resolved, now: Instant) -> v1::ResolveResponse {
    let replica = &found.replica;
    v1::ResolveResponse {
        replica_id: replica.id.to_string(),
        epoch: replica.epoch,
        endpoint: replica.endpoint.to_string(),
        lease_ms: millis(replica.lease_until.saturating_duration_since(now)),
        capability: found.capability.as_deref().map(capability).unwrap_or_default(),
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A capability as a map.
pub(crate) fn capability(capability: &Capability) -> BTreeMap<String, CapabilityValue> {
    let written = |value: &Value| match value {
        Value::Text(text) => Written::Text(text.clone()),
        Value::Int(number) => Written::Integer(*number),
        Value::Float(number) => Written::Number(*number),
        Value::Bool(truth) => Written::Truth(*truth),
    };
    capability.iter().map(|(key, value)| (key.to_owned(), CapabilityValue { value: Some(written(value)) })).collect()
}
