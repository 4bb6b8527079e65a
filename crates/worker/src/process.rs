//! A worker's process: spawned, watched, signalled, reaped.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Starts processes from a thread that lives as long as this process.
///
/// A worker asks the kernel to be killed when its parent dies, and by parent the kernel means the thread that forked it;
/// a thread of the async runtime may end earlier.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<Order>,
}

type Order = (Command, oneshot::Sender<io::Result<Child>>);

/// A child process, leader of its own process group. Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
    reaped: bool,
}

// === impl Spawner ===

impl Spawner {
    /// Starts the thread. It ends with the last handle on it.
    pub(crate) fn start() -> Self {
        let (orders, taken) = mpsc::channel::<Order>();
        let runtime = Handle::current();
        let spawn = move || {
            let _context = runtime.enter();
            for (mut command, reply) in taken {
                // If nobody waits for the child any more, it is dropped, and killed by that.
                let _ = reply.send(command.spawn());
            }
        };
        thread::Builder::new().name("anyserve-spawn".into()).spawn(spawn).expect("a thread can be started");
        Self { orders }
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
        let mut child = spawned.await.map_err(|_| gone())??;
        let stdout = child.stdout.take().expect("was piped");
        let stderr = child.stderr.take().expect("was piped");
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = id.ok_or_else(|| io::Error::other("the process ended before it could be watched"))?;
        Ok((Process { child, group, reaped: false }, stdout, stderr))
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end, and ends whatever it left behind in its group.
    ///
    /// # Cancel safety
    /// Safe; it may be called again.
    pub(crate) async fn exited(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // The group keeps its number for as long as somebody is in it, so nobody else can be meant.
        self.kill();
        self.reaped = true;
        Ok(status)
    }

    /// Ends the whole group at once.
    pub(crate) fn kill(&self) {
        if !self.reaped {
            // Fails only if there is nobody left.
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
