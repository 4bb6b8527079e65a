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
mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyserve_client::{Tls, TlsPem};
use anyserve_core::{Code, Error, Query};
use arc_swap::ArcSwapOption;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::answer::{Answer, Outcome, Work};
pub(crate) use self::call::Call;
use self::call::{capability_of, timeout};
use self::mailbox::{Mailbox, Pending};
use self::runtime::Owned;
use self::stream::Responses;
use self::way::{Destination, Way};
use crate::errors;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Call>()?;
    module.add_class::<Client>()?;
    module.add_class::<Mailbox>()?;
    module.add_class::<Pending>()?;
    module.add_class::<Responses>()
}

/// A way to one server, or to whichever replica serves a call, for any number of threads and event loops, across forks
/// too.
#[pyclass(frozen, module = "anyserve._core")]
pub(crate) struct Client {
    destination: Destination,
    /// What is asked for where a question does not say it.
    query: Option<Query>,
    tls: Tls,
    connection: ArcSwapOption<Owned<Way>>,
    closed: AtomicBool,
}

type Model = (String, String);

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (endpoint=None, *, api_servers=vec![], capability=None, tls_ca=None, tls_identity=None))]
    #[allow(clippy::needless_pass_by_value)] // Python's lists come as values.
    fn new(
        py: Python<'_>,
        endpoint: Option<&str>,
        api_servers: Vec<String>,
        capability: Option<Bound<'_, PyDict>>,
        tls_ca: Option<Vec<u8>>,
        tls_identity: Option<(Vec<u8>, Vec<u8>)>,
    ) -> PyResult<Self> {
        let raised = |error| errors::to_py(py, &error);
        let client = Self {
            destination: Destination::read(endpoint, &api_servers).map_err(raised)?,
            query: query(py, capability)?,
            tls: TlsPem { ca: tls_ca, identity: tls_identity }.into(),
            connection: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
        };
        if client.destination.secure() {
            // Certificates that cannot be read are told at once, not by the first call.
            client.connected().map_err(raised)?;
        }
        Ok(client)
    }

    /// The server as `host:port`, with `https://` in front if the connection is encrypted; `None` while no replica was
    /// found.
    #[getter]
    fn endpoint(&self) -> Option<String> {
        match &self.destination {
            Destination::Direct(endpoint) => Some(endpoint.to_string()),
            Destination::Discovered(_) => self.newest().map(|(endpoint, _)| endpoint),
        }
    }

    /// The name of the replica that was found last; `None` where none was looked for.
    #[getter]
    fn replica_id(&self) -> Option<String> {
        self.newest()?.1
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
        let responses = self.connected().and_then(|way| way.stream(&call.0)).map_err(raised)?;
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

    /// Name, versions, platform, inputs and outputs of the model `(name, version)`, where a capability is served.
    #[pyo3(signature = (model, timeout_s, capability=None))]
    fn metadata(
        &self,
        py: Python<'_>,
        model: Model,
        timeout_s: Option<f64>,
        capability: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        self.metadata_work(py, model, timeout_s, capability)?.wait(py)
    }

    /// What a model is like, told to an `asyncio.Future`.
    #[pyo3(signature = (model, timeout_s, future, mailbox, capability=None))]
    fn start_metadata(
        &self,
        py: Python<'_>,
        model: Model,
        timeout_s: Option<f64>,
        future: Py<PyAny>,
        mailbox: Py<Mailbox>,
        capability: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Pending> {
        Ok(Pending::start(self.metadata_work(py, model, timeout_s, capability)?, future, mailbox))
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
        self.work(py, |way| async move { way.infer(&call).await.map(Answer::Response) })
    }

    fn live_work(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Work> {
        let (timeout, query) = (span(py, timeout_s)?, self.query.clone());
        self.work(py, move |way| {
            within(timeout, async move {
                let server = way.server(query.as_ref()).await?;
                server.server_live(timeout).await.map(Answer::Truth)
            })
        })
    }

    fn ready_work(&self, py: Python<'_>, model: Option<Model>, timeout_s: Option<f64>) -> PyResult<Work> {
        let timeout = span(py, timeout_s)?;
        let query = self.query.clone().or_else(|| model.as_ref().map(|(name, _)| Query::model(name)));
        self.work(py, move |way| {
            within(timeout, async move {
                let Some(server) = way::known(way.server(query.as_ref()).await)? else {
                    return Ok(Answer::Truth(false));
                };
                match model {
                    None => server.server_ready(timeout).await.map(Answer::Truth),
                    Some((name, version)) => server.model_ready(&name, &version, timeout).await.map(Answer::Truth),
                }
            })
        })
    }

    fn metadata_work(
        &self,
        py: Python<'_>,
        (name, version): Model,
        timeout_s: Option<f64>,
        capability: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Work> {
        let timeout = span(py, timeout_s)?;
        let query = query(py, capability)?.or_else(|| self.query.clone()).unwrap_or_else(|| Query::model(&name));
        self.work(py, move |way| {
            within(timeout, async move {
                let server = way.server(Some(&query)).await?;
                server.metadata(&name, &version, timeout).await.map(Answer::Metadata)
            })
        })
    }

    fn work<F>(&self, py: Python<'_>, call: impl FnOnce(Way) -> F) -> PyResult<Work>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let raised = |error| errors::to_py(py, &error);
        let runtime = runtime::handle().map_err(raised)?;
        Ok(Work::new(runtime, call(self.connected().map_err(raised)?)))
    }

    /// Endpoint and name of the replica that was found last, by this process.
    fn newest(&self) -> Option<(String, Option<String>)> {
        self.connection.load().as_ref().and_then(|owned| owned.get()?.newest())
    }

    /// The way of this process, made on first use and after a fork.
    fn connected(&self) -> Result<Way, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::invalid(format!("the client of {} is closed: make a new one", self.destination)));
        }
        let current = self.connection.load();
        if let Some(way) = current.as_ref().and_then(|owned| owned.get()) {
            return Ok(way.clone());
        }
        let runtime = runtime::handle()?;
        let _context = runtime.enter();
        let way = self.destination.way(&self.tls)?;
        // Of two threads that get here at once the later one's connection stays; the other's ends with its call.
        self.connection.store(Some(Arc::new(Owned::new(way.clone()))));
        Ok(way)
    }
}

fn span(py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Option<Duration>> {
    timeout_s.map(timeout).transpose().map_err(|error| errors::to_py(py, &error))
}

fn query(py: Python<'_>, capability: Option<Bound<'_, PyDict>>) -> PyResult<Option<Query>> {
    capability.map(|given| capability_of(py, &given).map(|capability| way::query(&capability))).transpose()
}

/// A question, a replica to ask found first, that takes no longer than that.
async fn within(timeout: Option<Duration>, answer: impl Future<Output = Outcome>) -> Outcome {
    let Some(timeout) = timeout else { return answer.await };
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        let message = format!("there is no answer within the timeout of {} s", timeout.as_secs_f64());
        Err(Error::new(Code::Deadline, message))
    })
}
