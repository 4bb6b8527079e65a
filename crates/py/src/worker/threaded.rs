//! A worker with handlers that run beside each other: sync ones on threads, async ones on an event loop.

use std::sync::Arc;
use std::thread;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;

use super::bridge::Bridge;
use super::life::{Exit, Life};
use super::router::{Queue, Router};
use super::run::serve;
use super::session::Session;

/// A thread of one sync handler.
#[pyclass(frozen, module = "anyserve._core", name = "_Server")]
pub(crate) struct Server {
    session: Arc<Session>,
    queue: Arc<Queue>,
}

/// Serves until the runtime says drain and everything is answered, or closes the socket.
pub(super) fn run(py: Python<'_>, session: &Arc<Session>, router: &Router, life: &Life<'_>) -> PyResult<Exit> {
    // Before anything of the app's runs: a limit of memory has room for their stacks now.
    start_servers(py, session, router)?;
    let bridge = if router.has_loop() { Some(Bridge::new(py, session, router)?) } else { None };
    let reading = Arc::clone(session);
    thread::Builder::new().name("anyserve-reader".to_owned()).spawn(move || read(&reading))?;
    if !life.start()? {
        return Ok(Exit::CannotStart);
    }
    loop {
        match &bridge {
            Some(bridge) => drop(py.import("anyserve.worker.loop")?.call_method1("serve", (bridge, life.hooks()))?),
            None => wait(py, session, router)?,
        }
        if !session.is_over() {
            if !life.turn()? {
                return Ok(Exit::CannotTurn);
            }
        } else if session.leave(py) {
            life.stop()?;
            return Ok(Exit::Drained);
        }
    }
}

fn read(session: &Session) {
    while !session.has_ended() {
        session.receive(RecvFlags::empty());
    }
}

/// Threads as Python knows them, so that its tools show them by name and thread-local data outlives a request.
fn start_servers(py: Python<'_>, session: &Arc<Session>, router: &Router) -> PyResult<()> {
    let thread_class = py.import("threading")?.getattr("Thread")?;
    for (place, row) in session.rows.iter().enumerate().filter(|(_, row)| row.is_sync()) {
        for number in 0..row.handler.concurrency {
            let server = Server { session: Arc::clone(session), queue: router.queue(place) };
            let options = PyDict::new(py);
            options.set_item("target", Bound::new(py, server)?.getattr("run")?)?;
            options.set_item("name", format!("{}-{number}", row.handler.function))?;
            options.set_item("daemon", true)?;
            thread_class.call((), Some(&options))?.call_method0("start")?;
        }
    }
    Ok(())
}

fn wait(py: Python<'_>, session: &Session, router: &Router) -> PyResult<()> {
    let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    while !session.is_over() && !session.is_due() {
        py.detach(|| {
            let mut ready = [PollFd::from_borrowed_fd(router.fd(), PollFlags::IN)];
            // A signal, or its being missed just before, ends the wait as well.
            if poll(&mut ready, Some(&second)).is_ok_and(|count| count > 0) {
                router.take();
            }
        });
        py.check_signals()?;
    }
    Ok(())
}

// === impl Server ===

#[pymethods]
impl Server {
    /// Serves requests of its handler until the process ends.
    fn run(&self, py: Python<'_>) {
        loop {
            let work = py.detach(|| self.queue.pop());
            serve(py, &self.session, work);
            self.session.link.flush(py);
        }
    }
}
