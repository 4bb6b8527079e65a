//! `_core.serve_api_server`: an API server in this process, until a signal stops it.

use std::path::PathBuf;

use anyserve_node::{ApiServerEvent, ApiServerOptions, Ended};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::serve::{ABORTED, start_error};

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(serve_api_server, module)?)
}

/// The options as a dict has them; a key that is missing was not given.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Given {
    host: Option<String>,
    #[pyo3(default)]
    port: Option<u16>,
    #[pyo3(default)]
    store: Option<String>,
    #[pyo3(default)]
    store_ca: Option<PathBuf>,
    #[pyo3(default)]
    store_cert: Option<PathBuf>,
    #[pyo3(default)]
    store_key: Option<PathBuf>,
    #[pyo3(default)]
    policy: Option<String>,
    #[pyo3(default)]
    cluster_token: Option<String>,
    #[pyo3(default)]
    lease_s: Option<f64>,
    #[pyo3(default)]
    heartbeat_s: Option<f64>,
    #[pyo3(default)]
    grace_s: Option<f64>,
    #[pyo3(default)]
    max_message_mb: Option<u32>,
    #[pyo3(default)]
    log_level: Option<String>,
    #[pyo3(default)]
    threads: Option<u32>,
    #[pyo3(default)]
    config: Option<PathBuf>,
    #[pyo3(default)]
    server_id: Option<String>,
    #[pyo3(default)]
    tls_cert: Option<PathBuf>,
    #[pyo3(default)]
    tls_key: Option<PathBuf>,
    #[pyo3(default)]
    tls_client_ca: Option<PathBuf>,
    #[pyo3(default)]
    replica_ca: Option<PathBuf>,
    #[pyo3(default)]
    replica_cert: Option<PathBuf>,
    #[pyo3(default)]
    replica_key: Option<PathBuf>,
}

const NAMES: [&str; 22] = [
    "host",
    "port",
    "store",
    "store_ca",
    "store_cert",
    "store_key",
    "policy",
    "cluster_token",
    "lease_s",
    "heartbeat_s",
    "grace_s",
    "max_message_mb",
    "log_level",
    "threads",
    "config",
    "server_id",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "replica_ca",
    "replica_cert",
    "replica_key",
];

/// Runs an API server until SIGTERM or SIGINT; see `_core.pyi`.
#[pyfunction]
fn serve_api_server(py: Python<'_>, options: &Bound<'_, PyDict>, on_event: Py<PyAny>) -> PyResult<i32> {
    let options = read(options)?;
    let tell = move |event: ApiServerEvent| Python::attach(|py| show(py, &on_event, &event));
    match py.detach(|| anyserve_node::api_server(options, tell)) {
        Ok(Ended::Clean) => Ok(0),
        Ok(Ended::Aborted(_)) => Ok(ABORTED),
        Err(error) => Err(start_error(py, &format!("{error:#}"))),
    }
}

fn read(options: &Bound<'_, PyDict>) -> PyResult<ApiServerOptions> {
    for key in options.keys() {
        let name: String = key.extract()?;
        if !NAMES.contains(&name.as_str()) {
            let known = NAMES.join(", ");
            return Err(PyTypeError::new_err(format!("serve_api_server has no option '{name}'; it has {known}")));
        }
    }
    // One field of the derived conversion has to be there.
    let given = options.copy()?;
    if !given.contains("host")? {
        given.set_item("host", None::<&str>)?;
    }
    given.extract().map(Given::into)
}

/// An error of the shown side is shown, and the server goes on.
fn show(py: Python<'_>, on_event: &Py<PyAny>, event: &ApiServerEvent) {
    let shown = fields(py, event).and_then(|(name, fields)| on_event.call1(py, (name, fields)));
    if let Err(error) = shown {
        error.write_unraisable(py, None);
    }
}

fn fields<'py>(py: Python<'py>, event: &ApiServerEvent) -> PyResult<(&'static str, Bound<'py, PyDict>)> {
    let fields = PyDict::new(py);
    let name = match event {
        ApiServerEvent::Listening { endpoint, store, policy } => {
            fields.set_item("endpoint", endpoint)?;
            fields.set_item("store", store)?;
            fields.set_item("policy", policy)?;
            "listening"
        }
        ApiServerEvent::Draining { in_flight, grace } => {
            fields.set_item("in_flight", in_flight)?;
            fields.set_item("grace_s", grace.as_secs_f64())?;
            "draining"
        }
        ApiServerEvent::Stopped { aborted } => {
            fields.set_item("clean", *aborted == 0)?;
            fields.set_item("aborted", aborted)?;
            "stopped"
        }
    };
    Ok((name, fields))
}

// === impl ApiServerOptions ===

impl From<Given> for ApiServerOptions {
    fn from(given: Given) -> Self {
        Self {
            host: given.host,
            port: given.port,
            store: given.store,
            store_ca: given.store_ca,
            store_cert: given.store_cert,
            store_key: given.store_key,
            policy: given.policy,
            cluster_token: given.cluster_token.map(Into::into),
            lease_s: given.lease_s,
            heartbeat_s: given.heartbeat_s,
            grace_s: given.grace_s,
            max_message_mb: given.max_message_mb,
            log_level: given.log_level,
            threads: given.threads,
            config: given.config,
            server_id: given.server_id,
            tls_cert: given.tls_cert,
            tls_key: given.tls_key,
            tls_client_ca: given.tls_client_ca,
            replica_ca: given.replica_ca,
            replica_cert: given.replica_cert,
            replica_key: given.replica_key,
        }
    }
}
