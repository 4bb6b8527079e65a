//! Orders of operators: models loaded and unloaded, workers started, drained and stopped, the app loaded again.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyserve_core::{Code, Control, Error, Obeyed, Order, Query, Status};
use anyserve_sched::PlaceId;

use crate::dispatch::Inner;
use crate::group::WorkerGroup;
use crate::pool::Pool;

/// How often it is looked whether the replica is empty, once somebody waits for it.
const LOOK: Duration = Duration::from_millis(10);
/// Names that an error lists at most.
const MAX_LISTED: usize = 20;

// === impl Pool ===

impl Control for Pool {
    fn status(&self) -> Status {
        self.inner.status()
    }

    fn order(&self, order: Order) -> Obeyed {
        let begun = match order {
            Order::Load { model, workers } => self.load(&model, workers),
            Order::Unload { model } => self.unload(&model),
            Order::Start { group } => self.start_one(&group),
            Order::Scale { group, workers } => self.scale(&group, workers),
            Order::Drain { name } => self.dismiss(&name, None),
            Order::Stop { name } => self.dismiss(&name, Some(self.inner.config.grace)),
            Order::Reload => Ok(self.begin_reload()),
            Order::DrainReplica => Ok(self.drain_replica()),
        };
        begun.unwrap_or_else(|error| Box::pin(ready(Err(error))))
    }

    fn give_up(&self) {
        self.inner.end_all();
    }
}

impl Pool {
    fn load(&self, model: &str, workers: Option<u32>) -> Result<Obeyed, Error> {
        self.inner.check_not_leaving()?;
        let group = self.inner.group_of_model(model)?;
        group.loaded.store(true, Relaxed);
        let mut fleet = self.inner.fleet.lock();
        fleet.pools.set_loaded(group.id, true);
        drop(fleet);
        self.inner.dispatch.lock().machine.open_group(group.id);
        if let Some(workers) = workers {
            let max = group.bounds.lock().1.max(workers);
            self.inner.bound(&group, (workers, max))?;
        }
        self.inner.publish_catalog();
        let (pool, least) = (self.clone(), workers.unwrap_or(1).max(1));
        Ok(Box::pin(async move { pool.have(&group, least).await }))
    }

    fn unload(&self, model: &str) -> Result<Obeyed, Error> {
        let group = self.inner.group_of_model(model)?;
        group.loaded.store(false, Relaxed);
        self.inner.fleet.lock().pools.set_loaded(group.id, false);
        let message = format!("model '{model}' is not at ready state: it was unloaded; load it to serve it again");
        let error = Error::new(Code::Unavailable, message);
        // What came through an API server has not begun, and may be served elsewhere as it is.
        let alone = self.inner.config.uplink.is_none();
        let error = if alone { error } else { error.with_hand_back(Query::model("")) };
        let close = |dispatch: &mut crate::dispatch::Dispatch, now| {
            dispatch.machine.close_group(group.id, error, now, &mut dispatch.actions);
        };
        self.inner.event(close).1.finish();
        self.inner.replan.notify_one();
        self.inner.publish_catalog();
        Ok(Box::pin(ready(Ok(()))))
    }

    fn start_one(&self, name: &str) -> Result<Obeyed, Error> {
        self.inner.check_not_leaving()?;
        let group = self.inner.group_named(name)?;
        if !group.is_loaded() {
            let message = format!("the group '{name}' is unloaded: load its model first");
            return Err(Error::new(Code::Unavailable, message));
        }
        let awake = group.ready_workers() + 1;
        let (min, max) = *group.bounds.lock();
        if awake > max {
            self.inner.bound(&group, (min, awake))?;
        }
        let pool = self.clone();
        Ok(Box::pin(async move { pool.have(&group, awake).await }))
    }

