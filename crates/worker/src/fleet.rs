//! The workers that there are, and what the planner knows of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyserve_core::Resources;
use anyserve_sched::{PlaceEvent, PlaceId, Pools, WorkerId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerEvent;
use crate::dispatch::Inner;
use crate::group::WorkerGroup;

/// The planner and the workers that it has ordered.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) pools: Pools,
    pub(crate) crew: BTreeMap<PlaceId, Member>,
}

/// One worker, over all its processes.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) group: Arc<WorkerGroup>,
    pub(crate) grant: Resources,
    pub(crate) state: &'static str,
    pub(crate) since: Instant,
    pub(crate) pid: Option<u32>,
    /// The number of its newest process.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) detail: String,
    wishes: mpsc::Sender<Wish>,
    leave: CancellationToken,
}

/// What a worker's supervisor is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Give the resources back and stay alive.
    Sleep,
    /// Take them again.
    Wake,
    /// What is not finished after this time is ended. Told before it is asked to leave.
    Hurry(Duration),
}

/// Wishes on their way to a supervisor. The planner waits for the answer to one before it has the next.
const MAX_WISHES: usize = 8;

/// What a new worker's supervisor is given.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) place: PlaceId,
    pub(crate) name: String,
    pub(crate) group: Arc<WorkerGroup>,
    pub(crate) grant: Resources,
    pub(crate) wishes: mpsc::Receiver<Wish>,
    /// It is to leave.
    pub(crate) leave: CancellationToken,
}

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new(pools: Pools) -> Self {
        Self { pools, crew: BTreeMap::new() }
    }

    /// Makes room in the books for a worker.
    pub(crate) fn hire(&mut self, place: PlaceId, group: &Arc<WorkerGroup>, grant: Resources) -> Station {
        let (asked, wishes) = mpsc::channel(MAX_WISHES);
        let (name, leave) = (self.free_name(group.name()), CancellationToken::new());
        let member = Member {
            name: name.clone(),
            group: Arc::clone(group),
            grant: grant.clone(),
            state: "starting",
            since: Instant::now(),
            pid: None,
            worker: None,
            detail: String::new(),
            wishes: asked,
            leave: leave.clone(),
        };
        self.crew.insert(place, member);
        Station { place, name, group: Arc::clone(group), grant, wishes, leave }
    }

    /// The first name of a group's workers that nobody has.
    fn free_name(&self, group: &str) -> String {
        let group = if group == anyserve_core::DEFAULT_GROUP { "worker" } else { group };
        let names = (0u32..).map(|number| format!("{group}-{number}"));
        let taken = |name: &String| self.crew.values().any(|member| member.name == *name);
        names.filter(|name| !taken(name)).find(|_| true).unwrap_or_default()
    }

    /// The workers of a group, the oldest first.
    pub(crate) fn of<'a>(&'a self, group: &'a WorkerGroup) -> impl DoubleEndedIterator<Item = (PlaceId, &'a Member)> {
        let own = self.crew.iter().filter(|(_, member)| member.group.id == group.id);
        own.map(|(place, member)| (*place, member))
    }

    /// Asks a worker to leave, which the planner knows of.
    pub(crate) fn dismiss(&mut self, place: PlaceId, grace: Option<Duration>) {
        self.pools.stopping(place);
        if let Some(member) = self.crew.get(&place) {
            if let Some(grace) = grace {
                member.wish(Wish::Hurry(grace));
            }
            member.leave.cancel();
        }
    }
}

// === impl Member ===

impl Member {
    /// Asks something of its supervisor. One that has ended has no use for it.
    pub(crate) fn wish(&self, wish: Wish) {
        let _ = self.wishes.try_send(wish);
    }

    pub(crate) fn leave(&self) {
        self.leave.cancel();
    }
}

// === impl Inner ===

impl Inner {
    /// Notes a worker's state and tells whoever listens.
    pub(crate) fn tell(&self, place: PlaceId, state: &'static str, pid: Option<u32>, detail: &str) {
        let mut fleet = self.fleet.lock();
        let Some(member) = fleet.crew.get_mut(&place) else { return };
        if member.state != state {
            member.since = Instant::now();
        }
        (member.state, member.pid, member.detail) = (state, pid, detail.to_owned());
        let worker = member.name.clone();
        drop(fleet);
        (self.config.on_event)(WorkerEvent { worker, state, pid, detail: detail.to_owned() });
    }

    /// Something has become of a worker that the planner has to know.
    pub(crate) fn report(&self, place: PlaceId, event: PlaceEvent) {
        let mut fleet = self.fleet.lock();
        fleet.pools.on(place, event, Instant::now());
        if event == PlaceEvent::Gone {
            fleet.crew.remove(&place);
        }
        drop(fleet);
        self.replan.notify_one();
        self.publish_catalog();
    }

    /// A number for a new process of a worker.
    pub(crate) fn number_worker(&self, station: &Station) -> WorkerId {
        let worker = WorkerId(self.next_worker.fetch_add(1, Relaxed));
        self.names.lock().insert(worker, station.name.clone());
        if let Some(member) = self.fleet.lock().crew.get_mut(&station.place) {
            member.worker = Some(worker);
        }
        station.group.starts.fetch_add(1, Relaxed);
        worker
    }

    /// The live worker group with this number.
    pub(crate) fn group(&self, id: anyserve_sched::GroupId) -> Option<Arc<WorkerGroup>> {
        self.groups.load().iter().find(|group| group.id == id).cloned()
    }

    /// A request has come to a group: the planner has to look if it may start a worker for it, and is not looking anyway.
    pub(crate) fn nudge(&self, group: &WorkerGroup) {
        if group.ready_workers() == 0 || !self.watches.load(Relaxed) && group.is_elastic() {
            self.replan.notify_one();
        }
    }
}
