//! One worker's supervisor: it starts the process, greets it, watches it, and starts it again.
//!
//! What is to be done is decided by [`Lifecycle`]; this task owns everything that can happen to the worker and carries
//! the actions out.

mod end;
mod run;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyserve_sched::PlaceEvent;
use anyserve_wire::{Frame, Kind};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::birth::Birth;
use crate::dispatch::Inner;
use crate::fleet::{Station, Wish};
use crate::handshake::{Greeted, Greeting, Host, random_token};
use crate::lifecycle::{Action, Event, Lifecycle};
use crate::link::{LinkEnds, LinkError};
use crate::output::log_lines;
use crate::pool::{Nursery, StartError};
use run::{Happened, Run};

/// A run of this length makes a worker's earlier crashes forgotten.
const SETTLED: Duration = Duration::from_secs(10);
/// Time that a worker with nothing in flight has to leave.
const LEAVE: Duration = Duration::from_secs(5);

pub(crate) struct Supervisor {
    station: Station,
    pool: Arc<Inner>,
    nursery: Nursery,
    kill: CancellationToken,
    life: Lifecycle,
    has_been_ready: bool,
    /// Time that it has to leave once it is asked to, if there is a bound.
    grace: Option<Duration>,
}

// === impl Supervisor ===

impl Supervisor {
    pub(crate) fn new(station: Station, pool: Arc<Inner>, nursery: Nursery, kill: CancellationToken) -> Self {
        Self { station, pool, nursery, kill, life: Lifecycle::starting(), has_been_ready: false, grace: None }
    }