    fn scale(&self, name: &str, workers: u32) -> Result<Obeyed, Error> {
        self.inner.check_not_leaving()?;
        if workers > anyserve_wire::MAX_WORKERS {
            return Err(Error::invalid(format!("{workers} workers are more than {}", anyserve_wire::MAX_WORKERS)));
        }
        let group = self.inner.group_named(name)?;
        let max = group.spec.workers.map_or(workers, |(_, max)| max.max(workers)).max(1);
        self.inner.bound(&group, (workers, max))?;
        let leaving = self.inner.dismiss_beyond(&group, workers);
        let pool = self.clone();
        Ok(Box::pin(async move {
            pool.inner.until_gone(&leaving).await;
            if workers > 0 { pool.have(&group, workers).await } else { Ok(()) }
        }))
    }

    fn dismiss(&self, name: &str, grace: Option<Duration>) -> Result<Obeyed, Error> {
        let places = self.inner.places_named(name)?;
        let mut fleet = self.inner.fleet.lock();
        for place in &places {
            fleet.dismiss(*place, grace);
        }
        drop(fleet);
        self.inner.replan.notify_one();
        let inner = Arc::clone(&self.inner);
        Ok(Box::pin(async move {
            inner.until_gone(&places).await;
            Ok(())
        }))
    }

    fn begin_reload(&self) -> Obeyed {
        if let Err(error) = self.inner.check_not_leaving() {
            return Box::pin(ready(Err(error)));
        }
        // On a task of its own, so that it is carried out although nobody waits; the pool's end ends its workers.
        let pool = self.clone();
        let reload = tokio::spawn(async move { pool.reload().await });
        Box::pin(async move { reload.await.unwrap_or_else(|error| Err(Error::internal(error.to_string()))) })
    }

    fn drain_replica(&self) -> Obeyed {
        self.refuse();
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            while inner.live_requests() > 0 {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
    }

    /// Waits until so many workers of a group are ready. They are wanted only as long as it takes.
    ///
    /// # Errors
    /// `UNAVAILABLE` with the reason if one does not start or a later order wants fewer, `OVERLOADED` if there are no
    /// resources for that many.
    async fn have(&self, group: &Arc<WorkerGroup>, workers: u32) -> Result<(), Error> {
        let (min, max) = *group.bounds.lock();
        let failures = group.failure().0;
        if workers > max {
            self.inner.try_bounds(group, (min, workers))?;
        }
        let held = Held::try_new(&self.inner, group, workers)?;
        let met = || group.ready_workers() >= workers;
        let in_vain = || group.failure().0 > failures || why_given_up(group, max, workers).is_some();
        self.inner.until(|| met() || in_vain()).await;
        drop(held);
        if met() {
            return Ok(());
        }
        let (count, newest) = group.failure();
        let failed = newest.filter(|_| count > failures).map(Error::from);
        let given_up = || Error::new(Code::Unavailable, why_given_up(group, max, workers).unwrap_or_default());
        Err(failed.unwrap_or_else(given_up))
    }
}

/// Why an order for so many workers cannot be met any more; `max` is how many the group could have when it was given.
fn why_given_up(group: &WorkerGroup, max: u32, workers: u32) -> Option<String> {
    let most = group.bounds.lock().1;
    if !group.is_loaded() {
        Some("it was unloaded meanwhile".to_owned())
    } else if group.is_retired() {
        Some("the app was loaded again meanwhile; order it again for the new workers".to_owned())
    } else if most != max && most < workers {
        Some(format!("a later order wants at most {most} workers of it"))
    } else {
        None
    }
}

/// Workers are wanted until this is dropped. Of several orders about one group the largest counts.
struct Held<'a> {
    inner: &'a Inner,
    group: &'a WorkerGroup,
    workers: u32,
}

// === impl Held ===

impl<'a> Held<'a> {
    fn try_new(inner: &'a Inner, group: &'a WorkerGroup, workers: u32) -> Result<Self, Error> {
        group.ordered.lock().push(workers);
        let held = Self { inner, group, workers };
        held.want()?;
        Ok(held)
    }

    fn want(&self) -> Result<(), Error> {
        let most = self.group.ordered.lock().iter().copied().max();
        self.inner.want(self.group, most.unwrap_or(0))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut ordered = self.group.ordered.lock();
        if let Some(place) = ordered.iter().position(|workers| *workers == self.workers) {
            ordered.swap_remove(place);
        }
        drop(ordered);
        let _ = self.want();
    }
}

