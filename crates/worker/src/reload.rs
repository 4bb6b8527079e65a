//! The app is loaded again while it serves: new workers come up beside the old ones, requests move, the old ones leave.
//!
//! ```text
//!  load ──► new groups ──► their workers are ready ──► requests go to them ──► the old groups finish and leave
//!    │                          │
//!    └── cannot be loaded ──────┴── do not start ──► the new groups leave; nothing has changed
//! ```
//!
//! Where the resources do not suffice for a group beside its old self, requests move first: they wait until the old
//! workers have finished and made room.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyserve_core::{Code, Error};

use crate::dispatch::Inner;
use crate::group::WorkerGroup;
use crate::pool::Pool;

// === impl Pool ===

impl Pool {
    /// Loads the app again.
    ///
    /// # Errors
    /// `UNAVAILABLE` with the reason if it cannot be loaded or its workers do not start, `OVERLOADED` if it is being loaded
    /// again already. Nothing has changed then.
    ///
    /// # Cancel safety
    /// Not safe: run it on a task of its own.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let busy = |_| Error::new(Code::Overloaded, "the app is being loaded again already; wait for that to end");
        let _alone = inner.reloading.try_lock().map_err(busy)?;
        let old = inner.current();
        let number = old.first().map_or(0, |group| group.app.number) + 1;
        let new = inner.load_app(&self.nursery, number).await?;
        inner.match_numbers(&old, &new);
        if let Err(error) = inner.come_up_beside(&new).await {
            inner.retire(&new);
            return Err(error.into());
        }
        inner.route_to(&new);
        inner.retire(&old);
        for group in &new {
            let _ = inner.want(group, 0);
        }
        tracing::info!(generation = number, "the app was loaded again");
        Ok(())
    }
}

// === impl Inner ===

impl Inner {
    /// The groups that requests go to.
    pub(crate) fn current(&self) -> Vec<Arc<WorkerGroup>> {
        let number = self.routes.load().all().next().map(|route| route.group.app.number);
        self.groups.load().iter().filter(|group| Some(group.app.number) == number).cloned().collect()
    }

    /// Until requests move, the new groups have as many workers as the old ones.
    fn match_numbers(&self, old: &[Arc<WorkerGroup>], new: &[Arc<WorkerGroup>]) {
        for group in new {
            let Some(before) = old.iter().find(|old| old.name() == group.name()) else { continue };
            let (min, max) = *group.bounds.lock();
            // As many as there is room for will do.
            let _ = self.want(group, before.ready_workers().clamp(min, max));
        }
    }

    /// Waits until the new workers are ready, as far as there is room for them beside the old ones.
    async fn come_up_beside(&self, new: &[Arc<WorkerGroup>]) -> Result<(), crate::StartError> {
        let Some(app) = new.first().map(|group| Arc::clone(&group.app)) else { return Ok(()) };
        let mut plans = self.plans.subscribe();
        let before = *plans.borrow_and_update();
        self.replan.notify_one();
        // A look that is counted from here on has seen them: then it is known for which of them there is room.
        let _ = plans.wait_for(|plans| *plans > before).await;
        self.until(|| why_not_up(new).is_some() || new.iter().all(|group| self.is_up_beside(group))).await;
        why_not_up(new).map_or_else(
            || {
                app.settle();
                Ok(())
            },
            Err,
        )
    }

    /// Whether all of its workers that there is room for are ready.
    fn is_up_beside(&self, group: &WorkerGroup) -> bool {
        let fleet = self.fleet.lock();
        let ordered = fleet.of(group).count();
        let ready = usize::try_from(group.ready_workers()).unwrap_or(usize::MAX);
        let waits_for_room = ordered == 0 && !group.spec.needs.is_nothing();
        ready >= ordered && (ordered > 0 || waits_for_room || group.is_on_demand())
    }

    /// Nothing new goes to these groups; their workers leave when everything is answered.
    fn retire(&self, groups: &[Arc<WorkerGroup>]) {
        let mut fleet = self.fleet.lock();
        for group in groups {
            group.retired.store(true, Relaxed);
            fleet.pools.retire(group.id);
        }
        drop(fleet);
        self.replan.notify_one();
        // Whoever waits for their workers is to see it.
        self.publish_catalog();
    }
}

fn why_not_up(new: &[Arc<WorkerGroup>]) -> Option<crate::StartError> {
    new.iter().find_map(|group| group.app.failure().or_else(|| group.failure().1))
}
