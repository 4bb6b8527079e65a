//! The registry behind a lock, with the one policy and the clock that it needs.

use std::time::Instant;

use anyserve_cluster::policy::Policy;
use anyserve_cluster::{Call, Event, Handle, Registry, RegistryConfig, Route, Step};
use anyserve_core::Error;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The replicas that this API server knows, shared by everything that it does.
///
/// The lock is held for one decision at a time and never across an await.
#[derive(Debug)]
pub struct Fleet {
    registry: Mutex<Registry>,
    policy: Box<dyn Policy>,
    /// Told whenever the next thing to do may be due earlier than it was.
    changed: Notify,
}

// === impl Fleet ===

impl Fleet {
    /// An empty one.
    pub fn new(config: RegistryConfig, policy: Box<dyn Policy>) -> Self {
        Self { registry: Mutex::new(Registry::new(config)), policy, changed: Notify::new() }
    }

    /// A request sets out: its way, and the first step of it.
    pub fn begin(&self, call: Call) -> (Route, Step) {
        let mut route = Route::new(call);
        let step = route.begin(&mut self.registry.lock(), &*self.policy, Instant::now());
        (route, step)
    }

    /// The step after an event. One that cannot be is a bug, and the request's end.
    pub fn on(&self, route: &mut Route, event: Event) -> Step {
        let step = route.on(event, &mut self.registry.lock(), &*self.policy, Instant::now());
        self.changed.notify_one();
        step.unwrap_or_else(|unexpected| {
            tracing::error!(%unexpected, "a request lost its way");
            Step::Over(Err(Error::internal(format!("a request lost its way: {unexpected}"))))
        })
    }

    /// Whether this start of a replica is registered.
    pub(crate) fn knows(&self, handle: Handle) -> bool {
        self.registry.lock().knows(handle)
    }

    /// Whether the policy looks at how a prompt begins.
    pub(crate) fn reads_prompts(&self) -> bool {
        self.policy.reads_prompts()
    }

    /// Looks at the registry, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Registry, Instant) -> T) -> T {
        let seen = look(&mut self.registry.lock(), Instant::now());
        self.changed.notify_one();
        seen
    }
}
