//! The inside of the replica, as operators see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use anyserve_core::{GroupStatus, ResourceStatus, Statistics, Status, WorkerCount, WorkerStatus};
use anyserve_sched::GroupLoad;

use crate::dispatch::Inner;
use crate::fleet::{Fleet, Member};
use crate::group::WorkerGroup;
use crate::routes::Routes;

// === impl Inner ===

impl Inner {
    /// Everything that is shown.
    pub(crate) fn status(&self) -> Status {
        let (groups, routes, now) = (self.groups.load(), self.routes.load(), Instant::now());
        let (draining, in_flight) = (self.is_draining(), self.live_requests() as u64);
        let fleet = self.fleet.lock();
        Status {
            uptime: self.started.elapsed(),
            draining,
            in_flight,
            safe_to_stop: draining && in_flight == 0,
            generation: groups.iter().map(|group| group.app.number).max().unwrap_or(0),
            groups: groups.iter().map(|group| self.group_status(group, &fleet, &routes, now)).collect(),
            resources: fleet
                .pools
                .used()
                .into_iter()
                .map(|(name, total, used)| ResourceStatus { name, total, used })
                .collect(),
            objects: self.store_load(),
        }
    }

    fn group_status(&self, group: &Arc<WorkerGroup>, fleet: &Fleet, routes: &Routes, now: Instant) -> GroupStatus {
        let load = self.ask(|dispatch| dispatch.machine.load(group.id));
        let workers: Vec<_> = fleet.of(group).map(|(_, member)| self.worker_status(group, member)).collect();
        let (min_workers, max_workers) = *group.bounds.lock();
        let counted = counted(group, routes);
        GroupStatus {
            name: group.name().to_owned(),
            state: state_of(group, &load, &workers),
            models: models(group),
            min_workers,
            max_workers,
            needs: group.spec.needs.clone(),
            queued: load.queued as u64,
            in_flight: load.in_flight as u64,
            oldest_wait: load.oldest.map(|oldest| now.saturating_duration_since(oldest)),
            succeeded: counted.iter().map(|of| of.success.count).sum(),
            failed: counted.iter().map(|of| of.fail.count).sum(),
            starts: group.starts.load(Relaxed),
            restarts: group.restarts.load(Relaxed),
            start_time: fleet.pools.start_time(group.id),
            wake_time: fleet.pools.wake_time(group.id),
            workers,
        }
    }

    fn worker_status(&self, group: &WorkerGroup, member: &Member) -> WorkerStatus {
        let held = |worker| self.ask(|dispatch| dispatch.machine.worker_load(group.id, worker));
        WorkerStatus {
            name: member.name.clone(),
            state: member.state,
            since: member.since.elapsed(),
            pid: member.pid,
            in_flight: member.worker.map_or(0, held) as u64,
            gpus: member.grant.gpus.clone(),
            memory: member.pid.and_then(own_memory),
            detail: member.detail.clone(),
        }
    }

    /// How many workers are in which state, by group.
    pub(crate) fn worker_counts(&self) -> Vec<WorkerCount> {
        let mut counts: Vec<WorkerCount> = Vec::new();
        for member in self.fleet.lock().crew.values() {
            let (group, state) = (member.group.name(), member.state);
            match counts.iter_mut().find(|known| known.group == group && known.state == state) {
                Some(known) => known.count += 1,
                None => counts.push(WorkerCount { group: group.to_owned(), state, count: 1 }),
            }
        }
        counts
    }
}

fn models(group: &WorkerGroup) -> Vec<String> {
    let mut models: Vec<String> = Vec::new();
    for handler in &group.handlers {
        let model = handler.model_name();
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models
}

fn counted(group: &WorkerGroup, routes: &Routes) -> Vec<Statistics> {
    routes.all().filter(|route| route.group.id == group.id).map(|route| route.counters.read()).collect()
}

/// The one word for a group.
fn state_of(group: &WorkerGroup, load: &GroupLoad, workers: &[WorkerStatus]) -> &'static str {
    let any = |state: &[&str]| workers.iter().any(|worker| state.contains(&worker.state));
    match load {
        _ if group.is_retired() => "leaving",
        _ if !group.is_loaded() => "unloaded",
        _ if load.workers > 0 => "ready",
        _ if load.down => "down",
        _ if any(&["starting", "waking", "backing-off", "replacing"]) => "starting",
        _ if any(&["asleep", "falling-asleep"]) && load.queued == 0 => "asleep",
        _ if load.queued > 0 || !group.is_on_demand() => "waiting",
        _ => "stopped",
    }
}

/// Bytes of a process that are resident and not shared. Source: `proc_pid_statm(5)`.
fn own_memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
    let (resident, shared) = (fields.next()?, fields.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_lives_has_memory_of_its_own_and_one_that_does_not_has_none() {
        assert!(own_memory(std::process::id()).is_some_and(|bytes| bytes > 0));
        assert_eq!(own_memory(u32::MAX), None);
    }
}
