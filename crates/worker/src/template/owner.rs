//! The one task that a template belongs to: it orders forks, one after the other, and sees the template's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyserve_wire::{Frame, Kind, message};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pipe::Pipe;
use super::wire::Wire;
use super::{ForkError, ForkOrder, Order, ProtocolError, Worker};
use crate::process::Process;
use crate::reaper::Birth;

/// Time that a template which cannot fork has to end by itself, and the last lines of any have to be logged.
const LEAVE: Duration = Duration::from_secs(5);

pub(super) struct Owner {
    pub(super) process: Process,
    pub(super) wire: Wire,
    pub(super) output: JoinSet<()>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) can_fork: Arc<AtomicBool>,
    pub(super) fork_timeout: Duration,
}

// === impl Owner ===

impl Owner {
    /// Carries out orders until nobody can give one any more, or the template is of no use.
    pub(super) async fn run(mut self) {
        if self.can_fork.load(Ordering::Acquire) {
            let Some(why) = self.serve().await else { return };
            self.can_fork.store(false, Ordering::Release);
            self.process.kill();
            tracing::warn!(reason = why, "the template process ended; workers are started without it from now on");
        }
        // Refused at once: their workers are spawned meanwhile.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            let _ = order.reply.send(Err(ForkError::Gone));
        }
        self.see_off().await;
    }

    /// Waits for orders. Returns why there can be no more forks, or `None` when nobody wants one.
    async fn serve(&mut self) -> Option<String> {
        loop {
            let order = tokio::select! {
                biased;
                status = self.process.exited() => {
                    return Some(status.map_or_else(|error| error.to_string(), |status| status.to_string()));
                }
                said = self.wire.next() => return Some(unasked(said).to_string()),
                order = self.orders.recv() => order?,
            };
            let forked = self.fork_in_time(&order.fork).await;
            let why = forked.as_ref().err().filter(|error| error.is_final()).map(with_causes);
            if why.is_some() {
                // Before the answer, so that whoever gets it does not order again.
                self.can_fork.store(false, Ordering::Release);
            }
            // A worker that nobody waits for any more is dropped, and killed by that.
            let _ = order.reply.send(forked);
            if why.is_some() {
                return why;
            }
        }
    }

    async fn fork_in_time(&mut self, order: &ForkOrder) -> Result<Worker, ForkError> {
        let limit = self.fork_timeout;
        tokio::time::timeout(limit, self.fork(order)).await.unwrap_or(Err(ForkError::TimedOut(limit)))
    }

    async fn fork(&mut self, order: &ForkOrder) -> Result<Worker, ForkError> {
        let birth = Birth::announce();
        let (stdout, stderr) = (Pipe::new().map_err(ForkError::Pipe)?, Pipe::new().map_err(ForkError::Pipe)?);
        let meta = message::Fork { stdout: stdout.path(), stderr: stderr.path(), ..order.to_message() };
        self.wire.send(&Frame::with_meta(Kind::Fork, 0, &meta)).await?;
        let answer = self.wire.expect(Kind::Forked, "Forked").await?;
        let forked: message::Forked = answer.message().map_err(ProtocolError::from)?;
        if forked.worker != order.worker {
            return Err(ProtocolError::Worker { got: forked.worker, expected: order.worker }.into());
        }
        if !forked.failed.is_empty() {
            return Err(ForkError::Refused(forked.failed));
        }
        let process = Process::adopt(forked.pid, birth)?;
        Ok((process, stdout.into_read(), stderr.into_read()))
    }

    /// Gives the process a little time to end by itself and its last lines to be logged.
    async fn see_off(mut self) {
        let all = async {
            let _ = self.process.exited().await;
            while self.output.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(LEAVE, all).await;
    }
}

/// Between two orders there is nothing to say.
fn unasked(said: Result<Frame, ProtocolError>) -> ProtocolError {
    said.map_or_else(|error| error, |frame| ProtocolError::Frame { got: frame.kind, expected: "none" })
}

fn with_causes(error: &ForkError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

// === impl ForkOrder ===

impl ForkOrder {
    fn to_message(&self) -> message::Fork {
        let variable = |(name, value): &(String, String)| message::Header { name: name.clone(), value: value.clone() };
        message::Fork {
            worker: self.worker,
            group: self.group.clone(),
            socket: self.socket.to_string_lossy().into_owned(),
            token: self.token.clone(),
            environment: self.environment.iter().map(variable).collect(),
            ..Default::default()
        }
    }
}
