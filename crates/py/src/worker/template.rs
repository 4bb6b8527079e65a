//! The template's end of its socket: the manifest out, orders to fork in. One thread uses it, and between two frames it
//! waits without the interpreter's lock.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyserve_core::{GroupSpec, Limits, Needs, Upgrades};
use anyserve_wire::{Decoder, Frame, Kind, message};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::set_name;

use super::inbox::read;
use super::link::send_now;
use super::start_failure;
use super::table::rows_of;

/// How often a process looks whether it has got its new parent.
const LOOK: Duration = Duration::from_micros(200);

/// A template's connection to its runtime.
#[pyclass(frozen, module = "anyserve._core", name = "_Template")]
pub(super) struct Template {
    token: String,
    runtime: Pid,
    /// Empty once it is closed. The lock is for the type system: a template has one thread.
    line: Mutex<Option<Line>>,
}

struct Line {
    socket: UnixStream,
    decoder: Decoder,
}

/// A worker that is wanted.
#[pyclass(frozen, get_all, module = "anyserve._core", name = "_Fork")]
pub(super) struct Fork {
    worker: u32,
    group: String,
    socket: String,
    token: String,
    stdout: String,
    stderr: String,
    environment: Vec<(String, String)>,
}

// === impl Template ===

#[pymethods]
impl Template {
    /// Connects. From now on the kernel ends this process when the runtime ends.
    #[new]
    fn new(socket: &str, token: &str) -> PyResult<Self> {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
        set_name(c"anyserve-templ").map_err(io::Error::from)?;
        let socket = UnixStream::connect(socket)?;
        let runtime = socket_peercred(&socket).map_err(io::Error::from)?.pid;
        let limits = Limits { max_message: 0, ..Limits::default() };
        let line = Line { socket, decoder: Decoder::new(limits) };
        Ok(Self { token: token.to_owned(), runtime, line: Mutex::new(Some(line)) })
    }

    /// Tells what the app has.
    fn manifest(&self, py: Python<'_>, groups: &Bound<'_, PyAny>, files: Vec<String>, no_fork: String) -> PyResult<()> {
        let groups = groups_of(groups)?.iter().map(message::Group::from).collect();
        self.send_manifest(py, message::Manifest { groups, files, no_fork, ..Default::default() })
    }

    /// Tells why the app cannot be loaded.
    fn failed(&self, py: Python<'_>, kind: &str, message: &str, traceback: &str) -> PyResult<()> {
        let failed = Some(start_failure(kind, message, traceback));
        self.send_manifest(py, message::Manifest { failed, ..Default::default() })
    }

    /// Waits for the next order; `None` when the runtime has gone.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Fork>> {
        loop {
            let read = py.detach(|| self.with(Line::next));
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => py.check_signals()?,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(PyValueError::new_err(format!("the runtime broke a rule of the socket: {error}")));
                }
                read => return Ok(read?),
            }
        }
    }

    /// Answers an order.
    fn forked(&self, py: Python<'_>, worker: u32, pid: u32, failed: String) -> PyResult<()> {
        let forked = message::Forked { worker, pid, failed };
        self.send(py, &Frame::with_meta(Kind::Forked, 0, &forked))
    }

    /// Waits until this process is the runtime's child, and has the kernel end it when the runtime ends. False if it was
    /// not within so many seconds.
    fn adopted(&self, py: Python<'_>, within_s: f64) -> PyResult<bool> {
        let end =
            Instant::now() + Duration::try_from_secs_f64(within_s).map_err(|_| PyValueError::new_err("seconds"))?;
        while getppid() != Some(self.runtime) {
            if Instant::now() >= end {
                return Ok(false);
            }
            py.detach(|| std::thread::sleep(LOOK));
        }
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
        // It may have ended just before the kernel knew.
        Ok(getppid() == Some(self.runtime))
    }

    /// Closes the socket in this process only.
    fn close(&self) {
        *self.line.lock() = None;
    }
}

