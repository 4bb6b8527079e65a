//! What has to be done about the fleet while no request comes: leases end, and who was ejected is probed.

use std::sync::Arc;
use std::time::Instant;

use anyserve_cluster::{Handle, ReplicaView};
use tokio::task::JoinSet;

use super::{Fleet, Prober};

/// Probes that are under way at the same time.
const MAX_PROBES: usize = 64;

/// What became of a probe.
type Told = Result<(), String>;

// === impl Fleet ===

impl Fleet {
    /// Tends the fleet for as long as it is polled: it never ends.
    ///
    /// # Cancel safety
    /// Dropping it ends every probe; what it would have told is not known then, as if it had been too late.
    pub async fn tend<P: Prober>(self: Arc<Self>, prober: Arc<P>) {
        let mut asking = JoinSet::new();
        loop {
            let due = self.turn(&prober, &mut asking);
            tokio::select! {
                () = until(due) => {}
                () = self.changed.notified() => {}
                Some(ended) = asking.join_next() => match ended {
                    Ok((handle, told)) => self.probed(handle, &told),
                    Err(error) => tracing::error!(%error, "a probe panicked"),
                }
            }
        }
    }

    /// Does what is due, and says when the next thing is. While no more probes may be sent, the end of one is.
    fn turn<P: Prober>(&self, prober: &Arc<P>, asking: &mut JoinSet<(Handle, Told)>) -> Option<Instant> {
        let room = MAX_PROBES.saturating_sub(asking.len());
        let (due, next, timeout) = self.with(|registry, now| {
            registry.expire(now);
            (registry.probes(room, now), registry.next_due(), registry.config().probe_timeout)
        });
        for ReplicaView { handle, endpoint, .. } in due {
            let prober = Arc::clone(prober);
            asking.spawn(async move { (handle, prober.probe(&endpoint, timeout).await) });
        }
        next.filter(|_| asking.len() < MAX_PROBES)
    }

    fn probed(&self, handle: Handle, told: &Told) {
        self.with(|registry, now| {
            if let Err(why) = told {
                registry.blame(handle, why);
            }
            registry.probed(handle, told.is_ok(), now);
        });
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use anyserve_cluster::policy::LeastWait;
    use anyserve_cluster::{Announce, RegistryConfig};
    use anyserve_core::Upgrades;
    use parking_lot::Mutex;
    use tokio::sync::Notify;

    /// Says of nobody that he lives, until told.
    #[derive(Default)]
    struct Scripted {
        live: Mutex<HashSet<String>>,
        at_once: AtomicUsize,
        most: AtomicUsize,
        asked: AtomicUsize,
        go: Notify,
    }

    impl Prober for Scripted {
        async fn probe(&self, endpoint: &str, _: Duration) -> Result<(), String> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.go.notified().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if self.live.lock().contains(endpoint) { Ok(()) } else { Err("nobody is there".to_owned()) }
        }
    }

    fn fleet(lease: Duration) -> Arc<Fleet> {
        let config = RegistryConfig {
            lease,
            first_ejection: Duration::from_millis(1),
            longest_ejection: Duration::from_millis(4),
            probe_timeout: Duration::from_mins(1),
            ..RegistryConfig::default()
        };
        Arc::new(Fleet::new(config, Box::new(LeastWait)))
    }

    fn announce(fleet: &Fleet, id: &str) {
        let (id, endpoint, upgrades) = (id.to_owned(), format!("http://{id}:1"), Upgrades::default());
        fleet
            .announce(&Announce { id, epoch: 1, seq: 1, endpoint, draining: false, offers: vec![], upgrades })
            .unwrap();
    }

    fn eject(fleet: &Fleet, id: &str) {
        fleet.with(|registry, now| registry.eject(registry.view(id).unwrap().handle, now));
    }

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let wait = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect(what);
    }

    #[tokio::test]
    async fn a_lease_ends_without_anybody_asking() {
        let fleet = fleet(Duration::from_millis(20));
        let tending = tokio::spawn(Arc::clone(&fleet).tend(Arc::new(Scripted::default())));
        announce(&fleet, "a");
        until("the lease to end", || fleet.with(|registry, _| registry.counts().expired == 1)).await;
        tending.abort();
    }

    #[tokio::test]
    async fn who_is_ejected_is_probed_until_he_answers() {
        let (fleet, prober) = (fleet(Duration::from_mins(1)), Arc::new(Scripted::default()));
        announce(&fleet, "a");
        let tending = tokio::spawn(Arc::clone(&fleet).tend(Arc::clone(&prober)));
        eject(&fleet, "a");
        until("the first probe", || prober.asked.load(Ordering::SeqCst) == 1).await;
        prober.go.notify_one();
        until("the second probe", || prober.asked.load(Ordering::SeqCst) == 2).await;
        assert_eq!(fleet.views()[0].trouble.as_deref(), Some("nobody is there"));
        prober.live.lock().insert("http://a:1".into());
        prober.go.notify_one();
        until("the replica to be back", || fleet.views()[0].health.is_up()).await;
        assert_eq!(fleet.views()[0].trouble, None);
        tending.abort();
    }

    #[tokio::test]
    async fn no_more_probes_are_under_way_than_may_be_and_everybody_has_his_turn() {
        let (fleet, prober) = (fleet(Duration::from_mins(1)), Arc::new(Scripted::default()));
        for number in 0..=MAX_PROBES {
            announce(&fleet, &format!("r{number}"));
            eject(&fleet, &format!("r{number}"));
            prober.live.lock().insert(format!("http://r{number}:1"));
        }
        let tending = tokio::spawn(Arc::clone(&fleet).tend(Arc::clone(&prober)));
        until("as many as may be", || prober.at_once.load(Ordering::SeqCst) == MAX_PROBES).await;
        until("all to be back", || {
            prober.go.notify_waiters();
            fleet.views().iter().all(|view| view.health.is_up())
        })
        .await;
        assert_eq!(prober.most.load(Ordering::SeqCst), MAX_PROBES);
        tending.abort();
    }
}
