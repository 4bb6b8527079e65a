//! API servers that share a real etcd. Skipped where there is none, but for CI.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyserve_client::TlsPem;
use anyserve_cluster::RegistryConfig;
use anyserve_cluster::policy::LeastWait;
use anyserve_gateway::store::{StoreConfig, StoreState, open};
use anyserve_gateway::{Fleet, GatewayConfig};
use anyserve_proto::v1::registry_client::RegistryClient;
use anyserve_proto::v1::{LeaveRequest, Verdict};
use futures_util::stream::{self, StreamExt};
use serde_json::json;
use support::{Running, beat, registration, start_of, until, watchdog};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// An etcd of this test; ends with it.
struct Etcd {
    data: TempDir,
    client: u16,
    peer: u16,
    process: Child,
}

/// An API server that uses it.
struct Server {
    running: Running,
    driver: JoinHandle<()>,
}

// === impl Etcd ===

impl Etcd {
    /// Starts one; `None` if there is none on this machine.
    async fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("ANYSERVE_CI").is_none(), "CI needs Debian's etcd-server");
            return None;
        }
        let (data, [client, peer]) = (tempfile::tempdir().unwrap(), free_ports());
        let process = run(&data, client, peer, &[]);
        let etcd = Self { data, client, peer, process };
        etcd.answers().await;
        Some(etcd)
    }

    /// Starts it again with its data and these flags, and waits for nothing.
    fn start_again(&mut self, flags: &[&str]) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = run(&self.data, self.client, self.peer, flags);
    }

    async fn answers(&self) {
        watchdog(async { while self.post("/v3/kv/range", json!({"key": "YQ=="})).await.is_none() {} }).await;
    }

    /// Kills it without a warning, and starts it again with its data.
    async fn crash(&mut self) {
        self.start_again(&[]);
        self.answers().await;
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks its JSON side; `None` if nobody answers.
    async fn post(&self, path: &str, body: serde_json::Value) -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.client)).await.ok()?;
        let body = body.to_string();
        let length = body.len();
        let request = format!("POST {path} HTTP/1.0\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Forgets every revision but the newest.
    async fn compact(&self) {
        let range = self.post("/v3/kv/range", json!({"key": "YQ=="})).await.unwrap();
        let revision = &range["header"]["revision"];
        let done = self.post("/v3/kv/compaction", json!({"revision": revision})).await.unwrap();
        // Nothing may have changed since the last time.
        assert!(done["header"].is_object() || done["code"] == 11, "{done}");
    }

    async fn server(&self) -> Server {
        self.server_with(RegistryConfig::default().lease).await
    }

    async fn server_with(&self, lease: Duration) -> Server {
        let server = self.server_that_waits(lease);
        server.connects().await;
        server
    }

    fn server_that_waits(&self, lease: Duration) -> Server {
        let registry = RegistryConfig { heartbeat: Duration::from_millis(200), lease, ..RegistryConfig::default() };
        server_of(format!("etcd://127.0.0.1:{}", self.client).parse().unwrap(), registry)
    }
}

fn server_of(config: StoreConfig, registry: RegistryConfig) -> Server {
    let (store, driver) = open(config, &registry);
    let fleet = Arc::new(Fleet::with_store(registry, Box::new(LeastWait), store));
    let driver = tokio::spawn(driver.run(Arc::clone(&fleet)));
    Server { running: start_of(GatewayConfig::default(), fleet), driver }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let taken = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    taken.map(|listener| listener.local_addr().unwrap().port())
}