    /// Keeps the worker alive until it is to leave.
    pub(crate) async fn run(mut self) {
        loop {
            let wait = match self.start().await {
                Ok(run) => self.supervise(run).await,
                Err(error) => self.not_started(&error),
            };
            let Some(wait) = wait else { break };
            tokio::select! {
                () = tokio::time::sleep(wait) => { self.on(Event::BackoffOver); }
                () = self.station.leave.cancelled() => {
                    self.on(Event::Drain);
                    break;
                }
            };
            self.station.group.restarts.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(None, "");
        self.pool.report(self.station.place, PlaceEvent::Gone);
    }

    fn name(&self) -> &str {
        &self.station.name
    }

    /// Feeds the lifecycle. An event that does not fit is a race between two ends of the same process, and harmless.
    fn on(&mut self, event: Event) -> Action {
        self.life.on(event).unwrap_or_else(|unexpected| {
            tracing::debug!(worker = self.name(), %unexpected, "event ignored");
            Action::Nothing
        })
    }

    fn tell(&self, pid: Option<u32>, detail: &str) {
        self.pool.tell(self.station.place, self.life.name(), pid, detail);
    }

    async fn start(&mut self) -> io::Result<Run> {
        let worker = self.pool.number_worker(&self.station);
        let socket = self.nursery.directory.join(format!("{}.sock", worker.0));
        let slots = self.nursery.directory.join(format!("{}.slots", worker.0));
        let token = random_token()?;
        let listener = UnixListener::bind(&socket)?;
        let birth = Birth { config: &self.pool.config, station: &self.station, worker, socket: &socket, token: &token };
        let (process, stdout, stderr) = birth.begin(&self.nursery.spawner).await?;
        let mut output = JoinSet::new();
        output.spawn(log_lines(stdout, self.name().to_owned(), "stdout"));
        output.spawn(log_lines(stderr, self.name().to_owned(), "stderr"));
        self.tell(Some(process.id()), "");
        let (limits, plane) = (self.pool.config.limits, self.pool.config.memory.plane.clone());
        Ok(Run {
            worker,
            process,
            listener: Some(listener),
            host: Host { token, worker, group: self.station.group.id, slots, limits, plane },
            greetings: JoinSet::new(),
            link: None,
            credits: 1,
            said: None,
            io: JoinSet::new(),
            output,
            timer: Some((Instant::now() + self.start_timeout(), Event::StartTimeout)),
            last_word: String::new(),
            closed: false,
            may_leave: false,
        })
    }

    fn start_timeout(&self) -> Duration {
        self.station.group.spec.start_timeout.unwrap_or(self.pool.config.start_timeout)
    }

    /// Watches one process to its end. Returns the time to wait before the next one, or `None` for no next one.
    async fn supervise(&mut self, mut run: Run) -> Option<Duration> {
        loop {
            let happened = run.wait(&mut self.station, &self.kill, &self.life).await;
            let event = match happened {
                Happened::Exited(status) => return self.exited(run, status).await,
                Happened::Connected(stream) => {
                    run.greetings.spawn(run.host.clone().greet(stream));
                    continue;
                }
                Happened::Wished(Wish::Hurry(grace)) => {
                    self.grace = Some(grace);
                    continue;
                }
                Happened::Greeted(greeting) => match self.greeted(&mut run, greeting) {
                    Some(event) => event,
                    None => continue,
                },
                Happened::LinkEnded(error) => run.link_ended(&error),
                Happened::TimerOver(event) => {
                    run.timer = None;
                    event
                }
                Happened::Said(Kind::Asleep) => Event::Slept,
                Happened::Said(_) => Event::Ready,
                Happened::Wished(Wish::Sleep) => Event::Sleep,
                Happened::Wished(Wish::Wake) => Event::Wake,
                Happened::Idle if self.life.waits_for_idle() => Event::Idle,
                Happened::Idle => {
                    Self::leave_soon(&mut run);
                    continue;
                }
                Happened::Drain => Event::Drain,
                Happened::Kill => Event::GraceOver,
            };
            self.act(&mut run, event);
        }
    }

    fn act(&mut self, run: &mut Run, event: Event) {
        self.settle(run);
        let before = self.life.name();
        let action = self.on(event);
        if action != Action::Nothing || self.life.name() != before {
            run.timer = None;
        }
        if event == Event::StartTimeout {
            run.last_word = format!(
                "it was not {} within {:?}",
                if before == "falling-asleep" { "asleep" } else { "ready" },
                self.start_timeout()
            );
        }
        if self.life.name() != before {
            self.tell(Some(run.process.id()), &run.last_word);
        }
        match action {
            Action::Kill => run.process.kill(),
            Action::Withdraw => self.withdraw(run),
            Action::Withhold => self.pool.withdraw(run.worker, &self.station.group),
            Action::PutToSleep => self.put_to_sleep(run),
            Action::Rouse => self.order(run, Kind::Wake),
            Action::Publish => self.publish(run),
            Action::Nothing | Action::Restart(_) | Action::Spawn | Action::Finish => {}
        }
        self.report();
    }

    /// The planner hears of what has become of its worker.
    fn report(&self) {
        let event = match self.life.name() {
            "ready" => PlaceEvent::Ready,
            "asleep" => PlaceEvent::Asleep,
            "replacing" | "backing-off" => PlaceEvent::Failing,
            _ => return,
        };
        self.pool.report(self.station.place, event);
    }

    /// A worker that has run a request to its end has started well, whatever becomes of it.
    fn settle(&mut self, run: &Run) {
        if self.life.failures() > 0 && run.link.as_ref().is_some_and(|link| link.was_useful()) {
            self.on(Event::Settled);
        }
    }

    fn withdraw(&self, run: &mut Run) {
        self.pool.withdraw(run.worker, &self.station.group);
        let Some(link) = &run.link else { return };
        link.push(&Frame::bare(Kind::Drain, 0));
        link.flush();
        run.timer = self.grace.map(|grace| (Instant::now() + grace, Event::GraceOver));
    }

    /// Nothing is left to finish: what keeps it is its `on_stop`, or a thread of the app's that nobody waits for.
    fn leave_soon(run: &mut Run) {
        let by = Instant::now() + LEAVE;
        run.timer = Some((run.timer.map_or(by, |(at, _)| at.min(by)), Event::GraceOver));
        run.may_leave = true;
    }

    fn put_to_sleep(&self, run: &mut Run) {
        self.pool.rest(run.worker, &self.station.group);
        self.order(run, Kind::Sleep);
    }

    /// Sends an order that takes as long as a start at most.
    fn order(&self, run: &mut Run, kind: Kind) {
        if let Some(link) = &run.link {
            link.push(&Frame::bare(kind, 0));
            link.flush();
        }
        run.timer = Some((Instant::now() + self.start_timeout(), Event::StartTimeout));
    }

    fn publish(&mut self, run: &mut Run) {
        run.timer = Some((Instant::now() + SETTLED, Event::Settled));
        self.has_been_ready = true;
        if let Some(link) = &run.link {
            self.pool.publish(link, &self.station.group, run.credits);
        }
    }

    fn greeted(&mut self, run: &mut Run, greeting: Result<Greeting, LinkError>) -> Option<Event> {
        match greeting {
            Ok(Greeting::Worker(greeted)) => match self.station.group.check_handlers(&greeted.handlers) {
                Ok(()) => Some(self.attach(run, greeted)),
                Err(why) => {
                    run.last_word = why;
                    Some(Event::Broken)
                }
            },
            Ok(Greeting::Failed(error)) => {
                run.last_word.clone_from(&error.message);
                let traceback = error.traceback.unwrap_or_default();
                if self.station.group.app.is_settled() {
                    tracing::error!(worker = self.name(), reason = run.last_word, "cannot start\n{traceback}");
                }
                self.failed_start(StartError { message: error.message, traceback });
                None
            }
            Err(error) => {
                tracing::warn!(worker = self.name(), reason = with_causes(&error), "connection refused");
                None
            }
        }
    }

    fn attach(&mut self, run: &mut Run, greeted: Greeted) -> Event {
        let Greeted { link, ends: LinkEnds { far, orders, said }, concurrency, .. } = greeted;
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
        run.io.spawn(Arc::clone(&self.pool).serve_calls(Arc::clone(&link), orders));
        (run.link, run.credits, run.said) = (Some(link), concurrency, Some(said));
        Event::Ready
    }
}

/// An error with what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
