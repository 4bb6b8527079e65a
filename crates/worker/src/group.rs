//! A worker group as the shell knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use anyserve_core::{GroupSpec, Handler};
use anyserve_sched::{GroupId, GroupLoad, HandlerLimits, PoolGroup};
use parking_lot::Mutex;

use crate::app::App;
use crate::pool::StartError;

/// One worker group of one load of the app.
#[derive(Debug)]
pub(crate) struct WorkerGroup {
    pub(crate) id: GroupId,
    pub(crate) spec: GroupSpec,
    pub(crate) handlers: Vec<Arc<Handler>>,
    /// The load of the app that it belongs to.
    pub(crate) app: Arc<App>,
    /// The fewest and the most workers, as the app and the operator want it.
    pub(crate) bounds: Mutex<(u32, u32)>,
    /// How many workers each of the orders that are being carried out asks for.
    pub(crate) ordered: Mutex<Vec<u32>>,
    /// Workers that take requests.
    pub(crate) ready: AtomicU32,
    /// An operator has not unloaded it.
    pub(crate) loaded: AtomicBool,
    /// A newer load of the app has taken its place.
    pub(crate) retired: AtomicBool,
    pub(crate) starts: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// Why its newest start failed, and how many have.
    failure: Mutex<(u64, Option<StartError>)>,
}

// === impl WorkerGroup ===

impl WorkerGroup {
    pub(crate) fn new(id: GroupId, spec: GroupSpec, app: &Arc<App>, workers: u32) -> Self {
        Self {
            id,
            handlers: spec.handlers.iter().cloned().map(Arc::new).collect(),
            bounds: Mutex::new(bounds(&spec, workers)),
            spec,
            app: Arc::clone(app),
            ordered: Mutex::default(),
            ready: AtomicU32::new(0),
            loaded: AtomicBool::new(true),
            retired: AtomicBool::new(false),
            starts: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            failure: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether a worker is started when a request comes.
    pub(crate) fn is_on_demand(&self) -> bool {
        self.bounds.lock().0 == 0
    }

    /// Whether its number of workers may change with its load.
    pub(crate) fn is_elastic(&self) -> bool {
        let (min, max) = *self.bounds.lock();
        min < max
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Relaxed)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    pub(crate) fn ready_workers(&self) -> u32 {
        self.ready.load(Relaxed)
    }

    /// Notes how many of its workers take requests.
    pub(crate) fn count_ready(&self, load: &GroupLoad) {
        self.ready.store(u32::try_from(load.workers).unwrap_or(u32::MAX), Relaxed);
    }

    /// Whether a worker's handlers are those of the group.
    ///
    /// # Errors
    /// A sentence about the difference.
    pub(crate) fn check_handlers(&self, announced: &[Handler]) -> Result<(), String> {
        let own = &self.handlers;
        if own.len() == announced.len() && own.iter().zip(announced).all(|(own, new)| **own == *new) {
            return Ok(());
        }
        let mut new = announced.iter().enumerate();
        let differs = new.find(|(place, new)| own.get(*place).is_none_or(|own| **own != **new));
        let which = differs.map_or("fewer of them".to_owned(), |(_, handler)| format!("first {}", handler.capability));
        Err(format!(
            "it announced other handlers than the app had when it was loaded ({which}): an app must define the same \
             capabilities, with the same options, each time it is loaded"
        ))
    }

    /// Whether so many workers as are always there are ready.
    pub(crate) fn is_up(&self) -> bool {
        self.ready_workers() >= self.bounds.lock().0
    }

    /// One of its workers did not start.
    pub(crate) fn failed(&self, error: StartError) {
        let mut failure = self.failure.lock();
        *failure = (failure.0 + 1, Some(error));
    }

    /// How many starts have failed, and why the newest did.
    pub(crate) fn failure(&self) -> (u64, Option<StartError>) {
        self.failure.lock().clone()
    }
}

/// What the scheduler knows of a group's handlers.
pub(crate) fn limits_of(spec: &GroupSpec, max_queue: usize) -> Vec<HandlerLimits> {
    let limits = |handler: &Handler| HandlerLimits {
        concurrency: handler.concurrency,
        max_queue: handler.max_queue.and_then(|len| usize::try_from(len).ok()).unwrap_or(max_queue),
        max_batch: usize::try_from(handler.max_batch_size.max(1)).unwrap_or(1),
        max_delay: handler.max_delay,
        idempotent: handler.idempotent,
        sequence: handler.sequence,
    };
    spec.handlers.iter().map(limits).collect()
}

/// What the planner knows of a group.
pub(crate) fn pool_group(spec: &GroupSpec, workers: u32) -> PoolGroup {
    let (min, max) = bounds(spec, workers);
    PoolGroup { needs: spec.needs.clone(), min, max, idle_timeout: spec.idle_timeout, sleeps: spec.sleeps }
}

fn bounds(spec: &GroupSpec, workers: u32) -> (u32, u32) {
    spec.workers.unwrap_or((workers, workers))
}
