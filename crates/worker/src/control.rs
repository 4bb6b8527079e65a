//! The pool's inside as operators see it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Control, Directory, Error, GroupStatus, Obeyed, Order, Status, WorkerStatus};

use crate::pool::{Pool, group_name, worker_name};

/// When the replica was first looked at.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Control for Pool {
    fn status(&self) -> Status {
        let (snapshot, draining) = (self.snapshot(), self.inner.is_draining());
        let in_flight = u64::try_from(self.in_flight()).unwrap_or(u64::MAX);
        Status {
            uptime: STARTED.elapsed(),
            draining,
            in_flight,
            safe_to_stop: draining && in_flight == 0,
            generation: 1,
            groups: vec![self.group(snapshot.restarts.iter().map(|(_, count)| count).sum())],
            resources: Vec::new(),
            objects: snapshot.objects,
        }
    }

    fn order(&self, _: Order) -> Obeyed {
        let message = "this replica's workers are started and stopped by nothing but the replica itself";
        Box::pin(std::future::ready(Err(Error::new(Code::Unsupported, message))))
    }
}

// === impl Pool ===

impl Pool {
    fn group(&self, restarts: u64) -> GroupStatus {
        let (snapshot, catalog) = (self.snapshot(), self.catalog());
        let sum = |counts: &[(String, u64)]| counts.iter().map(|(_, count)| count).sum();
        let mut models: Vec<_> = catalog.entries.iter().map(|entry| entry.handler.model_name()).collect();
        models.dedup();
        let counted: Vec<_> = (0..catalog.entries.len()).filter_map(|index| self.statistics(index)).collect();
        let workers = self.workers();
        GroupStatus {
            name: group_name(),
            state: if workers.iter().any(|worker| worker.state == "ready") { "ready" } else { "starting" },
            models,
            workers,
            min_workers: self.inner.config.workers,
            max_workers: self.inner.config.workers,
            queued: sum(&snapshot.queued),
            in_flight: sum(&snapshot.in_flight),
            succeeded: counted.iter().map(|one| one.success.count).sum(),
            failed: counted.iter().map(|one| one.fail.count + one.cancel.count).sum(),
            starts: u64::from(self.inner.config.workers) + restarts,
            restarts,
            ..GroupStatus::default()
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let states = self.inner.states.lock();
        let named = (0_u32..).zip(states.iter()).map(|(index, state)| WorkerStatus {
            name: worker_name(index),
            state,
            since: Duration::ZERO,
            ..WorkerStatus::default()
        });
        named.collect()
    }
}