impl Template {
    fn send_manifest(&self, py: Python<'_>, manifest: message::Manifest) -> PyResult<()> {
        let manifest = message::Manifest { pid: std::process::id(), token: self.token.clone(), ..manifest };
        self.send(py, &Frame::with_meta(Kind::Manifest, 0, &manifest))
    }

    fn send(&self, py: Python<'_>, frame: &Frame) -> PyResult<()> {
        Ok(py.detach(|| self.with(|line| send_now(&line.socket, frame)))?)
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Line) -> io::Result<T>) -> io::Result<T> {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the template's socket is closed");
        use_it(self.line.lock().as_mut().ok_or_else(closed)?)
    }
}

// === impl Line ===

impl Line {
    fn next(&mut self) -> io::Result<Option<Fork>> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(broken)? {
                return Fork::try_from(&frame).map(Some);
            }
            match read(&self.socket, &mut self.decoder.buffer(), RecvFlags::empty()) {
                Ok(0) if self.decoder.is_mid_frame() => return Err(broken("it ends within a frame")),
                // A runtime that has gone before it had read everything resets the connection.
                Ok(0) | Err(Errno::CONNRESET) => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn broken(rule: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, rule)
}

// === impl Fork ===

impl TryFrom<&Frame> for Fork {
    type Error = io::Error;

    fn try_from(frame: &Frame) -> io::Result<Self> {
        if frame.kind != Kind::Fork {
            return Err(broken(format!("a {:?} frame instead of Fork", frame.kind)));
        }
        let message::Fork { worker, group, socket, token, stdout, stderr, environment } =
            frame.message().map_err(broken)?;
        let environment = environment.into_iter().map(|variable| (variable.name, variable.value)).collect();
        Ok(Self { worker, group, socket, token, stdout, stderr, environment })
    }
}

/// Reads an app's worker groups. What only the worker itself needs (`memory_limit`, `niceness`, …) is left where it is.
fn groups_of(groups: &Bound<'_, PyAny>) -> PyResult<Vec<GroupSpec>> {
    groups.try_iter()?.map(|group| group_of(&group?)).collect()
}

/// What is wrong with upgrade rules, each `key=value -> key=value`; `None` if nothing is.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Python calls it.
pub(super) fn check_upgrades(rules: Vec<String>) -> Option<String> {
    let wrong = Upgrades::parse(rules.iter().map(String::as_str)).err()?;
    let cause = std::error::Error::source(&wrong).map(|cause| format!(": {cause}"));
    Some(format!("{wrong}{}", cause.unwrap_or_default()))
}

fn group_of(group: &Bound<'_, PyAny>) -> PyResult<GroupSpec> {
    let seconds = |name: &str| -> PyResult<Option<Duration>> {
        let value: Option<f64> = group.getattr(name)?.extract()?;
        let bad = |error| PyValueError::new_err(format!("{name} of a group: {error}"));
        value.map(|value| Duration::try_from_secs_f64(value).map_err(bad)).transpose()
    };
    let rows = rows_of(&group.getattr("handlers")?)?;
    let python: Option<String> = group.getattr("python")?.extract()?;
    let resources = group.getattr("resources")?.call_method0("items")?;
    let environment = group.getattr("environment")?.call_method0("items")?;
    Ok(GroupSpec {
        name: group.getattr("name")?.extract()?,
        handlers: rows.into_iter().map(|row| row.handler).collect(),
        needs: Needs { gpus: group.getattr("gpus")?.extract()?, tokens: pairs_of(&resources)? },
        workers: group.getattr("workers")?.extract()?,
        idle_timeout: seconds("idle_timeout_s")?,
        sleeps: group.getattr("sleeps")?.extract()?,
        environment: pairs_of(&environment)?,
        python: python.map(Into::into),
        start_timeout: seconds("start_timeout_s")?,
        upgrades: group.getattr("upgrades")?.extract()?,
    })
}

fn pairs_of<V, C>(items: &Bound<'_, PyAny>) -> PyResult<C>
where
    V: for<'a, 'py> FromPyObject<'a, 'py, Error = PyErr>,
    C: FromIterator<(String, V)>,
{
    items.try_iter()?.map(|item| item?.extract()).collect()
}
