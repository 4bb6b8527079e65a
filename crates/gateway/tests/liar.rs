//! An API server whose store lies: it keeps routing by what it heard itself, and shares again once the store is honest.

#![allow(clippy::unwrap_used)]

mod played;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyserve_cluster::policy::LeastWait;
use anyserve_cluster::{Answer, Heartbeat, Load, RegistryConfig};
use anyserve_gateway::store::{StoreState, open};
use anyserve_gateway::{Fleet, GatewayConfig};
use played::{Lie, Played};
use support::{Running, registration, start_of};
use tokio::task::JoinHandle;
use tracing::span;

/// An API server that uses a played etcd.
struct Server {
    running: Running,
    driver: JoinHandle<()>,
    beats: AtomicUsize,
}

/// Counts what this thread warns of, and everything worse.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

const MIB: usize = 1 << 20;
const WATCHDOG: Duration = Duration::from_mins(1);

// === impl Server ===

impl Server {
    fn of(etcd: &Played) -> Self {
        let registry = RegistryConfig { heartbeat: Duration::from_millis(200), ..RegistryConfig::default() };
        let (store, driver) = open(format!("etcd://{}", etcd.address).parse().unwrap(), &registry);
        let fleet = Arc::new(Fleet::with_store(registry, Box::new(LeastWait), store));
        let driver = tokio::spawn(driver.run(Arc::clone(&fleet)));
        Self { running: start_of(GatewayConfig::default(), fleet), driver, beats: AtomicUsize::new(1) }
    }

    fn is_connected(&self) -> bool {
        self.running.fleet.store().state() == StoreState::Connected
    }

    async fn register(&self, id: &str) {
        self.running.registry().await.register(registration(id, 1, 1, &["x"])).await.unwrap();
    }

    /// A heartbeat of a replica that registered here.
    fn hears(&self, id: &str) {
        let seq = u64::try_from(self.beats.fetch_add(1, Ordering::SeqCst)).unwrap() + 1;
        let loads = vec![Load { ready: true, ..Load::default() }];
        let beat = Heartbeat { id: id.to_owned(), epoch: 1, seq, announced: 1, draining: false, loads };
        assert_eq!(self.running.fleet.heartbeat(&beat), Ok(Answer::Accepted));
    }

    fn knows(&self) -> Vec<String> {
        self.running.fleet.views().iter().map(|view| view.id.to_string()).collect()
    }
}

// === impl Warnings ===

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Waits for a condition while replicas say that they are there. It is looked at again whenever the store is called, which
/// it is again and again, if only to see whether it is there.
async fn until(what: &str, etcd: &Played, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            etcd.called.notified().await;
        }
    };
    tokio::time::timeout(WATCHDOG, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// Bytes of memory that this process has had at most.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// An API server goes on through so many lies of a kind, and shares again after them.
async fn withstands(lie: Lie, times: usize) {
    let warnings = Warnings::default();
    // Every task of the test runs on this thread.
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let etcd = Played::start().await;
    let server = Server::of(&etcd);
    until("the store", &etcd, || server.is_connected()).await;
    server.register("a").await;
    until("its key", &etcd, || etcd.names() == ["a"]).await;
    let before = most_memory();
    etcd.lies(lie);
    until("the lies", &etcd, || {
        server.hears("a");
        etcd.lied() >= times
    })
    .await;
    let (status, route) = server.running.json("GET /route?type=x", "").await;
    assert_eq!((status, route["replica_id"].as_str()), (200, Some("a")), "it is still heard");
    assert!(server.knows().contains(&"a".to_owned()) && !server.driver.is_finished());
    let said = warnings.0.load(Ordering::SeqCst);
    assert!(said <= 20, "{said} lines for {} lies", etcd.lied());
    etcd.lies(Lie::None);
    let second = Server::of(&etcd);
    until("the honest store", &etcd, || server.is_connected() && second.is_connected()).await;
    second.register("b").await;
    until("everybody", &etcd, || {
        server.hears("a");
        second.hears("b");
        etcd.names() == ["a", "b"] && [&server, &second].iter().all(|one| one.knows() == ["a", "b"])
    })
    .await;
    assert!(warnings.0.load(Ordering::SeqCst) <= 20);
    let more = most_memory() - before;
    assert!(more < 256 * MIB, "{more} bytes more were taken");
}

#[tokio::test]
async fn a_store_of_another_cluster_every_time() {
    withstands(Lie::OtherCluster, 20).await;
}

#[tokio::test]
async fn revisions_that_go_backwards_from_the_last_one_there_can_be() {
    withstands(Lie::Backwards, 5).await;
}

#[tokio::test]
async fn changes_of_keys_that_nobody_asked_for() {
    withstands(Lie::OthersKeys, 1).await;
}

#[tokio::test]
async fn values_that_are_garbage() {
    withstands(Lie::Garbage, 2).await;
}

#[tokio::test]
async fn values_that_are_larger_than_any_may_be() {
    withstands(Lie::Oversized, 2).await;
}

#[tokio::test]
async fn values_of_a_later_version_and_of_somebody_else() {
    withstands(Lie::OtherVersion, 2).await;
}

#[tokio::test]
async fn leases_without_an_id() {
    withstands(Lie::NoLease, 3).await;
}

#[tokio::test]
async fn leases_that_are_over_at_once() {
    withstands(Lie::DeadLeases, 3).await;
}

#[tokio::test]
async fn a_watch_that_is_compacted_whenever_it_begins() {
    withstands(Lie::Compacted, 5).await;
}

#[tokio::test]
async fn a_watch_that_is_cancelled_whenever_it_begins() {
    withstands(Lie::Cancelled, 4).await;
}

#[tokio::test]
async fn answers_that_never_come() {
    withstands(Lie::Silence, 3).await;
}

#[tokio::test]
async fn a_million_changes() {
    withstands(Lie::Flood, 1000).await;
}

#[tokio::test]
async fn a_list_that_is_the_same_page_for_ever() {
    withstands(Lie::SamePage, 3).await;
}

#[tokio::test]
async fn a_list_without_an_end() {
    withstands(Lie::EndlessList, 79).await;
}

#[tokio::test]
async fn entries_that_are_too_much_for_one_message_are_read_in_several() {
    let etcd = Played::start().await;
    let names: Vec<_> = (10..40).map(|number| format!("r{number}")).collect();
    for name in &names {
        etcd.holds(name, MIB - 1000);
    }
    let server = Server::of(&etcd);
    until("everybody", &etcd, || server.is_connected() && server.knows() == names).await;
}
