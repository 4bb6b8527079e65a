//! The pool as a whole: started, waited for, drained.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::PoolConfig;
use crate::dispatch::Inner;
use crate::planner::Planner;
use crate::process::Spawner;

/// The local dispatcher; a cheap handle on it. See the crate's picture.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(crate) inner: Arc<Inner>,
    pub(crate) nursery: Nursery,
}

/// Where processes are started from.
#[derive(Clone, Debug)]
pub(crate) struct Nursery {
    pub(crate) spawner: Spawner,
    pub(crate) directory: PathBuf,
}

/// The pool's tasks. Dropping it ends every worker at once.
#[derive(Debug)]
pub struct Running {
    /// Owns the supervisors.
    planner: JoinSet<()>,
    /// What is done at its time, whatever the workers do.
    tasks: JoinSet<()>,
    drain: CancellationToken,
    kill: CancellationToken,
    first: watch::Receiver<Option<Result<(), StartError>>>,
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

// === impl Pool ===

impl Pool {
    /// Loads the app and starts its workers. [`Running::ready`] tells when they are up.
    ///
    /// # Errors
    /// [`StartError`] if the private directory for the sockets cannot be made.
    pub fn start(config: PoolConfig) -> Result<(Self, Running), StartError> {
        let directory = private_directory()?;
        let inner = Arc::new(Inner::new(config));
        let nursery = Nursery { spawner: Spawner::start(), directory: directory.path().to_owned() };
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let (first, first_seen) = watch::channel(None);
        let (mut planner, mut tasks) = (JoinSet::new(), JoinSet::new());
        planner.spawn(Planner::new(Arc::clone(&inner), nursery.clone(), drain.clone(), kill.clone()).run());
        tasks.spawn(crate::deadline::expire_forever(Arc::clone(&inner)));
        tasks.spawn(crate::objects::tidy_forever(Arc::clone(&inner)));
        tasks.spawn(crate::regions::forget_forever(Arc::clone(&inner)));
        let pool = Self { inner, nursery };
        let first_load = pool.clone();
        tasks.spawn(async move { _ = first.send(Some(first_load.first_load().await)) });
        Ok((pool, Running { planner, tasks, drain, kill, first: first_seen, _directory: directory }))
    }

    async fn first_load(&self) -> Result<(), StartError> {
        let groups = self.inner.load_app(&self.nursery, 1).await?;
        self.inner.route_to(&groups);
        self.inner.come_up(&groups).await
    }

    /// Takes no more requests: each is refused with `DRAINING`. What is under way goes on.
    pub fn refuse(&self) {
        self.inner.draining.store(true, Ordering::Release);
        self.inner.publish_catalog();
    }

    /// Workers that take requests.
    pub fn ready_workers(&self) -> u32 {
        self.inner.groups.load().iter().map(|group| group.ready_workers()).sum()
    }

    /// Files that the app was loaded from.
    pub fn files(&self) -> Vec<PathBuf> {
        self.inner.current().first().map_or_else(Vec::new, |group| group.app.files.clone())
    }

    /// Requests that wait or are with a worker.
    pub fn in_flight(&self) -> usize {
        self.inner.live_requests()
    }
}

// === impl Running ===

impl Running {
    /// Waits until as many workers of each group have been ready as are always there.
    ///
    /// # Errors
    /// [`StartError`] if the app cannot be loaded, or as soon as one of them cannot start.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ready(&mut self) -> Result<(), StartError> {
        let settled = self.first.wait_for(Option::is_some).await.map(|first| first.clone());
        let ended = || StartError { message: "the pool's tasks ended".into(), traceback: String::new() };
        settled.ok().flatten().unwrap_or_else(|| Err(ended()))
    }

    /// Tells every worker to finish what it has, and ends those that have not after `grace`.
    ///
    /// # Cancel safety
    /// Dropping the future ends every worker at once.
    pub async fn stop(mut self, grace: Duration) {
        self.drain.cancel();
        let all = async { while self.planner.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            self.kill.cancel();
            while self.planner.join_next().await.is_some() {}
        }
        self.tasks.shutdown().await;
    }
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
