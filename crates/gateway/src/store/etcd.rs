//! etcd as the store: carries out what the mirror decides.

mod client;
mod complaints;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_cluster::{Registry, RegistryConfig};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::entry::Entry;
use super::mirror::{Action, Mirror, MirrorConfig, Noted};
use super::{EtcdConfig, Said, Store, StoreState};
use crate::Fleet;
use complaints::Complaints;
use session::{Session, Told};

/// What is heard is noted here; the driver writes it.
#[derive(Debug)]
struct Etcd {
    /// Held for one note or one decision, never across an await.
    mirror: Mutex<Mirror>,
    /// Told when others are to be told at once.
    woken: Notify,
}

/// What carries out the mirror's decisions.
#[derive(Debug)]
pub(super) struct Driver {
    etcd: Arc<Etcd>,
    config: EtcdConfig,
    registry: RegistryConfig,
    /// Members are taken in turn.
    turn: usize,
    session: Option<Session>,
    /// Why the store is away has been said.
    complained: bool,
    complaints: Arc<Complaints>,
}

/// Time that etcd has for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Changes of the registry that are made under one lock.
const CHUNK: usize = 256;

/// A store that nothing is connected to yet, and what runs it.
pub(super) fn open(config: EtcdConfig, registry: &RegistryConfig, now: Instant) -> (Arc<dyn Store>, Driver) {
    let mirror = MirrorConfig {
        lease: registry.lease,
        pace: registry.heartbeat,
        first_back_off: Duration::from_millis(200),
        longest_back_off: Duration::from_secs(5),
        hold: Duration::from_mins(10),
        max_writes: 64,
        max_seen: registry.limits.max_replicas,
    };
    let etcd = Arc::new(Etcd { mirror: Mutex::new(Mirror::new(mirror, now)), woken: Notify::new() });
    let store: Arc<dyn Store> = Arc::clone(&etcd) as _;
    let (registry, complaints) = (*registry, Arc::default());
    (store, Driver { etcd, config, registry, turn: 0, session: None, complained: false, complaints })
}

// === impl Etcd ===

impl Store for Etcd {
    fn heard(&self, said: Said<'_>) -> bool {
        let noted = self.mirror.lock().heard(said, Instant::now());
        if noted == Noted::ForNow {
            self.woken.notify_one();
        }
        noted != Noted::Unknown
    }

    fn state(&self) -> StoreState {
        if self.mirror.lock().is_connected() { StoreState::Connected } else { StoreState::Disconnected }
    }
}

// === impl Driver ===

impl Driver {
    pub(super) async fn run(mut self, fleet: Arc<Fleet>) {
        let etcd = Arc::clone(&self.etcd);
        loop {
            let (actions, due) = {
                let mut mirror = etcd.mirror.lock();
                (mirror.tick(Instant::now()), mirror.due())
            };
            self.perform(actions, &fleet);
            let told = tokio::select! {
                () = tokio::time::sleep_until(due.into()) => None,
                () = etcd.woken.notified() => None,
                told = next(&mut self.session) => Some(told),
            };
            if let Some(Told { event, cause }) = told {
                let (actions, settled) = {
                    let (mut mirror, now) = (etcd.mirror.lock(), Instant::now());
                    (mirror.on(event, now), mirror.is_settled(now))
                };
                self.complain(cause.filter(|_| actions.contains(&Action::Disconnect)), settled);
                self.perform(actions, &fleet);
            }
        }
    }

    fn perform(&mut self, actions: Vec<Action>, fleet: &Fleet) {
        let (about_registry, about_store): (Vec<_>, Vec<_>) = actions.into_iter().partition(is_about_registry);
        for some in about_registry.chunks(CHUNK) {
            fleet.with(|registry, now| some.iter().for_each(|action| change(registry, action, now)));
        }
        for action in about_store {
            match action {
                Action::Connect => {
                    let member = self.config.members[self.turn % self.config.members.len()].clone();
                    self.turn = self.turn.wrapping_add(1);
                    self.session =
                        Some(Session::open(&self.config, member, &self.registry, &self.complaints, PATIENCE));
                }
                Action::Disconnect => self.session = None,
                action => {
                    if let Some(session) = &mut self.session {
                        session.perform(action);
                    }
                }
            }
        }
    }

    /// Says once why the store is away, and once that it is back, which it is when it does not go again at once.
    fn complain(&mut self, lost: Option<String>, settled: bool) {
        match lost {
            Some(cause) if !self.complained => {
                let member = &self.config.members[self.turn.wrapping_sub(1) % self.config.members.len()];
                tracing::warn!(
                    %member, %cause,
                    "the store is away: what others hear is not known here until it is back; check --store and etcd"
                );
                self.complained = true;
            }
            None if settled && self.complained => {
                tracing::info!("the store is back");
                self.complained = false;
            }
            _ => {}
        }
    }
}

/// What the session tells next; nothing while there is none.
async fn next(session: &mut Option<Session>) -> Told {
    match session {
        Some(session) => session.next().await,
        None => std::future::pending().await,
    }
}

fn is_about_registry(action: &Action) -> bool {
    matches!(action, Action::Adopt(_) | Action::Renew(_) | Action::Leave { .. })
}

fn change(registry: &mut Registry, action: &Action, now: Instant) {
    match action {
        Action::Renew(entry) if registry.renew_adopted(entry.id(), entry.epoch(), now) => {}
        Action::Adopt(entry) | Action::Renew(entry) => adopt(registry, entry, now),
        Action::Leave { id, epoch } => drop(registry.leave(id, *epoch, now)),
        _ => {}
    }
}

fn adopt(registry: &mut Registry, entry: &Entry, now: Instant) {
    let (newest, announced) = entry.newest();
    if let Err(error) = registry.adopt(&newest, announced, now) {
        tracing::debug!(replica = entry.id(), %error, "what another API server heard is not taken over");
    }
}
