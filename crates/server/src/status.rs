//! A replica's status as JSON: the admin paths, the events and the page tell the same.
//!
//! Sizes are in bytes and times in seconds or milliseconds, as the names say. What is not known is `null`.

use std::time::Duration;

use anyserve_core::{GroupStatus, Needs, ResourceStatus, Status, StoreLoad, WorkerStatus};
use serde_json::{Value, json};

/// All of it.
pub(crate) fn whole(status: &Status) -> Value {
    json!({
        "uptime_s": seconds(status.uptime),
        "draining": status.draining,
        "in_flight": status.in_flight,
        "safe_to_stop": status.safe_to_stop,
        "generation": status.generation,
        "groups": status.groups.iter().map(group).collect::<Vec<_>>(),
        "resources": status.resources.iter().map(resource).collect::<Vec<_>>(),
        "objects": status.objects.as_ref().map(objects),
    })
}

/// What becomes of a replica that is to be stopped.
pub(crate) fn drain(status: &Status) -> Value {
    json!({ "draining": status.draining, "in_flight": status.in_flight, "safe_to_stop": status.safe_to_stop })
}

/// A worker group and its workers.
pub(crate) fn group(group: &GroupStatus) -> Value {
    json!({
        "name": group.name,
        "state": group.state,
        "models": group.models,
        "workers": group.workers.iter().map(worker).collect::<Vec<_>>(),
        "min_workers": group.min_workers,
        "max_workers": group.max_workers,
        "needs": needs(&group.needs),
        "queued": group.queued,
        "in_flight": group.in_flight,
        "oldest_wait_ms": group.oldest_wait.map(ms),
        "succeeded": group.succeeded,
        "failed": group.failed,
        "starts": group.starts,
        "restarts": group.restarts,
        "start_time_ms": group.start_time.map(ms),
        "wake_time_ms": group.wake_time.map(ms),
    })
}

/// A worker.
pub(crate) fn worker(worker: &WorkerStatus) -> Value {
    json!({
        "name": worker.name,
        "state": worker.state,
        "since_s": seconds(worker.since),
        "pid": worker.pid,
        "in_flight": worker.in_flight,
        "gpus": worker.gpus,
        "memory_bytes": worker.memory,
        "detail": worker.detail,
    })
}

fn needs(needs: &Needs) -> Value {
    json!({ "gpus": needs.gpus, "tokens": needs.tokens })
}

fn resource(resource: &ResourceStatus) -> Value {
    json!({ "name": resource.name, "total": resource.total, "used": resource.used })
}

fn objects(store: &StoreLoad) -> Value {
    let kept: Vec<_> = store.kept.iter().map(|(worker, count)| json!({ "worker": worker, "count": count })).collect();
    json!({
        "capacity_bytes": store.capacity,
        "used_bytes": store.used,
        "longest_free_bytes": store.longest_free,
        "objects": store.objects,
        "tensors": store.tensors,
        "evicted": store.evicted,
        "kept": kept,
    })
}

/// Seconds, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_null_and_no_number() {
        let shown = whole(&Status { groups: vec![GroupStatus::default()], ..Status::default() });
        assert_eq!(shown["objects"], Value::Null);
        for name in ["oldest_wait_ms", "start_time_ms", "wake_time_ms"] {
            assert_eq!(shown["groups"][0][name], Value::Null, "{name}");
        }
        let shown = worker(&WorkerStatus::default());
        assert_eq!((&shown["pid"], &shown["memory_bytes"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn times_have_the_unit_of_their_names() {
        let time = Duration::from_micros(1_234_567);
        let shown = group(&GroupStatus { oldest_wait: Some(time), start_time: Some(time), ..GroupStatus::default() });
        assert_eq!((&shown["oldest_wait_ms"], &shown["start_time_ms"]), (&json!(1234.567), &json!(1234.567)));
        assert_eq!(whole(&Status { uptime: time, ..Status::default() })["uptime_s"], json!(1.235));
        assert_eq!(worker(&WorkerStatus { since: time, ..WorkerStatus::default() })["since_s"], json!(1.235));
    }

    #[test]
    fn a_drain_says_how_much_is_in_flight_and_whether_a_stop_loses_nothing() {
        let status = Status { draining: true, in_flight: 3, ..Status::default() };
        assert_eq!(drain(&status), json!({ "draining": true, "in_flight": 3, "safe_to_stop": false }));
    }
}
