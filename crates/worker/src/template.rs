//! The template: a process that has loaded the app and forks workers from what it has loaded.
//!
//! ```text
//!  start: spawn ─► (connects, imports the app) ─► Manifest ──can fork──► one owner task, one fork at a time
//!                                                    └─ cannot: it ends, and workers are spawned cold
//!  fork:  Fork ─► (forks twice) ─► Forked(pid) ─► Process, as if we had spawned it
//! ```
//!
//! The app is the user's code, so nothing that a template says is believed: its frames have limits, a process that it
//! names must be our own child and nobody's worker, and every wait has an end. A template that breaks a rule or does not
//! answer is killed. Workers that it has forked are our children and live on; later ones are spawned cold.

mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod manifest;
mod owner;
mod pipe;
mod start;
#[cfg(test)]
mod tests;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use error::{ForkError, ProtocolError, TemplateError};
pub(crate) use manifest::Manifest;

use crate::process::Process;

/// Orders that wait while a fork is under way; more wait for room.
const MAX_ORDERS: usize = 64;

/// How to start a template.
#[derive(Clone, Debug)]
pub(crate) struct TemplateConfig {
    /// Its program, a Python interpreter as a rule.
    pub(crate) program: PathBuf,
    /// Its arguments: `-m anyserve.worker.template --target …`; `--socket PATH` is added.
    pub(crate) arguments: Vec<OsString>,
    /// Variables set in addition to the runtime's own.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Bytes that the manifest, or an answer, may have.
    pub(crate) max_meta: usize,
    /// Time from its start until the manifest must be there.
    pub(crate) start_timeout: Duration,
    /// Time for one fork.
    pub(crate) fork_timeout: Duration,
}

/// A worker that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct ForkOrder {
    /// Its number.
    pub(crate) worker: u32,
    /// Its group.
    pub(crate) group: String,
    /// The socket that it connects to.
    pub(crate) socket: PathBuf,
    /// The secret that it says hello with.
    pub(crate) token: String,
    /// Variables that it sets before anything else.
    pub(crate) environment: Vec<(String, String)>,
}

/// A handle on a template; cheap to clone. When the last one is dropped, the template is killed.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    orders: mpsc::Sender<Order>,
    can_fork: Arc<AtomicBool>,
    _owner: Arc<AbortOnDropHandle<()>>,
}

/// A process with its standard output and standard error.
type Worker = (Process, Receiver, Receiver);

/// An order and who waits for it.
struct Order {
    fork: ForkOrder,
    reply: oneshot::Sender<Result<Worker, ForkError>>,
}

// === impl Template ===

impl Template {
    /// Forks a worker, with its outputs piped to us. Orders are carried out one after the other.
    ///
    /// # Errors
    /// [`ForkError`]; whichever it is, a worker that is spawned cold may do better. [`can_fork`](Self::can_fork) says
    /// whether another fork makes sense.
    ///
    /// # Cancel safety
    /// A process that was forked for a dropped future is killed.
    pub(crate) async fn fork(&self, order: &ForkOrder) -> Result<Worker, ForkError> {
        let (reply, forked) = oneshot::channel();
        let order = Order { fork: order.clone(), reply };
        self.orders.send(order).await.map_err(|_| ForkError::Gone)?;
        forked.await.map_err(|_| ForkError::Gone)?
    }

    /// Whether it can fork, as far as is known: it said so, it lives, and it has kept to the rules.
    pub(crate) fn can_fork(&self) -> bool {
        self.can_fork.load(Ordering::Acquire)
    }
}
