//! A worker whose handlers are all sync, one request at a time: the main thread receives, runs and sends.
//!
//! No hand-over to another thread, and one system call each way for as many requests as there are.

use std::sync::Arc;

use pyo3::prelude::*;
use rustix::net::RecvFlags;

use super::inbox::{Received, Work};
use super::run::serve;
use super::session::Session;
use super::watch::Watch;

/// Serves until the runtime says drain, or closes the socket.
pub(super) fn run(py: Python<'_>, session: &Arc<Session>) -> PyResult<()> {
    let mut watch = Watch::start(session)?;
    while let Some(work) = next(py, session, &watch)? {
        if session.rows[work.row()].is_slow() {
            session.link.flush(py);
        }
        watch.begin();
        serve(py, session, work);
        session.link.flush_if_due(py);
    }
    session.link.flush(py);
    Ok(())
}

fn next(py: Python<'_>, session: &Session, watch: &Watch) -> PyResult<Option<Work>> {
    loop {
        if let Some(work) = session.pop() {
            return Ok(Some(work));
        }
        if session.has_ended() {
            return Ok(None);
        }
        session.link.flush(py);
        watch.rest();
        // After a signal to drain, what the runtime had sent before it is in the socket and is still served.
        let flags = if session.is_draining() { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        if let Received::Nothing = py.detach(|| session.receive(flags)) {
            py.check_signals()?;
            if session.is_draining() && flags.contains(RecvFlags::DONTWAIT) {
                return Ok(None);
            }
        }
    }
}