fn run(data: &TempDir, client: u16, peer: u16, flags: &[&str]) -> Child {
    let scheme = if flags.is_empty() { "http" } else { "https" };
    let [client, peer] = [format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}")];
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(data.path().join("data")).args(["--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
    // Every request is written to the disk in between: on a busy one the defaults are soon too short.
    command.args(["--heartbeat-interval", "100", "--election-timeout", "1000", "--unsafe-no-fsync"]).args(flags);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

// === impl Server ===

impl Server {
    fn state(&self) -> StoreState {
        self.running.fleet.store().state()
    }

    async fn connects(&self) {
        until("the store to be connected", || self.state() == StoreState::Connected).await;
    }

    async fn loses_it(&self) {
        until("the store to be away", || self.state() == StoreState::Disconnected).await;
    }

    fn knows(&self) -> Vec<(String, u64)> {
        self.running.fleet.views().iter().map(|view| (view.id.to_string(), view.epoch)).collect()
    }

    /// How many it knows; however many they are, it is soon told.
    fn count(&self) -> usize {
        self.running.fleet.with(|registry, _| registry.len())
    }

    async fn comes_to_know(&self, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(id, epoch)| ((*id).to_owned(), *epoch)).collect();
        until(&format!("{expected:?}"), || self.knows() == expected).await;
    }

    async fn register(&self, id: &str, epoch: u64) {
        self.running.registry().await.register(registration(id, epoch, 1, &["x"])).await.unwrap();
    }

    /// A heartbeat of a replica, which is accepted.
    fn hears(&self, id: &str, seq: u64) {
        let said = beat(id, seq, 1, 1);
        let loads = said.loads.iter().map(|_| anyserve_cluster::Load::default()).collect();
        let (id, epoch, announced, draining) = (said.id, said.epoch, said.registered, false);
        let beat = anyserve_cluster::Heartbeat { id, epoch, seq, announced, draining, loads };
        assert_eq!(self.running.fleet.heartbeat(&beat), Ok(anyserve_cluster::Answer::Accepted));
    }

    /// Ends it at once, as a crash would.
    async fn dies(self) {
        self.driver.abort();
        self.running.drained().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_one_registry_and_one_goes_on_when_the_other_dies() {
    let Some(etcd) = Etcd::start().await else { return };
    let (first, second) = (etcd.server().await, etcd.server().await);
    first.register("a", 1).await;
    second.register("b", 1).await;
    for server in [&first, &second] {
        server.comes_to_know(&[("a", 1), ("b", 1)]).await;
    }
    let (status, route) = second.running.json("GET /route?type=x&avoid=b", "").await;
    assert_eq!((status, &route["endpoint"]), (200, &json!("http://a:8000")));
    let third = etcd.server().await;
    third.comes_to_know(&[("a", 1), ("b", 1)]).await;
    first.dies().await;
    // The replica comes here now, and is understood without announcing itself.
    second.hears("a", 2);
    third.comes_to_know(&[("a", 1), ("b", 1)]).await;
    let leave = LeaveRequest { id: "b".into(), epoch: 1 };
    second.running.registry().await.leave(leave).await.unwrap();
    third.comes_to_know(&[("a", 1)]).await;
    second.register("a", 2).await;
    third.comes_to_know(&[("a", 2)]).await;
}

/// Replicas that come at once; `ANYSERVE_MASS` says otherwise.
fn mass() -> usize {
    std::env::var("ANYSERVE_MASS").map_or(1000, |count| count.parse().unwrap())
}

/// Each replica of a whole fleet says something, as many at once as there may be.
async fn all_say<R>(server: &Server, say: impl Fn(RegistryClient<Channel>, String) -> R)
where
    R: Future<Output = ()>,
{
    let client = server.running.registry().await;
    let said = (0..mass()).map(|number| say(client.clone(), format!("r{number}")));
    stream::iter(said).buffer_unordered(64).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_fleet_that_comes_goes_and_comes_again_is_known_to_every_server() {
    let Some(etcd) = Etcd::start().await else { return };
    let long = Duration::from_mins(10);
    let (first, second) = (etcd.server_with(long).await, etcd.server_with(long).await);
    for epoch in 1..=3 {
        let began = Instant::now();
        all_say(&first, |mut client, id| async move {
            let kinds = ["x", id.as_str()];
            let answer = client.register(registration(&id, epoch, 1, &kinds)).await.unwrap().into_inner();
            assert_eq!(answer.verdict(), Verdict::Accepted, "{id}");
        })
        .await;
        let registered = began.elapsed();
        for server in [&first, &second] {
            long_until("everybody", || server.count() == mass()).await;
            assert!(server.knows().iter().all(|(_, known)| *known == epoch));
            let last = mass() - 1;
            let (status, route) = server.running.json(&format!("GET /route?type=r{last}"), "").await;
            assert_eq!(
                (status, &route["replica_id"], &route["epoch"]),
                (200, &json!(format!("r{last}")), &json!(epoch))
            );
        }
        println!("epoch {epoch}: {} registered in {registered:?}, known to both in {:?}", mass(), began.elapsed());
        let began = Instant::now();
        all_say(&first, |mut client, id| async move {
            client.leave(LeaveRequest { id, epoch }).await.unwrap();
        })
        .await;
        let left = began.elapsed();
        for server in [&first, &second] {
            long_until("nobody", || server.count() == 0).await;
            assert_eq!(server.running.json("GET /route?type=x", "").await.0, 503);
        }
        println!("epoch {epoch}: {} left in {left:?}, gone for both in {:?}", mass(), began.elapsed());
    }
    assert_eq!([first.state(), second.state()], [StoreState::Connected; 2]);
}

/// Waits for what takes its time with many replicas.
async fn long_until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(60 + u64::try_from(mass()).unwrap() / 50);
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_gone_for_everybody() {
    let Some(etcd) = Etcd::start().await else { return };
    let lease = Duration::from_secs(2);
    let (first, second) = (etcd.server_with(lease).await, etcd.server_with(lease).await);
    first.register("a", 1).await;
    second.comes_to_know(&[("a", 1)]).await;
    first.comes_to_know(&[]).await;
    second.comes_to_know(&[]).await;
    let (_, health) = second.running.json("GET /health", "").await;
    assert_eq!((&health["store"], &health["replicas"]["up"]), (&json!("connected"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stands_still_holds_up_nobody_and_goes_on_later() {
    let Some(etcd) = Etcd::start().await else { return };
    let (first, second) = (etcd.server().await, etcd.server().await);
    first.register("a", 1).await;
    second.comes_to_know(&[("a", 1)]).await;
    etcd.signal("-STOP");
    for server in [&first, &second] {
        server.loses_it().await;
    }
    let (status, health) = second.running.json("GET /health", "").await;
    assert_eq!((status, &health["store"], &health["ready"]), (200, &json!("disconnected"), &json!(true)));
    assert!(second.running.http("GET /metrics", &[], "").await.contains("anyserve_store_connected 0"));
    // What is said meanwhile is told later; what was known is still known after the time of a lease.
    first.register("b", 1).await;
    let (began, mut seq) = (Instant::now(), 1);
    until("more than a lease to pass", || {
        if began.elapsed() > Duration::from_millis(500) * seq {
            seq += 1;
            first.hears("a", u64::from(seq));
            first.hears("b", u64::from(seq));
        }
        began.elapsed() > Duration::from_secs(6)
    })
    .await;
    assert_eq!(second.knows(), [("a".to_owned(), 1)]);
    assert_eq!(second.running.json("GET /route?type=x", "").await.0, 200);
    etcd.signal("-CONT");
    for server in [&first, &second] {
        server.connects().await;
        server.comes_to_know(&[("a", 1), ("b", 1)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_died_and_was_compacted_is_read_again() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let (first, second) = (etcd.server().await, etcd.server().await);
    first.register("a", 1).await;
    second.comes_to_know(&[("a", 1)]).await;
    etcd.crash().await;
    for server in [&first, &second] {
        server.connects().await;
    }
    first.register("b", 1).await;
    etcd.compact().await;
    second.comes_to_know(&[("a", 1), ("b", 1)]).await;
    etcd.process.kill().unwrap();
    etcd.process.wait().unwrap();
    second.loses_it().await;
    first.register("c", 1).await;
    etcd.start_again(&[]);
    etcd.answers().await;
    etcd.compact().await;
    let late = etcd.server().await;
    for server in [&second, &late] {
        until("the newest one", || server.knows().iter().any(|(id, _)| id == "c")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_before_its_store_is_there() {
    let Some(mut etcd) = Etcd::start().await else { return };
    etcd.process.kill().unwrap();
    etcd.process.wait().unwrap();
    let server = etcd.server_that_waits(RegistryConfig::default().lease);
    server.register("a", 1).await;
    assert_eq!(server.running.json("GET /route?type=x", "").await.0, 200);
    assert_eq!(server.state(), StoreState::Disconnected);
    etcd.start_again(&[]);
    server.connects().await;
    etcd.server().await.comes_to_know(&[("a", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_may_and_another_one_may_not() {
    let Some(etcd) = Etcd::start().await else { return };
    for (path, body) in [
        ("/v3/auth/user/add", json!({"name": "root", "password": "secret"})),
        ("/v3/auth/user/grant", json!({"user": "root", "role": "root"})),
        ("/v3/auth/enable", json!({})),
    ] {
        let done = etcd.post(path, body).await.unwrap();
        assert!(done["header"].is_object() || path.ends_with("grant"), "{done}");
    }
    let of = |user: &str| {
        let store = format!("etcd://{user}127.0.0.1:{}", etcd.client).parse().unwrap();
        server_of(store, RegistryConfig::default())
    };
    let (first, second) = (of("root:secret@"), of("root:secret@"));
    let (wrong, nobody) = (of("root:guess@"), of(""));
    for server in [&first, &second] {
        server.connects().await;
    }
    first.register("a", 1).await;
    second.comes_to_know(&[("a", 1)]).await;
    assert_eq!([wrong.state(), nobody.state()], [StoreState::Disconnected; 2]);
    assert!(wrong.knows().is_empty() && nobody.knows().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_speaks_tls_is_spoken_to_by_those_who_trust_it() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| etcd.data.path().join(name));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let [certificate, key] = [certificate, key].map(|path| path.to_str().unwrap().to_owned());
    etcd.start_again(&["--cert-file", &certificate, "--key-file", &key]);
    let of = |ca: Option<String>| {
        let mut config: StoreConfig = format!("etcd+https://localhost:{}", etcd.client).parse().unwrap();
        if let StoreConfig::Etcd(etcd) = &mut config {
            etcd.tls = TlsPem { ca: ca.map(String::into_bytes), identity: None }.into();
        }
        server_of(config, RegistryConfig::default())
    };
    let (first, stranger) = (of(Some(signed.cert.pem())), of(None));
    first.connects().await;
    first.register("a", 1).await;
    of(Some(signed.cert.pem())).comes_to_know(&[("a", 1)]).await;
    assert_eq!((stranger.state(), stranger.knows()), (StoreState::Disconnected, vec![]));
}
