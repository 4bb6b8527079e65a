//! `_core.serve`: a replica in this process, until a signal stops it.

use std::path::PathBuf;

use anyserve_core::{Capability, TensorSpec, Value};
use anyserve_node::{Ended, Event, Options};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// Exit code of a replica or an API server that aborted requests.
pub(crate) const ABORTED: i32 = 1;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(serve, module)?)
}

/// The options as a dict has them; a key that is missing was not given.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Given {
    target: Option<String>,
    #[pyo3(default)]
    factory: Option<bool>,
    #[pyo3(default)]
    host: Option<String>,
    #[pyo3(default)]
    port: Option<u16>,
    #[pyo3(default)]
    workers: Option<u32>,
    #[pyo3(default)]
    resources: Option<Vec<String>>,
    #[pyo3(default)]
    gpus: Option<String>,
    #[pyo3(default)]
    fork: Option<bool>,
    #[pyo3(default)]
    min_residency_s: Option<f64>,
    #[pyo3(default)]
    starvation_s: Option<f64>,
    #[pyo3(default)]
    reload: Option<bool>,
    #[pyo3(default)]
    log_level: Option<String>,
    #[pyo3(default)]
    grace_s: Option<f64>,
    #[pyo3(default)]
    config: Option<PathBuf>,
    #[pyo3(default)]
    python: Option<PathBuf>,
    #[pyo3(default)]
    max_message_mb: Option<u32>,
    #[pyo3(default)]
    max_queue: Option<u32>,
    #[pyo3(default)]
    object_store: Option<String>,
    #[pyo3(default)]
    object_threshold: Option<String>,
    #[pyo3(default)]
    start_timeout_s: Option<f64>,
    #[pyo3(default)]
    ping_timeout_s: Option<f64>,
    #[pyo3(default)]
    overrun_grace_s: Option<f64>,
    #[pyo3(default)]
    quarantine_ttl_s: Option<f64>,
    #[pyo3(default)]
    sequence_idle_s: Option<f64>,
    #[pyo3(default)]
    tenant_weight: Option<Vec<String>>,
    #[pyo3(default)]
    admin_token: Option<String>,
    #[pyo3(default)]
    object_peer: Option<Vec<String>>,
    #[pyo3(default)]
    object_spill: Option<String>,
    #[pyo3(default)]
    api_server: Option<Vec<String>>,
    #[pyo3(default)]
    replica_id: Option<String>,
    #[pyo3(default)]
    advertise: Option<String>,
    #[pyo3(default)]
    cluster_token: Option<String>,
    #[pyo3(default)]
    api_server_ca: Option<PathBuf>,
    #[pyo3(default)]
    api_server_cert: Option<PathBuf>,
    #[pyo3(default)]
    api_server_key: Option<PathBuf>,
    #[pyo3(default)]
    threads: Option<u32>,
    #[pyo3(default)]
    server_id: Option<String>,
    #[pyo3(default)]
    client_shm: Option<bool>,
    #[pyo3(default)]
    tls_cert: Option<PathBuf>,
    #[pyo3(default)]
    tls_key: Option<PathBuf>,
    #[pyo3(default)]
    tls_client_ca: Option<PathBuf>,
}

const NAMES: [&str; 41] = [
    "target",
    "factory",
    "host",
    "port",
    "workers",
    "resources",
    "gpus",
    "fork",
    "min_residency_s",
    "starvation_s",
    "reload",
    "log_level",
    "grace_s",
    "config",
    "python",
    "max_message_mb",
    "max_queue",
    "object_store",
    "object_threshold",
    "start_timeout_s",
    "ping_timeout_s",
    "overrun_grace_s",
    "quarantine_ttl_s",
    "sequence_idle_s",
    "tenant_weight",
    "admin_token",
    "object_peer",
    "object_spill",
    "api_server",
    "replica_id",
    "advertise",
    "cluster_token",
    "api_server_ca",
    "api_server_cert",
    "api_server_key",
    "threads",
    "server_id",
    "client_shm",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
];

/// Runs a replica until SIGTERM or SIGINT; see `_core.pyi`.
#[pyfunction]
fn serve(py: Python<'_>, options: &Bound<'_, PyDict>, on_event: Py<PyAny>) -> PyResult<i32> {
    let mut options = read(options)?.with_file().map_err(|error| start_error(py, &format!("{error:#}")))?;
    options.config = None;
    if options.python.is_none() {
        options.python = Some(py.import("sys")?.getattr("executable")?.extract()?);
    }
    let tell = move |event: Event| Python::attach(|py| show(py, &on_event, &event));
    match py.detach(|| anyserve_node::run(options, tell)) {
        Ok(Ended::Clean) => Ok(0),
        Ok(Ended::Aborted(_)) => Ok(ABORTED),
        Err(error) => Err(start_error(py, &format!("{error:#}"))),
    }
}

