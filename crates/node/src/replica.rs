//! A replica's life: port, workers, requests, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use anyserve_core::{Control, Directory, LocalObjects, Order, TensorMemory};
use anyserve_server::{Drained, Listener, Server, ServerConfig};
use anyserve_shm::Regions;
use anyserve_worker::{Pool, PoolConfig, Running, SharedMemory, StartError};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::aside::Aside;
use crate::certificates::{BeforeServer, Watched, keep_new};
use crate::fleet::Membership;
use crate::reload::Reloader;
use crate::signals::Signals;
use crate::{Event, Options, Settings, logging, objects, store};

/// How a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Clean,
    /// So many requests were aborted at the end of the grace period.
    Aborted(u64),
}

/// Time that workers have to end once nothing is in flight any more.
const LEAST_STOP: Duration = Duration::from_secs(2);

/// Runs a replica until a signal stops it. Blocks; there is one replica in a process. `on_event` is called by a thread of its own:
/// who is slow to show events holds up no request, and misses some if 4096 of them wait.
///
/// # Errors
/// What is wrong and how to mend it, in one paragraph for the person who started it; if the user's code raised, its
/// traceback follows on lines of its own.
pub fn run(options: Options, on_event: impl FnMut(Event) + Send + 'static) -> Result<Ended> {
    let settings = Settings::try_new(options)?;
    logging::start(&settings.log_level)?;
    let events = Arc::new(Aside::start("anyserve-events", on_event).context("the events' thread cannot be started")?);
    let runtime = runtime(settings.threads)?;
    let told = Arc::clone(&events);
    let ended = runtime.block_on(serve(settings, Arc::new(move |event| _ = told.hand(event))));
    // Nothing is left that would need more time; what hangs is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    events.settle();
    logging::settle();
    ended
}

fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(threads)
        .thread_name("anyserve")
        .enable_all()
        .build()
        .context("the runtime's threads cannot be started")
}

type Tell = Arc<dyn Fn(Event) + Send + Sync>;

async fn serve(settings: Settings, tell: Tell) -> Result<Ended> {
    let mut signals = Signals::take()?;
    let listener = Listener::bind(settings.address).map_err(Error::new)?;
    let endpoint = listener.local_addr();
    let on_worker = Arc::clone(&tell);
    let regions = settings.client_shm.then(|| Arc::new(Regions::default()));
    let plane = store::open(settings.store)?;
    let tensors = plane.clone().map(|plane| Arc::new(plane) as Arc<dyn TensorMemory>);
    let local = plane.clone().map(|plane| Arc::new(plane) as Arc<dyn LocalObjects>);
    let elsewhere = local.clone().filter(|_| !settings.objects.is_empty());
    let far = elsewhere
        .map(|local| objects::far_objects(&settings.objects, settings.fleet.tls().tls(), local))
        .transpose()?;
    let memory = SharedMemory { plane, regions: regions.clone(), far };
    let mut fleet = settings.fleet.join(endpoint, settings.server.tls.is_some())?;
    let config = settings.pool(memory, move |event| on_worker(Event::Worker(event)));
    let config = PoolConfig { uplink: fleet.uplink(), ..config };
    let (pool, mut workers) = Pool::start(config).map_err(|error| start_failure(&error))?;
    let shutdown = CancellationToken::new();
    let ingress = ServerConfig { regions, objects: local, ..settings.server.clone() };
    let before = BeforeServer::of(ingress.tls.as_ref());
    let server = Server::with_memory(&ingress, pool.clone(), tensors).map_err(Error::new)?;
    let watched = [before.watch(server.tls()), Watched::of_client(settings.fleet.tls())];
    let mut background = JoinSet::new();
    background.spawn(keep_new(watched.into_iter().flatten().collect(), ingress.certificates.clone()));
    let mut serving = tokio::spawn(server.serve(listener, shutdown.clone()));
    let beginning = Beginning { settings: &settings, pool: &pool, endpoint, tell: &tell };
    let asked = beginning.until_asked(&mut workers, &mut fleet, &mut signals, &mut serving).await;
    if let Err(error) = asked {
        workers.stop(Duration::ZERO).await;
        return Err(error);
    }
    let end = Ending { settings: &settings, pool: &pool, shutdown, tell: &tell };
    let drain = end.drain(workers, fleet, serving);
    tokio::select! {
        ended = drain => ended,
        () = signals.end_at_next() => unreachable!("the process has ended"),
    }
}

