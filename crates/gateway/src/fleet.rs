//! The registry behind a lock, with the one policy and the clock that it needs.

mod counters;
mod prober;
mod tend;

use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::policy::{Keys, Policy};
use anyserve_cluster::{
    Announce, Answer, Call, Event, Handle, Heartbeat, MessageError, OfferView, Registry, RegistryConfig, ReplicaView,
    Resolved, Route, Step,
};
use anyserve_core::{Error, Query, Upgrades};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::{Memory, Said, Store};

pub use counters::{Counted, Counters};
pub use prober::{GrpcProber, Prober};

/// The replicas that this API server knows, shared by everything that it does.
///
/// The lock is held for one decision at a time and never across an await.
#[derive(Debug)]
pub struct Fleet {
    registry: Mutex<Registry>,
    policy: Box<dyn Policy>,
    /// Told whenever the next thing to do is due earlier than it was.
    changed: Notify,
    counters: Counters,
    store: Arc<dyn Store>,
    started: Instant,
}

/// Replicas whose capabilities are looked at while the lock is held.
const CHUNK: usize = 256;

// === impl Fleet ===

impl Fleet {
    /// An empty one, which no other API server shares.
    pub fn new(config: RegistryConfig, policy: Box<dyn Policy>) -> Self {
        Self::with_store(config, policy, Arc::new(Memory))
    }

    /// An empty one; what it hears goes to the store as well.
    pub fn with_store(config: RegistryConfig, policy: Box<dyn Policy>, store: Arc<dyn Store>) -> Self {
        Self {
            registry: Mutex::new(Registry::new(config)),
            policy,
            changed: Notify::new(),
            counters: Counters::default(),
            store,
            started: Instant::now(),
        }
    }

    /// A request sets out: its way, and the first step of it.
    pub fn begin(&self, call: Call) -> (Route, Step) {
        let mut route = Route::new(call);
        let step = route.begin(&mut self.registry.lock(), &*self.policy, Instant::now());
        self.counters.began();
        self.counters.stepped(&route, &step);
        (route, step)
    }

    /// The step after an event. One that cannot be is a bug, and the request's end.
    pub fn on(&self, route: &mut Route, event: Event) -> Step {
        self.counters.happened(&event);
        let step = self.with(|registry, now| route.on(event, registry, &*self.policy, now));
        let step = step.unwrap_or_else(|unexpected| {
            tracing::error!(%unexpected, "a request lost its way");
            Step::Over(Err(Error::internal(format!("a request lost its way: {unexpected}"))))
        });
        self.counters.stepped(route, &step);
        step
    }

    /// A replica announces itself here.
    ///
    /// # Errors
    /// [`MessageError`] for what is beyond the limits, or no room; nothing is changed then.
    pub fn announce(&self, announce: &Announce) -> Result<Answer, MessageError> {
        let answer = self.with(|registry, now| registry.announce(announce, now))?;
        if answer == Answer::Accepted {
            self.store.heard(Said::Announced(announce));
        }
        Ok(answer)
    }

    /// A replica says here that it is there. It is to announce itself if the store does not know enough to tell others.
    ///
    /// # Errors
    /// [`MessageError`] if it does not fit the announcement; nothing is changed then.
    pub fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<Answer, MessageError> {
        let answer = self.with(|registry, now| registry.heartbeat(heartbeat, now))?;
        let told = answer != Answer::Accepted || self.store.heard(Said::Beat(heartbeat));
        Ok(if told { answer } else { Answer::AnnounceAgain })
    }

    /// A replica says here that it goes.
    pub fn leave(&self, id: &str, epoch: u64) -> Answer {
        let answer = self.with(|registry, now| registry.leave(id, epoch, now));
        if answer == Answer::Accepted {
            self.store.heard(Said::Left { id, epoch });
        }
        answer
    }

    /// Who a request should go to that somebody else sends.
    ///
    /// # Errors
    /// [`Registry::nobody`]: `UNAVAILABLE` while nobody is registered, `NO_CAPABILITY` if nobody serves it who is not to be
    /// avoided.
    pub fn resolve(&self, query: &Query, keys: &Keys, avoid: &[Arc<str>]) -> Result<Resolved, Error> {
        self.with(|registry, now| {
            let found = registry.resolve(query, avoid, &*self.policy, keys, now);
            found.ok_or_else(|| registry.nobody(query, avoid.len()))
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

    /// Who a request would be sent to that nobody says they serve: the most promising one.
    pub fn promises(&self, query: &Query, keys: &Keys) -> Option<Resolved> {
        self.with(|registry, now| registry.promises(query, &*self.policy, keys, now))
    }

    /// Looks at the registry, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Registry, Instant) -> T) -> T {
        let mut registry = self.registry.lock();
        let before = registry.next_due();
        let seen = look(&mut registry, Instant::now());
        let after = registry.next_due();
        drop(registry);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.changed.notify_one();
        }
        seen
    }

    /// What is known of everybody, by id. Those whose leases are over have gone first.
    pub fn views(&self) -> Vec<ReplicaView> {
        let mut views: Vec<_> = self.with(|registry, now| {
            registry.expire(now);
            registry.views().collect()
        });
        views.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        views
    }

    /// These replicas with their capabilities. The lock is held for some of them at a time.
    pub fn offers_of(&self, views: &[ReplicaView]) -> Vec<Vec<OfferView>> {
        let of = |some: &[ReplicaView]| {
            self.with(|registry, _| some.iter().map(|view| registry.offers(&view.id)).collect::<Vec<_>>())
        };
        views.chunks(CHUNK).flat_map(of).collect()
    }

    /// The upgrade rules of these replicas, as each announced them.
    pub fn upgrades_of(&self, views: &[ReplicaView]) -> Vec<Upgrades> {
        let of = |some: &[ReplicaView]| {
            self.with(|registry, _| some.iter().map(|view| registry.upgrades(&view.id)).collect::<Vec<_>>())
        };
        views.chunks(CHUNK).flat_map(of).collect()
    }

    /// What is counted of requests.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where several API servers share what they hear.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The name of the policy.
    pub fn policy(&self) -> &'static str {
        self.policy.name()
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }
}