fn read(options: &Bound<'_, PyDict>) -> PyResult<Options> {
    for key in options.keys() {
        let name: String = key.extract()?;
        if !NAMES.contains(&name.as_str()) {
            return Err(PyTypeError::new_err(format!("serve has no option '{name}'; it has {}", NAMES.join(", "))));
        }
    }
    // One field of the derived conversion has to be there.
    let given = options.copy()?;
    if !given.contains("target")? {
        given.set_item("target", None::<&str>)?;
    }
    given.extract().map(Given::into)
}

/// An error of the shown side is shown, and the replica goes on.
fn show(py: Python<'_>, on_event: &Py<PyAny>, event: &Event) {
    let shown = fields(py, event).and_then(|(name, fields)| on_event.call1(py, (name, fields)));
    if let Err(error) = shown {
        error.write_unraisable(py, None);
    }
}

fn fields<'py>(py: Python<'py>, event: &Event) -> PyResult<(&'static str, Bound<'py, PyDict>)> {
    let fields = PyDict::new(py);
    let name = match event {
        Event::Worker(worker) => {
            fields.set_item("name", &worker.worker)?;
            fields.set_item("state", worker.state)?;
            fields.set_item("pid", worker.pid)?;
            fields.set_item("detail", &worker.detail)?;
            "worker"
        }
        Event::Serving { endpoint, capabilities, models, inputs, streams, workers } => {
            fields.set_item("endpoint", endpoint.to_string())?;
            let capabilities: Vec<_> =
                capabilities.iter().map(|capability| capability_dict(py, capability)).collect::<PyResult<_>>()?;
            fields.set_item("capabilities", capabilities)?;
            fields.set_item("models", models)?;
            fields.set_item("inputs", inputs_dict(py, models, inputs)?)?;
            fields.set_item("streams", streams)?;
            fields.set_item("workers", workers)?;
            "serving"
        }
        Event::Reloading { path } => {
            fields.set_item("path", path)?;
            "reloading"
        }
        Event::Reloaded { error } => {
            fields.set_item("error", error)?;
            "reloaded"
        }
        Event::Draining { in_flight, grace } => {
            fields.set_item("in_flight", in_flight)?;
            fields.set_item("grace_s", grace.as_secs_f64())?;
            "draining"
        }
        Event::Stopped { aborted } => {
            fields.set_item("clean", *aborted == 0)?;
            fields.set_item("aborted", aborted)?;
            "stopped"
        }
    };
    Ok((name, fields))
}

fn inputs_dict<'py>(
    py: Python<'py>,
    models: &[String],
    inputs: &[Option<Vec<TensorSpec>>],
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (model, specs) in models.iter().zip(inputs) {
        let spec = |spec: &TensorSpec| (spec.name.clone(), spec.datatype.name(), spec.shape.clone());
        dict.set_item(model, specs.as_ref().map(|specs| specs.iter().map(spec).collect::<Vec<_>>()))?;
    }
    Ok(dict)
}

fn capability_dict<'py>(py: Python<'py>, capability: &Capability) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in capability.iter() {
        match value {
            Value::Text(text) => dict.set_item(key, text)?,
            Value::Int(number) => dict.set_item(key, number)?,
            Value::Float(number) => dict.set_item(key, number)?,
            Value::Bool(truth) => dict.set_item(key, truth)?,
        }
    }
    Ok(dict)
}

pub(crate) fn start_error(py: Python<'_>, message: &str) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "anyserve.errors", "StartError").and_then(|class| class.call1((message,))) {
        Ok(error) => PyErr::from_value(error),
        Err(broken) => broken,
    }
}

// === impl Options ===

impl From<Given> for Options {
    fn from(given: Given) -> Self {
        Self {
            target: given.target,
            factory: given.factory,
            host: given.host,
            port: given.port,
            workers: given.workers,
            resources: given.resources,
            gpus: given.gpus,
            fork: given.fork,
            min_residency_s: given.min_residency_s,
            starvation_s: given.starvation_s,
            reload: given.reload,
            log_level: given.log_level,
            grace_s: given.grace_s,
            config: given.config,
            python: given.python,
            max_message_mb: given.max_message_mb,
            max_queue: given.max_queue,
            object_store: given.object_store,
            object_threshold: given.object_threshold,
            start_timeout_s: given.start_timeout_s,
            ping_timeout_s: given.ping_timeout_s,
            overrun_grace_s: given.overrun_grace_s,
            quarantine_ttl_s: given.quarantine_ttl_s,
            sequence_idle_s: given.sequence_idle_s,
            tenant_weight: given.tenant_weight,
            admin_token: given.admin_token.map(Into::into),
            object_peer: given.object_peer,
            object_spill: given.object_spill,
            api_server: given.api_server,
            replica_id: given.replica_id,
            advertise: given.advertise,
            cluster_token: given.cluster_token.map(Into::into),
            api_server_ca: given.api_server_ca,
            api_server_cert: given.api_server_cert,
            api_server_key: given.api_server_key,
            threads: given.threads,
            server_id: given.server_id,
            client_shm: given.client_shm,
            tls_cert: given.tls_cert,
            tls_key: given.tls_key,
            tls_client_ca: given.tls_client_ca,
        }
    }
}
