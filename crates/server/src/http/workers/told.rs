//! What an administrator is told about an order: the part of the status that it was about, and whether it is done.

use anyserve_core::{GroupStatus, Order, Status, WorkerStatus};
use serde_json::{Value, json};

use crate::status;

/// States of a worker that takes no more requests and is about to end.
const LEAVING: [&str; 2] = ["draining", "stopping"];

/// The state of a group of an earlier load of the app, which may have the name of a newer one.
const EARLIER: &str = "leaving";

/// The part of the status that an order is about; `done` beside it says whether it is carried out.
pub(super) fn about(order: &Order, status: &Status, done: bool) -> Value {
    let mut told = match order {
        Order::Load { model, .. } | Order::Unload { model } => {
            json!({ "model": model, "group": shown(serving(status, model)) })
        }
        Order::Start { group } | Order::Scale { group, .. } => json!({ "group": shown(named(status, group)) }),
        Order::Drain { name } | Order::Stop { name } => leaves(status, name, done),
        Order::Reload => status::whole(status),
        Order::DrainReplica => status::drain(status),
    };
    told["done"] = json!(done);
    told
}

/// A group or a worker that leaves. One that is gone holds nothing, whatever has its name now.
fn leaves(status: &Status, name: &str, done: bool) -> Value {
    if let Some(group) = named(status, name) {
        let in_flight = if done { 0 } else { group.in_flight };
        let safe = done || group.in_flight == 0 && group.workers.iter().all(is_leaving);
        return json!({ "in_flight": in_flight, "safe_to_stop": safe, "group": status::group(group) });
    }
    let worker = status.groups.iter().flat_map(|group| &group.workers).find(|worker| worker.name == name);
    let in_flight = worker.filter(|_| !done).map_or(0, |worker| worker.in_flight);
    let safe = done || worker.is_none_or(|worker| worker.in_flight == 0 && is_leaving(worker));
    json!({ "in_flight": in_flight, "safe_to_stop": safe, "worker": worker.map(status::worker) })
}

fn is_leaving(worker: &WorkerStatus) -> bool {
    LEAVING.contains(&worker.state)
}

fn shown(group: Option<&GroupStatus>) -> Option<Value> {
    group.map(status::group)
}

/// The group of this name; of those that share it, the newest load's.
fn named<'a>(status: &'a Status, name: &str) -> Option<&'a GroupStatus> {
    newest(status.groups.iter().filter(|group| group.name == name))
}

fn serving<'a>(status: &'a Status, model: &str) -> Option<&'a GroupStatus> {
    newest(status.groups.iter().filter(|group| group.models.iter().any(|own| own == model)))
}

fn newest<'a>(groups: impl Iterator<Item = &'a GroupStatus>) -> Option<&'a GroupStatus> {
    groups.min_by_key(|group| group.state == EARLIER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str, state: &'static str, in_flight: u64) -> WorkerStatus {
        WorkerStatus { name: name.into(), state, in_flight, ..WorkerStatus::default() }
    }

    fn group(name: &str, state: &'static str, workers: Vec<WorkerStatus>) -> GroupStatus {
        let in_flight = workers.iter().map(|worker| worker.in_flight).sum();
        GroupStatus { name: name.into(), state, workers, in_flight, ..GroupStatus::default() }
    }

    fn drained(status: &Status, name: &str, done: bool) -> (u64, bool) {
        let told = about(&Order::Drain { name: name.into() }, status, done);
        assert_eq!(told["done"], done);
        (told["in_flight"].as_u64().unwrap(), told["safe_to_stop"].as_bool().unwrap())
    }

    #[test]
    fn a_worker_is_safe_to_stop_once_it_leaves_and_holds_nothing() {
        for (state, in_flight, safe) in [
            ("ready", 0, false),
            ("starting", 0, false),
            ("draining", 1, false),
            ("draining", 0, true),
            ("stopping", 0, true),
        ] {
            let status = Status {
                groups: vec![group("a", "ready", vec![worker("a-0", state, in_flight)])],
                ..Status::default()
            };
            assert_eq!(drained(&status, "a-0", false), (in_flight, safe), "{state}");
            assert_eq!(drained(&status, "a", false), (in_flight, safe), "{state}");
            assert_eq!(drained(&status, "a-0", true), (0, true), "{state}");
        }
        assert_eq!(drained(&Status::default(), "a-0", false), (0, true));
    }

    #[test]
    fn of_two_groups_of_a_name_the_newer_is_meant() {
        let models = vec!["m".to_owned()];
        let mut new = GroupStatus { models, ..group("a", "starting", vec![worker("a-1", "starting", 0)]) };
        let old = GroupStatus { state: EARLIER, workers: Vec::new(), ..new.clone() };
        new.queued = 7;
        let status = Status { groups: vec![old, new], ..Status::default() };
        let start = about(&Order::Start { group: "a".into() }, &status, true);
        assert_eq!(start["group"]["queued"], 7);
        let load = about(&Order::Load { model: "m".into(), workers: None }, &status, false);
        assert_eq!((&load["group"]["queued"], &load["model"], &load["done"]), (&json!(7), &json!("m"), &json!(false)));
        let unknown = about(&Order::Unload { model: "x".into() }, &status, true);
        assert_eq!(unknown["group"], Value::Null);
    }
}
