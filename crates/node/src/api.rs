//! An API server's life: port, fleet, store, drain.

mod options;
mod settings;
mod threads;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use anyserve_gateway::store::open;
use anyserve_gateway::{Fleet, Gateway, GrpcProber};
use anyserve_server::{Answers, Drained, Listener, Server};
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::aside::Aside;
use crate::certificates::{BeforeServer, Watched, keep_new};
use crate::logging;
use crate::replica::Ended;
use crate::signals::Signals;

pub use options::ApiServerOptions;
use settings::ApiServerSettings;
use threads::Threads;

/// A step in an API server's life.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiServerEvent {
    /// Replicas can register from now on.
    Listening {
        /// Where, as replicas are told it: `http://127.0.0.1:8080`.
        endpoint: String,
        /// `memory` or `etcd`.
        store: &'static str,
        /// The name of the policy.
        policy: &'static str,
    },
    /// A signal came: no new connections, what is in flight may finish.
    Draining {
        /// Requests under way.
        in_flight: u64,
        /// How long they have.
        grace: Duration,
    },
    /// The API server is gone.
    Stopped {
        /// Requests that were aborted; 0 if all were answered.
        aborted: u64,
    },
}

type Tell = Arc<dyn Fn(ApiServerEvent) + Send + Sync>;

/// Runs an API server until a signal stops it. Blocks; there is one server in a process. `on_event` is called by a thread of its
/// own, as [`run`](crate::run)'s.
///
/// # Errors
/// What is wrong and how to mend it, in one paragraph for the person who started it.
pub fn api_server(options: ApiServerOptions, on_event: impl FnMut(ApiServerEvent) + Send + 'static) -> Result<Ended> {
    let settings = ApiServerSettings::try_new(options)?;
    logging::start(&settings.log_level)?;
    let events = Arc::new(Aside::start("anyserve-events", on_event).context("the events' thread cannot be started")?);
    let threads = Threads::start(settings.threads)?;
    let runtime = Builder::new_current_thread().enable_all().build().context("the runtime cannot be started")?;
    let told = Arc::clone(&events);
    let ended = runtime.block_on(serve(settings, &threads, Arc::new(move |event| _ = told.hand(event))));
    drop(threads);
    // Nothing is left that would need more time; what hangs is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    events.settle();
    logging::settle();
    ended
}

async fn serve(settings: ApiServerSettings, threads: &Threads, tell: Tell) -> Result<Ended> {
    let mut signals = Signals::take()?;
    let listener = Listener::bind(settings.address).map_err(Error::new)?;
    let endpoint = endpoint(listener.local_addr(), settings.server.tls.is_some());
    let (store, policy) = (settings.store.name(), settings.policy.name());
    let (shared, driver) = open(settings.store, &settings.registry);
    let fleet = Arc::new(Fleet::with_store(settings.registry, settings.policy, shared));
    let gateway = Gateway::try_new(&settings.gateway, Arc::clone(&fleet)).map_err(Error::new)?;
    let leaving = settings.gateway.leaving.clone();
    let each = threads.handles().iter().map(|runtime| (gateway.beside(), runtime.clone()));
    let before = BeforeServer::of(settings.server.tls.as_ref());
    let server = Server::over(&settings.server, anyserve_server::Threads::on(each), leaving).map_err(Error::new)?;
    let shutdown = CancellationToken::new();
    let mut background = JoinSet::new();
    let prober = GrpcProber::new(settings.replica_tls.tls().clone());
    background.spawn(Arc::clone(&fleet).tend(Arc::new(prober)));
    background.spawn(driver.run(Arc::clone(&fleet)));
    let clients = [&settings.replica_tls, &settings.store_tls].map(Watched::of_client);
    let watched = clients.into_iter().chain([before.watch(server.tls())]).flatten().collect();
    background.spawn(keep_new(watched, settings.gateway.certificates.clone()));
    let mut serving = tokio::spawn(server.serve(listener, shutdown.clone()));
    tell(ApiServerEvent::Listening { endpoint, store, policy });
    tokio::select! {
        () = signals.next() => {}
        ended = &mut serving => return Err(anyhow!("the server ended by itself: {ended:?}")),
        ended = background.join_next() => return Err(anyhow!("a task of the server ended by itself: {ended:?}")),
    }
    let in_flight = gateway.in_flight();
    tell(ApiServerEvent::Draining { in_flight, grace: settings.server.grace });
    shutdown.cancel();
    tokio::select! {
        ended = drained(serving, &tell) => ended,
        () = signals.end_at_next() => unreachable!("the process has ended"),
    }
}

async fn drained(serving: JoinHandle<std::io::Result<Drained>>, tell: &Tell) -> Result<Ended> {
    let drained = serving.await.context("the server's task failed")?.context("the server failed")?;
    let aborted = match drained {
        Drained::Clean => 0,
        Drained::Aborted(requests) => requests,
    };
    tell(ApiServerEvent::Stopped { aborted });
    Ok(if aborted == 0 { Ended::Clean } else { Ended::Aborted(aborted) })
}

/// Where replicas find it. One that listens everywhere is told by the address of this machine that always is.
fn endpoint(local: SocketAddr, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    let host = match local.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("{scheme}://{}", SocketAddr::new(host, local.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_everywhere_is_told_as_one_that_can_be_copied() {
        let shown = |local: &str, secure| endpoint(local.parse().unwrap(), secure);
        assert_eq!(shown("127.0.0.1:8080", false), "http://127.0.0.1:8080");
        assert_eq!(shown("0.0.0.0:1", true), "https://127.0.0.1:1");
        assert_eq!(shown("[::]:1", false), "http://[::1]:1");
        assert_eq!(shown("10.0.0.1:1", false), "http://10.0.0.1:1");
    }
}
