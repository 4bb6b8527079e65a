//! One worker's supervisor: it starts the process, greets it, watches it, and starts it again.
//!
//! What is to be done is decided by [`Lifecycle`]; this task owns everything that can happen to the worker and carries
//! the actions out.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyserve_sched::{Cause, WorkerId};
use anyserve_wire::{Frame, Kind};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Inner;
use crate::handshake::{Greeted, Greeting, Host};
use crate::lifecycle::{Action, Event, Lifecycle};
use crate::link::{Link, LinkError};
use crate::output::log_lines;
use crate::pool::{StartError, worker_name};
use crate::process::{Process, Spawner};

/// A run of this length makes a worker's earlier crashes forgotten.
const SETTLED: Duration = Duration::from_secs(10);
/// Time that a worker with nothing in flight has to leave.
const LEAVE: Duration = Duration::from_secs(5);
/// Failures in a row after which requests no longer wait for a worker.
const DOWN_AFTER: u32 = 3;
/// Connections that may be greeted at the same time; only one of them is the worker.
const MAX_GREETINGS: usize = 16;

pub(crate) struct Supervisor {
    index: u32,
    pool: Arc<Inner>,
    directory: PathBuf,
    spawner: Spawner,
    drain: CancellationToken,
    kill: CancellationToken,
    life: Lifecycle,
    has_been_ready: bool,
}

/// One process, from its spawn to its end.
struct Run {
    worker: WorkerId,
    process: Process,
    listener: Option<UnixListener>,
    host: Host,
    greetings: JoinSet<Result<Greeting, LinkError>>,
    link: Option<Arc<Link>>,
    io: JoinSet<LinkError>,
    output: JoinSet<()>,
    /// When the start times out, then when the worker is settled.
    timer: Option<(Instant, Event)>,
    last_word: String,
    /// The worker closed its socket, as one does that dies.
    closed: bool,
}

/// What a run waits for.
enum Happened {
    Exited(io::Result<ExitStatus>),
    Connected(tokio::net::UnixStream),
    Greeted(Result<Greeting, LinkError>),
    LinkEnded(LinkError),
    TimerOver(Event),
    Drain,
    Kill,
}

// === impl Supervisor ===

impl Supervisor {
    pub(crate) fn new(
        index: u32,
        pool: Arc<Inner>,
        directory: PathBuf,
        spawner: Spawner,
        (drain, kill): (CancellationToken, CancellationToken),
    ) -> Self {
        let life = Lifecycle::starting();
        Self { index, pool, directory, spawner, drain, kill, life, has_been_ready: false }
    }

