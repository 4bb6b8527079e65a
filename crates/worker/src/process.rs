//! A worker's process: spawned or forked, watched, signalled, reaped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpgid, kill_process_group, pidfd_open, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::reaper::{self, Birth, Claim};

/// Starts processes from a thread that lives as long as this process.
///
/// A worker asks the kernel to be killed when its parent dies, and by parent the kernel means the thread that forked it;
/// a thread of the async runtime may end earlier.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<Order>,
    reaper: Arc<OnceLock<AbortOnDropHandle<()>>>,
}

type Order = (Command, oneshot::Sender<io::Result<(Child, Option<Claim>)>>);

/// A child process, leader of its own process group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Origin,
    group: Pid,
    reaped: Option<ExitStatus>,
    /// Until it is reaped, and no longer: its number is free then.
    claim: Option<Claim>,
}

#[derive(Debug)]
enum Origin {
    /// We started it.
    Spawned(Child),
    /// A template forked it and we inherited it.
    Forked(AsyncFd<OwnedFd>),
}

/// Why a process that a template names is none that could be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdoptError {
    /// No process can have this number.
    #[error("{pid} is no process's number")]
    Number { pid: u32 },
    /// It is not our child: perhaps somebody else's process, which must not be signalled.
    #[error("process {pid} is no child of this process")]
    NotOurs { pid: u32 },
    /// It would not be ended with its children.
    #[error("process {pid} is in the process group {group} and not in one of its own")]
    NoLeader { pid: u32, group: i32 },
    /// A worker has it already.
    #[error("process {pid} is a worker already")]
    Claimed { pid: u32 },
    /// The kernel does not let us watch it.
    #[error("process {pid} cannot be watched")]
    Watch { pid: u32, source: io::Error },
}

/// Whether it has ended, without taking its status.
const PEEK: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);

// === impl Spawner ===

impl Spawner {
    /// Starts the thread. It ends with the last handle on it.
    pub(crate) fn start() -> Self {
        let (orders, taken) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        let spawn = move || {
            let _context = runtime.enter();
            for (command, reply) in taken {
                // If nobody waits for the child any more, it is dropped, and killed by that.
                let _ = reply.send(spawn_claimed(command));
            }
        };
        thread::Builder::new().name("anyserve-spawn".into()).spawn(spawn).expect("a thread can be started");
        Self { orders, reaper: Arc::default() }
    }

    /// Starts a process in a group of its own, with its outputs piped to us and no input.
    ///
    /// # Cancel safety
    /// A process that was started for a dropped future is killed.
    pub(crate) async fn spawn(&self, mut command: Command) -> io::Result<(Process, ChildStdout, ChildStderr)> {
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (reply, spawned) = oneshot::channel();
        let gone = || io::Error::other("the spawning thread ended");
        self.orders.send((command, reply)).map_err(|_| gone())?;
        let (mut child, claim) = spawned.await.map_err(|_| gone())??;
        let stdout = child.stdout.take().expect("was piped");
        let stderr = child.stderr.take().expect("was piped");
        let group = id_of(&child).ok_or_else(|| io::Error::other("the process ended before it could be watched"))?;
        Ok((Process { child: Origin::Spawned(child), group, reaped: None, claim }, stdout, stderr))
    }

    /// Makes this process the parent of what is orphaned below it, once; see [`reaper`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn adopt_orphans(&self) -> io::Result<()> {
        if self.reaper.get().is_none() {
            // Where two come at the same time, the one that is too late is dropped, and stops by that.
            let _ = self.reaper.set(reaper::adopt_orphans()?);
        }
        Ok(())
    }
}

fn spawn_claimed(mut command: Command) -> io::Result<(Child, Option<Claim>)> {
    let birth = Birth::announce();
    let child = command.spawn()?;
    let claim = id_of(&child).and_then(|pid| birth.claim(pid));
    Ok((child, claim))
}

fn id_of(child: &Child) -> Option<Pid> {
    child.id().and_then(pid_of)
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

// === impl Process ===

impl Process {
    /// Takes over a process that a template has forked and that the kernel gave to us. It may have ended already.
    ///
    /// # Errors
    /// [`AdoptError`] if it is not ours, or not alone in its process group; it is left as it is then.
    pub(crate) fn adopt(pid: u32, birth: Birth) -> Result<Self, AdoptError> {
        let group = pid_of(pid).ok_or(AdoptError::Number { pid })?;
        let not_ours = |_| AdoptError::NotOurs { pid };
        let watched = pidfd_open(group, PidfdFlags::NONBLOCK).map_err(not_ours)?;
        match waitid(WaitId::PidFd(watched.as_fd()), PEEK) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(not_ours(error)),
        }
        let leader = getpgid(Some(group)).map_err(not_ours)?;
        if leader != group {
            return Err(AdoptError::NoLeader { pid, group: leader.as_raw_pid() });
        }
        let claim = birth.claim(group).ok_or(AdoptError::Claimed { pid })?;
        let watched = watch(watched).map_err(|source| AdoptError::Watch { pid, source })?;
        Ok(Self { child: Origin::Forked(watched), group, reaped: None, claim: Some(claim) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end, and ends whatever it left behind in its group.
    ///
    /// # Cancel safety
    /// Safe; it may be called again.
    pub(crate) async fn exited(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.reaped {
            return Ok(status);
        }
        let status = match &mut self.child {
            Origin::Spawned(child) => child.wait().await?,
            Origin::Forked(watched) => {
                ended(watched).await?;
                // Before its number is free, so that nobody else can be meant.
                let _ = kill_process_group(self.group, Signal::KILL);
                status_of(watched)?
            }
        };
        // The group keeps its number for as long as somebody is in it, so nobody else can be meant.
        self.kill();
        self.reaped = Some(status);
        self.claim = None;
        Ok(status)
    }

    /// Ends the whole group at once.
    pub(crate) fn kill(&self) {
        if self.reaped.is_none() {
            // Fails only if there is nobody left.
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(deprecated, reason = "its successor is unsafe for descriptors that may be closed early; an owned one is not")]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Waits for its end and leaves it a zombie.
async fn ended(watched: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = watched.readable().await?;
        match waitid(WaitId::PidFd(watched.get_ref().as_fd()), PEEK) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) | Err(Errno::AGAIN | Errno::INTR) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps a process that has ended.
fn status_of(watched: &AsyncFd<OwnedFd>) -> io::Result<ExitStatus> {
    let status = waitid(WaitId::PidFd(watched.get_ref().as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    status.map(|status| exit_status(&status)).ok_or_else(|| io::Error::other("a process that had ended lives"))
}

/// The status as `wait` would have it: an exit code in the second byte, or a signal in the first.
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let code = status.exit_status().map(|code| (code & 0xff) << 8);
    let dumped = if status.dumped() { 0x80 } else { 0 };
    ExitStatus::from_raw(code.or(status.terminating_signal().map(|signal| signal | dumped)).unwrap_or_default())
}
