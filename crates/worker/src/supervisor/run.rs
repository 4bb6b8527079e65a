//! One process of a worker: everything that can happen to it, waited for in one place.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyserve_sched::WorkerId;
use anyserve_wire::Kind;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::with_causes;
use crate::fleet::{Station, Wish};
use crate::handshake::{Greeting, Host};
use crate::lifecycle::{Event, Lifecycle};
use crate::link::{Link, LinkError};
use crate::process::Process;

/// Connections that may be greeted at the same time; only one of them is the worker.
const MAX_GREETINGS: usize = 16;

/// One process, from its spawn to its end.
pub(super) struct Run {
    pub(super) worker: WorkerId,
    pub(super) process: Process,
    pub(super) listener: Option<UnixListener>,
    pub(super) host: Host,
    pub(super) greetings: JoinSet<Result<Greeting, LinkError>>,
    pub(super) link: Option<Arc<Link>>,
    /// Requests that it runs at the same time.
    pub(super) credits: u32,
    pub(super) said: Option<mpsc::Receiver<Kind>>,
    pub(super) io: JoinSet<LinkError>,
    pub(super) output: JoinSet<()>,
    /// When the start times out, then when the worker is settled.
    pub(super) timer: Option<(Instant, Event)>,
    pub(super) last_word: String,
    /// The worker closed its socket before anything else was wrong, as one does that dies.
    pub(super) closed: bool,
    /// It leaves and nothing is left to finish.
    pub(super) may_leave: bool,
}

/// What a run waits for.
pub(super) enum Happened {
    Exited(io::Result<ExitStatus>),
    Connected(UnixStream),
    Greeted(Result<Greeting, LinkError>),
    LinkEnded(LinkError),
    TimerOver(Event),
    Said(Kind),
    Wished(Wish),
    Idle,
    Drain,
    Kill,
}

// === impl Run ===

impl Run {
    /// Waits for whatever happens next.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn wait(&mut self, station: &mut Station, kill: &CancellationToken, life: &Lifecycle) -> Happened {
        let Self { process, listener, greetings, io, timer, link, said, may_leave, .. } = self;
        let timer = *timer;
        let Station { wishes, leave, .. } = station;
        let (can_drain, can_kill) = (life.can_drain(), life.name() == "draining");
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
            Some(kind) = hear(said.as_mut()) => Happened::Said(kind),
            Some(wish) = wishes.recv() => Happened::Wished(wish),
            () = idle(link.as_deref()), if life.waits_for_idle() || can_kill && !*may_leave => Happened::Idle,
            event = over(timer) => Happened::TimerOver(event),
            () = leave.cancelled(), if can_drain => Happened::Drain,
            () = kill.cancelled(), if can_kill => Happened::Kill,
        }
    }

    pub(super) fn link_ended(&mut self, error: &LinkError) -> Event {
        // The socket of one that is ended for another reason closes, too.
        let first = self.last_word.is_empty();
        if first {
            self.last_word = with_causes(error);
        }
        match error {
            LinkError::Unresponsive(_) => Event::Unresponsive,
            LinkError::Overrun => Event::Overrun,
            LinkError::Closed | LinkError::Io(_) => {
                self.closed |= first;
                Event::Broken
            }
            _ => Event::Broken,
        }
    }

    /// Greets who connected before the process ended, as far as it needs no more waiting for.
    pub(super) async fn last_greeting(&mut self) -> Option<Result<Result<Greeting, LinkError>, JoinError>> {
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

async fn accept(listener: Option<&UnixListener>) -> UnixStream {
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

async fn hear(said: Option<&mut mpsc::Receiver<Kind>>) -> Option<Kind> {
    match said {
        Some(said) => said.recv().await,
        None => std::future::pending().await,
    }
}

async fn idle(link: Option<&Link>) {
    if let Some(link) = link {
        link.idle().await;
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