    /// Keeps the worker alive until the replica leaves.
    pub(crate) async fn run(mut self) {
        loop {
            let wait = match self.start().await {
                Ok(run) => self.supervise(run).await,
                Err(error) => self.not_started(&error),
            };
            let Some(wait) = wait else { break };
            tokio::select! {
                () = tokio::time::sleep(wait) => self.on(Event::BackoffOver),
                () = self.drain.cancelled() => {
                    self.on(Event::Drain);
                    break;
                }
            };
            self.pool.restarts.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(None, "");
    }

    /// Feeds the lifecycle. An event that does not fit is a race between two ends of the same process, and harmless.
    fn on(&mut self, event: Event) -> Action {
        self.life.on(event).unwrap_or_else(|unexpected| {
            tracing::debug!(worker = worker_name(self.index), %unexpected, "event ignored");
            Action::Nothing
        })
    }

    fn tell(&self, pid: Option<u32>, detail: &str) {
        self.pool.tell(self.index, self.life.name(), pid, detail.to_owned());
    }

    async fn start(&mut self) -> io::Result<Run> {
        let worker = self.pool.number_worker(self.index);
        let socket = self.directory.join(format!("{}.sock", worker.0));
        let slots = self.directory.join(format!("{}.slots", worker.0));
        let token = random_token()?;
        let listener = UnixListener::bind(&socket)?;
        let mut command = self.command(&socket, worker);
        command.env("ANYSERVE_WORKER_TOKEN", &token);
        let (process, stdout, stderr) = self.spawner.spawn(command).await?;
        let mut output = JoinSet::new();
        output.spawn(log_lines(stdout, worker_name(self.index), "stdout"));
        output.spawn(log_lines(stderr, worker_name(self.index), "stderr"));
        self.tell(Some(process.id()), "");
        Ok(Run {
            worker,
            process,
            listener: Some(listener),
            host: Host {
                token,
                worker,
                slots,
                limits: self.pool.config.limits,
                plane: self.pool.config.memory.plane.clone(),
            },
            greetings: JoinSet::new(),
            link: None,
            io: JoinSet::new(),
            output,
            timer: Some((Instant::now() + self.pool.config.start_timeout, Event::StartTimeout)),
            last_word: String::new(),
            closed: false,
        })
    }

    fn command(&self, socket: &std::path::Path, worker: WorkerId) -> Command {
        let config = &self.pool.config;
        let mut command = Command::new(&config.program);
        command.args(&config.arguments).arg("--socket").arg(socket).arg("--worker-id").arg(worker.0.to_string());
        // The workers run the users' code, which is none of the operator's business.
        command.env_remove("ANYSERVE_ADMIN_TOKEN");
        command.envs(config.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn not_started(&mut self, error: &io::Error) -> Option<Duration> {
        let program = self.pool.config.program.display().to_string();
        let message =
            format!("the worker's program '{program}' cannot be started ({error}); give another with --python");
        self.failed_start(StartError { message, traceback: String::new() });
        self.after_exit("its process could not be started")
    }

    /// Watches one process to its end. Returns the time to wait before the next one, or `None` for no next one.
    async fn supervise(&mut self, mut run: Run) -> Option<Duration> {
        loop {
            let happened = run.wait(&self.drain, &self.kill, &self.life).await;
            let event = match happened {
                Happened::Exited(status) => return self.exited(run, status).await,
                Happened::Connected(stream) => {
                    run.greetings.spawn(run.host.clone().greet(stream));
                    continue;
                }
                Happened::Greeted(greeting) => match self.greeted(&mut run, greeting) {
                    Some(event) => event,
                    None => continue,
                },
                Happened::LinkEnded(error) => {
                    run.last_word = with_causes(&error);
                    match error {
                        LinkError::Unresponsive(_) => Event::Unresponsive,
                        LinkError::Overrun => Event::Overrun,
                        LinkError::Closed | LinkError::Io(_) => {
                            run.closed = true;
                            Event::Broken
                        }
                        _ => Event::Broken,
                    }
                }
                Happened::TimerOver(event) => event,
                Happened::Drain => Event::Drain,
                Happened::Kill => Event::GraceOver,
            };
            self.act(&mut run, event);
        }
    }

    fn act(&mut self, run: &mut Run, event: Event) {
        run.timer = None;
        self.settle(run);
        let before = self.life.name();
        let action = self.on(event);
        if event == Event::StartTimeout {
            run.last_word = format!("it was not ready within {:?}", self.pool.config.start_timeout);
        }
        if self.life.name() != before {
            self.tell(Some(run.process.id()), &run.last_word);
        }
        match action {
            Action::Kill => run.process.kill(),
            Action::Withdraw => self.withdraw(run),
            Action::Publish => {
                run.timer = Some((Instant::now() + SETTLED, Event::Settled));
                // Told before it counts: who waits for the last worker hears of it first.
                self.pool.first.send_modify(|first| first.ready += u32::from(!self.has_been_ready));
                self.has_been_ready = true;
            }
            Action::Nothing | Action::Restart(_) | Action::Spawn | Action::Finish => {}
        }
    }

    /// A worker that has run a request to its end has started well, whatever becomes of it.
    fn settle(&mut self, run: &Run) {
        if self.life.failures() > 0 && run.link.as_ref().is_some_and(|link| link.was_useful()) {
            self.on(Event::Settled);
        }
    }

    fn withdraw(&self, run: &mut Run) {
        self.pool.withdraw(run.worker);
        let Some(link) = &run.link else { return };
        link.push(&Frame::bare(Kind::Drain, 0));
        link.flush();
        if link.is_idle() {
            // Nothing is left to finish; what keeps it is a thread of the app's own, which nobody waits for.
            run.timer = Some((Instant::now() + LEAVE, Event::GraceOver));
        }
    }

    fn greeted(&mut self, run: &mut Run, greeting: Result<Greeting, LinkError>) -> Option<Event> {
        match greeting {
            Ok(Greeting::Worker(greeted)) => match self.pool.announce(greeted.handlers.clone()) {
                Ok(()) => Some(self.publish(run, greeted)),
                Err(why) => {
                    run.last_word = why;
                    Some(Event::Broken)
                }
            },
            Ok(Greeting::Failed(error)) => {
                run.last_word.clone_from(&error.message);
                let traceback = error.traceback.unwrap_or_default();
                if self.has_been_ready {
                    tracing::error!(
                        worker = worker_name(self.index),
                        reason = run.last_word,
                        "cannot start\n{traceback}"
                    );
                }
                self.failed_start(StartError { message: error.message, traceback });
                None
            }
            Err(error) => {
                tracing::warn!(worker = worker_name(self.index), reason = with_causes(&error), "connection refused");
                None
            }
        }
    }

    fn publish(&mut self, run: &mut Run, greeted: Greeted) -> Event {
        let Greeted { link, far, concurrency, .. } = greeted;
        run.listener = None;
        run.greetings.abort_all();
        let (pool, limits, own) = (Arc::clone(&self.pool), self.pool.config.limits, Arc::clone(&link));
        run.io.spawn(async move { own.read(limits, |frames| pool.receive(&own, frames)).await });
        let own = Arc::clone(&link);
        run.io.spawn(async move { own.write().await });
        let (own, timeout) = (Arc::clone(&link), self.pool.config.ping_timeout);
        run.io.spawn(async move { own.ping(timeout).await });
        let own = Arc::clone(&link);
        run.io.spawn(async move { own.overrun().await });
        run.io.spawn(Arc::clone(&self.pool).answer_far(Arc::clone(&link), far));
        self.pool.publish(&link, concurrency);
        run.link = Some(link);
        Event::Ready
    }

    async fn exited(&mut self, mut run: Run, status: io::Result<ExitStatus>) -> Option<Duration> {
        self.settle(&run);
        self.pool.bury(run.worker, self.cause(&run));
        // What it had printed is in the pipes still.
        let rest = async { while run.output.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_millis(500), rest).await;
        // It may have told why it could not start just before it ended. One that has become ready is dead all the same.
        while let Some(Ok(greeting)) = run.last_greeting().await {
            if !matches!(greeting, Ok(Greeting::Worker(_))) {
                self.greeted(&mut run, greeting);
            }
        }
        // What it had sent may have been read after its death: only who reads no more asks for no more.
        run.io.shutdown().await;
        run.greetings.shutdown().await;
        self.pool.disown(run.worker);
        for path in [&run.host.slots, &self.directory.join(format!("{}.sock", run.worker.0))] {
            let _ = std::fs::remove_file(path);
        }
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let why = if run.last_word.is_empty() { status } else { format!("{}; {status}", run.last_word) };
        if !self.has_been_ready {
            self.failed_start(StartError {
                message: format!("the worker did not start: {why}"),
                traceback: String::new(),
            });
        }
        self.after_exit(&why)
    }

    /// Whether the worker died by itself, or was ended by us.
    fn cause(&self, run: &Run) -> Cause {
        let ended = matches!(self.life.name(), "replacing" | "draining" | "stopping");
        if ended && !run.closed { Cause::Replaced } else { Cause::Died }
    }

    fn after_exit(&mut self, why: &str) -> Option<Duration> {
        let Action::Restart(wait) = self.on(Event::Exited) else { return None };
        tracing::warn!(worker = worker_name(self.index), reason = why, wait_ms = wait.as_millis(), "worker ended");
        self.tell(None, why);
        if self.life.failures() >= DOWN_AFTER {
            self.pool.down_if_empty(why);
        }
        Some(wait)
    }

    /// The first reason counts; later ones follow from it.
    fn failed_start(&self, error: StartError) {
        if !self.has_been_ready {
            self.pool.first.send_if_modified(|first| {
                first.failed.is_none() && {
                    first.failed = Some(error);
                    true
                }
            });
        }
    }
}

// === impl Run ===

impl Run {
    /// Waits for whatever happens next.
    ///
    /// # Cancel safety
    /// Safe.
    async fn wait(&mut self, drain: &CancellationToken, kill: &CancellationToken, life: &Lifecycle) -> Happened {
        let Self { process, listener, greetings, io, timer, .. } = self;
        let timer = *timer;
        let can_drain = !matches!(life.name(), "draining" | "stopping");
        let can_kill = life.name() == "draining";
        let room = greetings.len() < MAX_GREETINGS;
        tokio::select! {
            biased;
            Some(ended) = io.join_next(), if !io.is_empty() => Happened::LinkEnded(ended.unwrap_or_else(|error| {
                LinkError::Protocol(format!("its task ended: {error}"))
            })),
            status = process.exited() => Happened::Exited(status),
            Some(greeting) = greetings.join_next(), if !greetings.is_empty() => match greeting {
                Ok(greeting) => Happened::Greeted(greeting),
                Err(error) => Happened::Greeted(Err(LinkError::Protocol(error.to_string()))),
            },
            stream = accept(listener.as_ref()), if room => Happened::Connected(stream),
            event = over(timer) => Happened::TimerOver(event),
            () = drain.cancelled(), if can_drain => Happened::Drain,
            () = kill.cancelled(), if can_kill => Happened::Kill,
        }
    }

    /// Greets who connected before the process ended, as far as it needs no more waiting for.
    async fn last_greeting(&mut self) -> Option<Result<Result<Greeting, LinkError>, tokio::task::JoinError>> {
        let short = Duration::from_millis(500);
        if let Some(listener) = &self.listener {
            let waiting = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
            if let Ok(Ok((stream, _))) = waiting {
                self.greetings.spawn(self.host.clone().greet(stream));
            }
        }
        tokio::time::timeout(short, self.greetings.join_next()).await.ok()?
    }
}

async fn accept(listener: Option<&UnixListener>) -> tokio::net::UnixStream {
    match listener {
        Some(listener) => loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "a worker's socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        },
        None => std::future::pending().await,
    }
}

async fn over(timer: Option<(Instant, Event)>) -> Event {
    match timer {
        Some((at, event)) => {
            tokio::time::sleep_until(at).await;
            event
        }
        None => std::future::pending().await,
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// 128 random bits, as hexadecimal digits.
fn random_token() -> io::Result<String> {
    use io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
