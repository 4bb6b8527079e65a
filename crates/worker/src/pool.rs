//! The pool as a whole: started, waited for, drained.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{DEFAULT_GROUP, PoolConfig};
use crate::dispatch::Inner;
use crate::process::Spawner;
use crate::supervisor::Supervisor;

/// The local dispatcher; a cheap handle on it. See the crate's picture.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(crate) inner: Arc<Inner>,
}

/// The pool's tasks. Dropping it ends every worker at once.
#[derive(Debug)]
pub struct Running {
    supervisors: JoinSet<()>,
    /// What is done at its time, whatever the workers do.
    tasks: JoinSet<()>,
    drain: CancellationToken,
    kill: CancellationToken,
    first: watch::Receiver<FirstStarts>,
    _directory: tempfile::TempDir,
}

/// Why a pool did not start. The message is for the person who typed the command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What is wrong, and how to mend it.
    pub message: String,
    /// The traceback of the user's code, if it raised; may be empty.
    pub traceback: String,
}

/// How the workers' first starts went.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstStarts {
    pub(crate) ready: u32,
    pub(crate) failed: Option<StartError>,
}

// === impl Pool ===

impl Pool {
    /// Starts the workers. [`Running::ready`] tells when they are up.
    ///
    /// # Errors
    /// [`StartError`] if the private directory for the sockets cannot be made.
    pub fn start(config: PoolConfig) -> Result<(Self, Running), StartError> {
        let directory = private_directory()?;
        let (first, first_seen) = watch::channel(FirstStarts::default());
        let inner = Arc::new(Inner::new(config, first));
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let (mut supervisors, mut tasks) = (JoinSet::new(), JoinSet::new());
        let spawner = Spawner::start();
        for index in 0..inner.config.workers {
            let path = directory.path().to_owned();
            let tokens = (drain.clone(), kill.clone());
            supervisors.spawn(Supervisor::new(index, Arc::clone(&inner), path, spawner.clone(), tokens).run());
        }
        tasks.spawn(crate::deadline::expire_forever(Arc::clone(&inner)));
        tasks.spawn(crate::objects::tidy_forever(Arc::clone(&inner)));
        tasks.spawn(crate::regions::forget_forever(Arc::clone(&inner)));
        let running = Running { supervisors, tasks, drain, kill, first: first_seen, _directory: directory };
        Ok((Self { inner }, running))
    }

    /// Takes no more requests: each is refused with `DRAINING`. What is under way goes on.
    pub fn refuse(&self) {
        self.inner.draining.store(true, Ordering::Release);
        self.inner.publish_catalog();
    }

    /// Requests that wait or are with a worker.
    pub fn in_flight(&self) -> usize {
        self.inner.live_requests()
    }
}

// === impl Running ===

impl Running {
    /// Waits until every worker has been ready once.
    ///
    /// # Errors
    /// [`StartError`] as soon as one of them cannot start.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&mut self, workers: u32) -> Result<(), StartError> {
        let settled = self.first.wait_for(|first| first.failed.is_some() || first.ready >= workers).await;
        match settled {
            Ok(first) => first.failed.clone().map_or(Ok(()), Err),
            Err(_) => Err(StartError { message: "the workers' supervisors ended".into(), traceback: String::new() }),
        }
    }

    /// Tells every worker to finish what it has, and ends those that have not after `grace`.
    ///
    /// # Cancel safety
    /// Dropping the future ends every worker at once.
    pub async fn stop(mut self, grace: Duration) {
        self.drain.cancel();
        let all = async { while self.supervisors.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            self.kill.cancel();
            while self.supervisors.join_next().await.is_some() {}
        }
        self.tasks.shutdown().await;
    }
}

pub(crate) fn worker_name(index: u32) -> String {
    format!("worker-{index}")
}

pub(crate) fn group_name() -> String {
    DEFAULT_GROUP.to_owned()
}

fn private_directory() -> Result<tempfile::TempDir, StartError> {
    use std::os::unix::fs::PermissionsExt;
    // From its first moment: the sockets in it are for nobody else.
    let owner_only = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("anyserve-").permissions(owner_only).tempdir().map_err(|error| StartError {
        message: format!(
            "no private directory for the workers' sockets ({error}); set TMPDIR to one that can be written"
        ),
        traceback: String::new(),
    })
}