// === impl Inner ===

impl Inner {
    fn check_not_leaving(&self) -> Result<(), Error> {
        if self.is_draining() {
            return Err(Error::new(Code::Draining, "this replica is leaving; it starts nothing any more"));
        }
        Ok(())
    }

    /// The bounds of a group from now on.
    fn bound(&self, group: &WorkerGroup, bounds: (u32, u32)) -> Result<(), Error> {
        self.try_bounds(group, bounds)?;
        *group.bounds.lock() = bounds;
        // Whoever waits for more than that is to see it.
        self.publish_catalog();
        Ok(())
    }

    fn try_bounds(&self, group: &WorkerGroup, (min, max): (u32, u32)) -> Result<(), Error> {
        let set = self.fleet.lock().pools.set_bounds(group.id, min, max);
        self.replan.notify_one();
        set.map_err(|error| Error::new(Code::Overloaded, error.to_string()))
    }

    /// Has the planner start so many workers, if there are fewer.
    pub(crate) fn want(&self, group: &WorkerGroup, workers: u32) -> Result<(), Error> {
        let wanted = self.fleet.lock().pools.want(group.id, workers);
        self.replan.notify_one();
        wanted.map_err(|error| Error::new(Code::Overloaded, error.to_string()))
    }

    /// The group whose handlers a KServe client means by this name.
    fn group_of_model(&self, model: &str) -> Result<Arc<WorkerGroup>, Error> {
        let routes = self.routes.load();
        let query = Query::model(model);
        let found = routes.candidates(&query, "").ok().and_then(|found| found.iter().next().cloned());
        found.map(|route| Arc::clone(&route.group)).ok_or_else(|| {
            let served: BTreeSet<_> = routes.all().map(|route| route.handler.model_name()).collect();
            not_found(&format!("unknown model '{model}'"), served)
        })
    }

    fn group_named(&self, name: &str) -> Result<Arc<WorkerGroup>, Error> {
        let groups = self.current();
        let found = groups.iter().find(|group| group.name() == name).cloned();
        found.ok_or_else(|| {
            let names = groups.iter().map(|group| group.name().to_owned()).collect();
            not_found(&format!("there is no worker group '{name}'"), names)
        })
    }

    /// The workers that this is the name of, or whose group it is the name of.
    fn places_named(&self, name: &str) -> Result<Vec<PlaceId>, Error> {
        let fleet = self.fleet.lock();
        let places: Vec<_> = fleet
            .crew
            .iter()
            .filter(|(_, member)| member.name == name || member.group.name() == name)
            .map(|(place, _)| *place)
            .collect();
        let known = || self.groups.load().iter().any(|group| group.name() == name);
        if places.is_empty() && !known() {
            let names = fleet.crew.values().flat_map(|member| [member.name.clone(), member.group.name().to_owned()]);
            return Err(not_found(&format!("there is no worker and no group '{name}'"), names.collect()));
        }
        Ok(places)
    }

    /// Asks the newest workers beyond a number to leave.
    fn dismiss_beyond(&self, group: &WorkerGroup, workers: u32) -> Vec<PlaceId> {
        let mut fleet = self.fleet.lock();
        let own: Vec<_> = fleet.of(group).map(|(place, _)| place).collect();
        let beyond: Vec<_> = own.into_iter().skip(usize::try_from(workers).unwrap_or(usize::MAX)).collect();
        for place in &beyond {
            fleet.dismiss(*place, None);
        }
        beyond
    }

    async fn until_gone(&self, places: &[PlaceId]) {
        self.until(|| {
            let fleet = self.fleet.lock();
            places.iter().all(|place| !fleet.crew.contains_key(place))
        })
        .await;
    }
}

fn not_found(what: &str, names: BTreeSet<String>) -> Error {
    let names: Vec<_> = names.into_iter().take(MAX_LISTED).collect();
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    Error::new(Code::NotFound, format!("{what}; there is {names}"))
}
