//! A worker whose handlers are all sync, one request at a time: the main thread receives, runs and sends.
//!
//! No hand-over to another thread, and one system call each way for as many requests as there are.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use rustix::net::RecvFlags;

use super::inbox::{Received, Work};
use super::life::{Exit, Life};
use super::run::serve;
use super::session::Session;
use super::watch::Watch;

/// Who waits for a request looks for signals that came just before it began to wait.
const SIGNAL_PAUSE: Duration = Duration::from_secs(1);

/// What the one thread does next.
enum Next {
    Work(Work),
    /// The hook that the runtime asked for.
    Turn,
    Stop,
}

/// Serves until the runtime says drain, or closes the socket.
///
/// While a hook runs, the watching thread reads the socket, as it does for a long handler.
pub(super) fn run(py: Python<'_>, session: &Arc<Session>, life: &Life<'_>) -> PyResult<Exit> {
    let mut watch = Watch::start(session)?;
    watch.begin();
    if !life.start()? {
        return Ok(Exit::CannotStart);
    }
    session.link.socket.set_read_timeout(Some(SIGNAL_PAUSE))?;
    loop {
        match next(py, session, &watch)? {
            Next::Work(work) => run_one(py, session, &mut watch, work),
            Next::Turn => {
                watch.begin();
                if !life.turn()? {
                    return Ok(Exit::CannotTurn);
                }
            }
            Next::Stop => break,
        }
    }
    watch.begin();
    life.stop()?;
    Ok(Exit::Drained)
}

fn run_one(py: Python<'_>, session: &Arc<Session>, watch: &mut Watch, work: Work) {
    if session.rows[work.row()].is_slow() {
        session.link.flush(py);
    }
    watch.begin();
    serve(py, session, work);
    session.link.flush_if_due(py);
}

fn next(py: Python<'_>, session: &Session, watch: &Watch) -> PyResult<Next> {
    loop {
        if let Some(work) = session.pop() {
            return Ok(Next::Work(work));
        }
        if session.has_ended() {
            return Ok(Next::Stop);
        }
        if session.is_due() && !session.is_draining() {
            return Ok(Next::Turn);
        }
        session.link.flush(py);
        watch.rest();
        // After a signal to drain, what the runtime had sent before it is in the socket and is still served.
        let draining = session.is_draining();
        let received = py.detach(|| {
            if draining {
                return session.receive(RecvFlags::DONTWAIT);
            }
            session.receive_unless(|| session.has_news(), RecvFlags::empty())
        });
        if let Received::Nothing = received {
            py.check_signals()?;
            if draining && session.leave(py) {
                return Ok(Next::Stop);
            }
        }
    }
}