/// A replica whose workers start.
struct Beginning<'a> {
    settings: &'a Settings,
    pool: &'a Pool,
    endpoint: SocketAddr,
    tell: &'a Tell,
}

// === impl Beginning ===

impl Beginning<'_> {
    /// Serves until a signal.
    async fn until_asked(
        &self,
        workers: &mut Running,
        fleet: &mut Membership,
        signals: &mut Signals,
        serving: &mut JoinHandle<std::io::Result<Drained>>,
    ) -> Result<()> {
        tokio::select! {
            ready = workers.ready() => ready.map_err(|error| start_failure(&error))?,
            () = signals.next() => return Ok(()),
        }
        fleet.announce(self.pool)?;
        (self.tell)(serving_event(self.pool, self.endpoint));
        let reloader = self.settings.reload.then(|| Reloader::start(self.pool.clone())).transpose()?;
        let reloads = async {
            match reloader {
                Some(reloader) => reloader.run(|event| (self.tell)(event)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = reloads => Err(anyhow!("the watch on the app's files ended by itself")),
            () = signals.next() => Ok(()),
            ended = serving => Err(anyhow!("the server ended by itself: {ended:?}")),
        }
    }
}

/// A replica that is to stop.
struct Ending<'a> {
    settings: &'a Settings,
    pool: &'a Pool,
    shutdown: CancellationToken,
    tell: &'a Tell,
}

// === impl Ending ===

impl Ending<'_> {
    /// Lets what is in flight finish, and ends everything.
    async fn drain(
        self,
        workers: Running,
        fleet: Membership,
        serving: JoinHandle<std::io::Result<Drained>>,
    ) -> Result<Ended> {
        let (began, grace) = (Instant::now(), self.settings.grace);
        (self.tell)(Event::Draining { in_flight: self.pool.in_flight(), grace });
        // Before the first request is refused, so that none has to be sent elsewhere.
        fleet.drain().await;
        // The order that `anyserve drain` gives; what is in flight is waited for at the port.
        drop(self.pool.order(Order::DrainReplica));
        self.shutdown.cancel();
        let drained = serving.await.context("the server's task failed")?.context("the server failed")?;
        fleet.leave().await;
        workers.stop(grace.saturating_sub(began.elapsed()).max(LEAST_STOP)).await;
        let aborted = match drained {
            Drained::Clean => 0,
            Drained::Aborted(requests) => requests,
        };
        (self.tell)(Event::Stopped { aborted });
        Ok(if aborted == 0 { Ended::Clean } else { Ended::Aborted(aborted) })
    }
}

fn serving_event(pool: &Pool, endpoint: SocketAddr) -> Event {
    let catalog = pool.catalog();
    let (mut models, mut inputs, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &catalog.entries {
        let model = entry.handler.model_name();
        if !models.contains(&model) {
            streams.extend(entry.handler.stream.then(|| model.clone()));
            models.push(model);
            inputs.push(entry.handler.inputs.clone());
        }
    }
    let capabilities = catalog.entries.iter().map(|entry| entry.handler.capability.clone()).collect();
    Event::Serving { endpoint, capabilities, models, inputs, streams, workers: pool.ready_workers() }
}

fn start_failure(error: &StartError) -> Error {
    if error.traceback.is_empty() { anyhow!("{error}") } else { anyhow!("{error}\n\n{}", error.traceback.trim_end()) }
}
