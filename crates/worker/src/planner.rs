//! The task that carries out what `anyserve_sched::Pools` decides: it starts workers, and asks them to sleep, wake, leave.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyserve_sched::{PoolAction, Pools};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Inner;
use crate::fleet::{Fleet, Station, Wish};
use crate::group::WorkerGroup;
use crate::pool::Nursery;
use crate::supervisor::Supervisor;

/// Least time between two looks: under load whoever nudges in between shares the next one.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct Planner {
    inner: Arc<Inner>,
    nursery: Nursery,
    /// The replica leaves.
    drain: CancellationToken,
    /// Whatever is left is ended at once.
    kill: CancellationToken,
    supervisors: JoinSet<()>,
}

// === impl Planner ===

impl Planner {
    pub(crate) fn new(inner: Arc<Inner>, nursery: Nursery, drain: CancellationToken, kill: CancellationToken) -> Self {
        Self { inner, nursery, drain, kill, supervisors: JoinSet::new() }
    }

    /// Plans until the replica leaves, and then waits for the last worker.
    ///
    /// # Cancel safety
    /// Dropping the future ends every worker at once.
    pub(crate) async fn run(mut self) {
        while !self.drain.is_cancelled() {
            let next = self.plan();
            tokio::time::sleep(PAUSE).await;
            let replan = self.inner.replan.notified();
            tokio::select! {
                () = replan => {}
                () = at(next) => {}
                () = self.drain.cancelled() => {}
            }
            while self.supervisors.try_join_next().is_some() {}
        }
        self.inner.fleet.lock().crew.values().for_each(super::fleet::Member::leave);
        while self.supervisors.join_next().await.is_some() {}
    }

    /// One look. Returns when to look again although nothing happens.
    fn plan(&mut self) -> Option<Instant> {
        let (mut actions, mut stations) = (Vec::new(), Vec::new());
        let now = Instant::now();
        let mut fleet = self.inner.fleet.lock();
        // The machine is asked under its own lock, group by group.
        let load = |group| self.inner.ask(|dispatch| dispatch.machine.load(group));
        fleet.pools.decide(load, now, &mut actions);
        for action in actions {
            stations.extend(self.carry_out(&mut fleet, action));
        }
        let next = fleet.pools.next_look();
        self.inner.watches.store(next.is_some(), Relaxed);
        self.inner.expect_workers(&fleet.pools, now);
        self.inner.plans.send_modify(|plans| *plans += 1);
        drop(fleet);
        for station in stations {
            self.start(station);
        }
        self.inner.forget_retired();
        next
    }

    fn carry_out(&self, fleet: &mut Fleet, action: PoolAction) -> Option<Station> {
        let wish = |place, wish| fleet.crew.get(&place).into_iter().for_each(|member| member.wish(wish));
        match action {
            PoolAction::Start { place, group, grant } => {
                let group = self.inner.group(group)?;
                return Some(fleet.hire(place, &group, grant));
            }
            PoolAction::Wake(place) => wish(place, Wish::Wake),
            PoolAction::Sleep(place) => wish(place, Wish::Sleep),
            PoolAction::Stop(place) => fleet.crew.get(&place).into_iter().for_each(super::fleet::Member::leave),
        }
        None
    }

    fn start(&mut self, station: Station) {
        let supervisor = Supervisor::new(station, Arc::clone(&self.inner), self.nursery.clone(), self.kill.clone());
        self.supervisors.spawn(supervisor.run());
    }
}

// === impl Inner ===

impl Inner {
    /// Tells the dispatcher how long groups without a worker will have none.
    fn expect_workers(&self, pools: &Pools, now: Instant) {
        let groups = self.groups.load();
        let mut dispatch = self.dispatch.lock();
        for group in groups.iter().filter(|group| group.ready_workers() == 0) {
            dispatch.machine.expect_worker(group.id, pools.expected_start(group.id, now), now);
        }
    }

    /// Tells the dispatcher how long this group will have no worker, from now on: what the planner said when it last looked
    /// was for requests of then.
    pub(crate) fn expect_worker(&self, group: &WorkerGroup) {
        let now = Instant::now();
        let expected = self.fleet.lock().pools.expected_start(group.id, now);
        self.dispatch.lock().machine.expect_worker(group.id, expected, now);
    }

    /// Forgets groups of earlier loads of the app that nobody needs any more.
    fn forget_retired(&self) {
        let groups = self.groups.load();
        if !groups.iter().any(|group| group.is_retired()) {
            return;
        }
        let fleet = self.fleet.lock();
        let is_over = |id| {
            let load = self.ask(|dispatch| dispatch.machine.load(id));
            load.queued == 0 && load.in_flight == 0 && fleet.pools.is_over(id)
        };
        let (over, kept): (Vec<_>, Vec<_>) =
            groups.iter().cloned().partition(|group| group.is_retired() && is_over(group.id));
        if over.is_empty() {
            return;
        }
        self.groups.store(Arc::new(kept));
        for group in over {
            self.event(|dispatch, _| dispatch.machine.retire_group(group.id)).1.finish();
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
