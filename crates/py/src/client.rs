//! The Rust half of `anyserve.client`: newtypes over `anyserve_client`, and the two ways to wait for an answer.
//!
//! A thread waits without the GIL and wakes up for Ctrl-C; an event loop gets its answers through a [`Mailbox`].
//! What an input of a user's means is decided in Python, what a request means in `anyserve_client`; nothing is here.

mod answer;
mod buffer;
mod call;
mod mailbox;
mod runtime;
mod stream;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyserve_client::{Endpoint, Tls};
use anyserve_core::Error;
use arc_swap::ArcSwapOption;
use pyo3::prelude::*;

use self::answer::{Answer, Outcome, Work};
pub(crate) use self::call::Call;
use self::call::timeout;
use self::mailbox::{Mailbox, Pending};
use self::runtime::Owned;
use self::stream::Responses;
use crate::errors;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Call>()?;
    module.add_class::<Client>()?;
    module.add_class::<Mailbox>()?;
    module.add_class::<Pending>()?;
    module.add_class::<Responses>()
}

/// A connection to one server, for any number of threads and event loops, across forks too.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Client {
    endpoint: Endpoint,
    tls: Tls,
    connection: ArcSwapOption<Owned<anyserve_client::Client>>,
    closed: AtomicBool,
}

type Model = (String, String);

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (endpoint, *, tls_ca=None, tls_identity=None))]
    fn new(
        py: Python<'_>,
        endpoint: &str,
        tls_ca: Option<Vec<u8>>,
        tls_identity: Option<(Vec<u8>, Vec<u8>)>,
    ) -> PyResult<Self> {
        let endpoint: Endpoint = endpoint
            .parse()
            .map_err(|error: anyserve_client::EndpointError| errors::to_py(py, &Error::invalid(error.to_string())))?;
        let tls = Tls { ca: tls_ca, identity: tls_identity };
        let client = Self { endpoint, tls, connection: ArcSwapOption::empty(), closed: AtomicBool::new(false) };
        if client.endpoint.secure() {
            // Certificates that cannot be read are told at once, not by the first call.
            client.connected().map_err(|error| errors::to_py(py, &error))?;
        }
        Ok(client)
    }

    /// The server as `host:port`, with `https://` in front if the connection is encrypted.
    #[getter]
    fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    /// Sends a call and waits for its answer, a `ModelInferResponse`.
    fn infer(&self, py: Python<'_>, call: &Call) -> PyResult<Py<PyAny>> {
        self.infer_work(py, call)?.wait(py)
    }

    /// Sends a call whose answer goes to an `asyncio.Future`.
    fn start_infer(&self, py: Python<'_>, call: &Call, future: Py<PyAny>, mailbox: Py<Mailbox>) -> PyResult<Pending> {
        Ok(Pending::start(self.infer_work(py, call)?, future, mailbox))
    }

    /// The answers to a call, one by one. The call is sent when the first is asked for.
    fn stream(&self, py: Python<'_>, call: &Call) -> PyResult<Responses> {
        let raised = |error| errors::to_py(py, &error);
        let runtime = runtime::handle().map_err(raised)?;
        let responses = self.connected().and_then(|client| client.stream(&call.0)).map_err(raised)?;
        Ok(Responses::new(runtime, responses))
    }

    /// Whether the server lives.
    fn live(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Py<PyAny>> {
        self.live_work(py, timeout_s)?.wait(py)
    }

    /// Whether the server lives, told to an `asyncio.Future`.
    fn start_live(
        &self,
        py: Python<'_>,
        timeout_s: Option<f64>,
        future: Py<PyAny>,
        mailbox: Py<Mailbox>,
    ) -> PyResult<Pending> {
        Ok(Pending::start(self.live_work(py, timeout_s)?, future, mailbox))
    }

    /// Whether the server, or the model `(name, version)`, takes requests.
    fn ready(&self, py: Python<'_>, model: Option<Model>, timeout_s: Option<f64>) -> PyResult<Py<PyAny>> {
        self.ready_work(py, model, timeout_s)?.wait(py)
    }

    /// Whether the server or a model takes requests, told to an `asyncio.Future`.
    fn start_ready(
        &self,
        py: Python<'_>,
        model: Option<Model>,
        timeout_s: Option<f64>,
        future: Py<PyAny>,
        mailbox: Py<Mailbox>,
    ) -> PyResult<Pending> {
        Ok(Pending::start(self.ready_work(py, model, timeout_s)?, future, mailbox))
    }

    /// Name, versions, platform, inputs and outputs of the model `(name, version)`.
    fn metadata(&self, py: Python<'_>, model: Model, timeout_s: Option<f64>) -> PyResult<Py<PyAny>> {
        self.metadata_work(py, model, timeout_s)?.wait(py)
    }

    /// What a model is like, told to an `asyncio.Future`.
    fn start_metadata(
        &self,
        py: Python<'_>,
        model: Model,
        timeout_s: Option<f64>,
        future: Py<PyAny>,
        mailbox: Py<Mailbox>,
    ) -> PyResult<Pending> {
        Ok(Pending::start(self.metadata_work(py, model, timeout_s)?, future, mailbox))
    }

    /// Lets go of the connection. Calls under way end as they would have; new ones are refused.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.connection.store(None);
    }
}

// === impl Client ===

impl Client {
    fn infer_work(&self, py: Python<'_>, call: &Call) -> PyResult<Work> {
        let call = call.0.clone();
        self.work(py, |client| async move { client.infer(&call).await.map(Answer::Response) })
    }

    fn live_work(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Work> {
        let timeout = span(py, timeout_s)?;
        self.work(py, move |client| async move { client.server_live(timeout).await.map(Answer::Truth) })
    }

    fn ready_work(&self, py: Python<'_>, model: Option<Model>, timeout_s: Option<f64>) -> PyResult<Work> {
        let timeout = span(py, timeout_s)?;
        self.work(py, move |client| async move {
            match model {
                None => client.server_ready(timeout).await.map(Answer::Truth),
                Some((name, version)) => client.model_ready(&name, &version, timeout).await.map(Answer::Truth),
            }
        })
    }

    fn metadata_work(&self, py: Python<'_>, (name, version): Model, timeout_s: Option<f64>) -> PyResult<Work> {
        let timeout = span(py, timeout_s)?;
        self.work(
            py,
            move |client| async move { client.metadata(&name, &version, timeout).await.map(Answer::Metadata) },
        )
    }

    fn work<F>(&self, py: Python<'_>, call: impl FnOnce(anyserve_client::Client) -> F) -> PyResult<Work>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let raised = |error| errors::to_py(py, &error);
        let runtime = runtime::handle().map_err(raised)?;
        Ok(Work::new(runtime, call(self.connected().map_err(raised)?)))
    }

    /// The connection of this process, made on first use and after a fork.
    fn connected(&self) -> Result<anyserve_client::Client, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::invalid(format!("the client of {} is closed: make a new one", self.endpoint)));
        }
        let current = self.connection.load();
        if let Some(client) = current.as_ref().and_then(|owned| owned.get()) {
            return Ok(client.clone());
        }
        let runtime = runtime::handle()?;
        let _context = runtime.enter();
        let client = anyserve_client::Client::try_new(self.endpoint.clone(), &self.tls)?;
        // Of two threads that get here at once the later one's connection stays; the other's ends with its call.
        self.connection.store(Some(Arc::new(Owned::new(client.clone()))));
        Ok(client)
    }
}

fn span(py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Option<Duration>> {
    timeout_s.map(timeout).transpose().map_err(|error| errors::to_py(py, &error))
}
