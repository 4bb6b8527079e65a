//! The end of a process: what it may still have said is heard, what it held is freed, and what comes next is decided.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyserve_sched::Cause;

use super::Supervisor;
use super::run::Run;
use crate::handshake::Greeting;
use crate::lifecycle::{Action, Event};
use crate::pool::StartError;

/// Failures in a row after which requests no longer wait for a worker.
const DOWN_AFTER: u32 = 3;
const SIGKILL: i32 = 9;

// === impl Supervisor ===

impl Supervisor {
    pub(super) fn not_started(&mut self, error: &io::Error) -> Option<Duration> {
        let program = self.station.group.program(&self.pool.config).display().to_string();
        let message =
            format!("the worker's program '{program}' cannot be started ({error}); give another with --python");
        self.failed_start(StartError { message, traceback: String::new() });
        self.after_exit("its process could not be started")
    }

    pub(super) async fn exited(&mut self, mut run: Run, status: io::Result<ExitStatus>) -> Option<Duration> {
        // It may have answered in its last moment.
        if let Some(link) = &run.link {
            link.hear_out().await;
        }
        self.settle(&run);
        self.pool.bury(run.worker, &self.station.group, self.cause(&run));
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
        for path in [&run.host.slots, &self.nursery.directory.join(format!("{}.sock", run.worker.0))] {
            let _ = std::fs::remove_file(path);
        }
        let status = status.map_or_else(|error| error.to_string(), |status| self.described(&run, status));
        let why = if run.last_word.is_empty() { status } else { format!("{}; {status}", run.last_word) };
        if !self.has_been_ready && self.life.can_drain() {
            self.failed_start(StartError {
                message: format!("the worker did not start: {why}"),
                traceback: String::new(),
            });
        }
        self.after_exit(&why)
    }

    /// How the process ended. One that is killed from outside can say nothing of it itself.
    fn described(&self, run: &Run, status: ExitStatus) -> String {
        let killed = status.signal() == Some(SIGKILL) && matches!(self.cause(run), Cause::Died);
        let hint = if killed { ": unless somebody killed it, the system may have run out of memory" } else { "" };
        format!("{status}{hint}")
    }

    /// Whether the worker died by itself, or was ended by us.
    fn cause(&self, run: &Run) -> Cause {
        let ended = matches!(self.life.name(), "replacing" | "draining" | "stopping");
        if ended && !run.closed { Cause::Replaced } else { Cause::Died }
    }

    fn after_exit(&mut self, why: &str) -> Option<Duration> {
        let Action::Restart(wait) = self.on(Event::Exited) else { return None };
        tracing::warn!(worker = self.name(), reason = why, wait_ms = wait.as_millis(), "worker ended");
        self.tell(None, why);
        self.report();
        if self.life.failures() >= DOWN_AFTER {
            self.pool.down_if_empty(&self.station.group, why);
        }
        Some(wait)
    }

    /// A process of it has not become ready.
    pub(super) fn failed_start(&self, error: StartError) {
        let group = &self.station.group;
        if !self.has_been_ready {
            if !group.is_on_demand() {
                group.app.fail(&error);
            }
            group.failed(error);
            self.pool.publish_catalog();
        }
    }
}
