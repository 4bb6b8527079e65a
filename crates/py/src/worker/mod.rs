//! The worker process: reads requests from the runtime's socket, runs the handlers, writes their answers.
//!
//! ```text
//! serial    every handler is sync with concurrency 1: the main thread receives, runs and sends
//! threaded  a reading thread ─► a queue and threads for each sync handler
//!                            └► events, one descriptor ─► the event loop of the async handlers
//! ```
//!
//! A handler with `max_batch_size` is called once for all requests of a batch (`batch.rs`).
//!
//! No lock of ours is held while Python's is asked for, so the two can be taken in the other order. Only the outbox's and
//! the inbox's are held while the runtime is waited for: Python's is let go before they are.

mod ahead;
mod asks;
mod batch;
mod bridge;
mod call;
mod context;
mod deliver;
mod exchange;
mod failure;
mod flow;
mod inbox;
mod lane;
mod life;
mod link;
mod made;
mod made_call;
mod objects;
mod outbox;
mod places;
mod reply;
mod rooms;
mod router;
mod run;
mod serial;
mod session;
mod share;
mod table;
mod task;
mod template;
mod threaded;
mod watch;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyserve_core::{Code, Error};
use anyserve_wire::{Frame, Kind, message};
use pyo3::prelude::*;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;

use life::Life;
use link::{Link, send_now};
use router::Router;
use session::Session;
use table::{Row, rows_of};

/// Adds the classes and functions to `anyserve._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<context::Context>()?;
    module.add_class::<context::Stream>()?;
    module.add_class::<objects::ObjectPlane>()?;
    module.add_class::<made_call::MadeCall>()?;
    module.add_class::<bridge::Bridge>()?;
    module.add_class::<exchange::Exchange>()?;
    module.add_class::<exchange::BatchExchange>()?;
    module.add_class::<threaded::Server>()?;
    module.add_class::<Terminate>()?;
    module.add_class::<template::Template>()?;
    module.add_class::<template::Fork>()?;
    module.add_function(wrap_pyfunction!(run_worker, module)?)?;
    module.add_function(wrap_pyfunction!(template::check_upgrades, module)?)?;
    module.add_function(wrap_pyfunction!(report_start_failure, module)?)
}

/// Starts a worker and runs its handlers until the runtime says drain, or closes the socket.
#[pyfunction]
fn run_worker(
    py: Python<'_>,
    socket: &str,
    worker_id: u32,
    token: &str,
    handlers: &Bound<'_, PyAny>,
    life: &Bound<'_, PyAny>,
) -> PyResult<u8> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    // Forked ones have their template's command line; `ps` and `top` tell them apart by this.
    set_name(c"anyserve-worker").map_err(io::Error::from)?;
    let rows = rows_of(handlers)?;
    let hello = hello(worker_id, token, &rows);
    let link = py.detach(|| Link::open(socket, &hello))?;
    let router = if is_serial(&rows) { None } else { Some(Router::new(&rows)?) };
    let session = Arc::new(Session::new(link, rows, router));
    let life = Life::new(life, &session);
    let exit = match session.router() {
        Some(router) => threaded::run(py, &session, router, &life)?,
        None => serial::run(py, &session, &life)?,
    };
    Ok(exit as u8)
}

/// Tells the runtime why this worker cannot start.
#[pyfunction]
fn report_start_failure(
    py: Python<'_>,
    socket: &str,
    worker_id: u32,
    token: &str,
    kind: &str,
    message: &str,
    traceback: &str,
) -> PyResult<()> {
    let failed = start_failure(kind, message, traceback);
    let hello = hello(worker_id, token, &[]);
    py.detach(|| {
        let socket = UnixStream::connect(socket)?;
        send_now(&socket, &Frame::with_meta(Kind::Hello, 0, &hello))?;
        send_now(&socket, &Frame::with_meta(Kind::Failed, 0, &failed))
    })?;
    Ok(())
}

fn start_failure(kind: &str, message: &str, traceback: &str) -> message::Failed {
    let code = if kind == "internal" { Code::Internal } else { Code::InvalidInput };
    message::Failed::from(&Error::new(code, message).with_traceback(traceback))
}

fn hello(worker: u32, token: &str, rows: &[Row]) -> message::Hello {
    let handlers = rows.iter().map(|row| message::Handler::from(&row.handler)).collect();
    message::Hello {
        pid: std::process::id(),
        worker,
        token: token.to_owned(),
        handlers,
        concurrency: concurrency(rows),
    }
}

/// A serial worker runs one request at a time, however many handlers it has; the others keep each handler's own number.
fn concurrency(rows: &[Row]) -> u32 {
    if is_serial(rows) {
        return 1;
    }
    rows.iter().fold(0, |sum, row| sum.saturating_add(row.handler.concurrency))
}

fn is_serial(rows: &[Row]) -> bool {
    rows.iter().all(|row| row.is_sync() && row.handler.concurrency == 1)
}

fn handle_signals(py: Python<'_>, session: &Arc<Session>) -> PyResult<()> {
    let terminate = Bound::new(py, Terminate { session: Arc::clone(session) })?;
    py.import("anyserve.worker._process")?.call_method1("handle_signals", (terminate,))?;
    Ok(())
}

/// The handler of SIGTERM: what is in flight is finished, then the worker ends.
#[pyclass(frozen, module = "anyserve._core", name = "_Terminate")]
struct Terminate {
    session: Arc<Session>,
}

#[pymethods]
impl Terminate {
    fn __call__(&self, _signal: &Bound<'_, PyAny>, _frame: &Bound<'_, PyAny>) {
        self.session.drain();
    }
}
