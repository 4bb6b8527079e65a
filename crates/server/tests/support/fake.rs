//! What is behind the server: models that echo, repeat, fail, hang and panic.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use anyserve_core::{
    Candidate, Capability, CapabilityLoad, Catalog, CatalogEntry, Changed, Code, Datatype, Decision, Destination,
    Directory, Durations, Error, Expects, Explanation, Fingerprint, Handler, Parameter, Quarantined, Query, Reply,
    Request, Response, Snapshot, Statistics, TensorSpec, Value, Verdict, WorkerCount,
};
use anyserve_shm::{Located, RegionPlace, RegionViews, Regions};
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, watch};

use super::operated::Operated;

/// A replica. Clones are the same replica.
#[derive(Clone)]
pub(crate) struct Fake(pub(super) Arc<Inner>);

pub(super) struct Inner {
    catalog: watch::Sender<Arc<Catalog>>,
    /// Requests that "gate" lets pass.
    gate: Semaphore,
    /// Requests that hang, and responses that stream, now.
    held: AtomicUsize,
    /// The newest request.
    seen: Mutex<Option<Request>>,
    /// The newest request that was asked about.
    explained: Mutex<Option<Request>>,
    quarantine: Mutex<Vec<Quarantined>>,
    inside: Mutex<Snapshot>,
    /// Candidates beside those of the catalog.
    crowd: AtomicUsize,
    /// Where outputs go that are wanted in shared memory.
    regions: Option<Arc<Regions>>,
    views: RegionViews,
    /// What operators see and order.
    pub(super) operated: Operated,
}

/// Counts as held until dropped.
struct Held(Arc<Inner>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub(crate) fn new(regions: Option<Arc<Regions>>) -> Self {
        let models = ["echo", "repeat", "endless", "gate", "hang", "fail", "full", "panic", "burst"];
        let mut entries: Vec<_> = models.into_iter().map(entry).collect();
        entries.push(declared());
        let catalog = Catalog { entries, ..Catalog::default() };
        let workers = vec![WorkerCount { group: "main".into(), state: "ready", count: 2 }];
        Self(Arc::new(Inner {
            catalog: watch::Sender::new(Arc::new(catalog)),
            gate: Semaphore::new(0),
            held: AtomicUsize::new(0),
            seen: Mutex::new(None),
            explained: Mutex::new(None),
            quarantine: Mutex::new(Vec::new()),
            inside: Mutex::new(Snapshot { workers, ..Snapshot::default() }),
            crowd: AtomicUsize::new(0),
            regions,
            views: RegionViews::default(),
            operated: Operated::default(),
        }))
    }

    /// Lets none pass any more: those that wait fail.
    pub(crate) fn close_gate(&self) {
        self.0.gate.close();
    }

    /// Lets one more request pass the gate.
    pub(crate) fn open_gate(&self) {
        self.0.gate.add_permits(1);
    }

    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }

    /// The newest request.
    pub(crate) fn seen(&self) -> Request {
        self.0.seen.lock().unwrap().clone().unwrap()
    }

    pub(crate) fn has_seen(&self) -> bool {
        self.0.seen.lock().unwrap().is_some()
    }

    pub(crate) fn set_ready(&self, model: &str, ready: bool) {
        self.0.catalog.send_modify(|catalog| {
            let changed = Arc::make_mut(catalog);
            changed.version += 1;
            let named = changed.entries.iter_mut().filter(|entry| entry.handler.model_name() == model);
            named.for_each(|entry| entry.ready = ready);
        });
    }

    /// Begins to leave.
    pub(crate) fn set_draining(&self) {
        self.0.catalog.send_modify(|catalog| Arc::make_mut(catalog).draining = true);
    }

    /// Those who wait for a change of the catalog.
    pub(crate) fn watchers(&self) -> usize {
        self.0.catalog.receiver_count()
    }

    /// The newest request that was asked about.
    pub(crate) fn explained(&self) -> Request {
        self.0.explained.lock().unwrap().clone().unwrap()
    }

    /// Has so many candidates beside those of the catalog.
    pub(crate) fn crowd(&self, candidates: usize) {
        self.0.crowd.store(candidates, Ordering::SeqCst);
    }

    pub(crate) fn quarantine(&self, fingerprint: u64, model: &str) {
        let (fingerprint, remaining) = (Fingerprint(fingerprint), Duration::from_millis(1500));
        let one = Quarantined { fingerprint, model: model.into(), deaths: 2, refused: 7, remaining };
        self.0.quarantine.lock().unwrap().push(one);
    }

    pub(crate) fn set_loads(&self, loads: Vec<CapabilityLoad>) {
        self.0.inside.lock().unwrap().capabilities = loads;
    }

    fn hold(&self) -> Held {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        Held(Arc::clone(&self.0))
    }

    async fn answer(self, request: Request) -> Result<Reply, Error> {
        *self.0.seen.lock().unwrap() = Some(request.clone());
        let Query::Model(model) = &request.query else { return Ok(Reply::One(echo(request))) };
        match model.as_str() {
            "echo" => Ok(Reply::One(self.delivered(request))),
            "declared" => Ok(Reply::One(echo(request))),
            "repeat" => self.repeat(request),
            "endless" => Ok(Reply::Many(stream::repeat(Ok(echo(request))).boxed())),
            "burst" => Ok(Reply::Many(stream::iter((0..1000).map(move |_| Ok(echo(request.clone())))).boxed())),
            "gate" => {
                // Closed once the server gives up.
                let opened = self.0.gate.acquire().await.map(tokio::sync::SemaphorePermit::forget);
                opened.map_err(|_| Error::new(Code::WorkerLost, "it stopped")).map(|()| Reply::One(echo(request)))
            }
            "hang" => {
                let _held = self.hold();
                std::future::pending().await
            }
            "fail" => Err(Error::new(Code::HandlerError, "ValueError: no").with_traceback("Traceback: here")),
            "full" => Err(Error::new(Code::Overloaded, "the queue is full").with_retry_after(Duration::from_secs(3))),
            "elsewhere" => {
                let query = Query::parse("type=elsewhere.heavy").unwrap();
                Err(Error::new(Code::NoCapability, "not here").with_hand_back(query))
            }
            "panic" => panic!("deliberately"),
            name => Err(Error::new(Code::NoCapability, format!("Request for unknown model: '{name}' is not found"))),
        }
    }

    /// An echo whose outputs are written to shared memory, as a worker would, where they are wanted and fit there.
    fn delivered(&self, request: Request) -> Response {
        let destinations = request.destinations.clone();
        let mut response = echo(request);
        for Destination { output, room } in destinations {
            let Some(tensor) = response.outputs.iter_mut().find(|tensor| tensor.name == output) else { continue };
            let Located { id, path, start, len, offset } = self.0.regions.as_ref().unwrap().locate(&room).unwrap();
            let place = RegionPlace { id, path: Path::new(&path), start, len };
            let there = self.0.views.room(&place, offset, u64::try_from(room.len()).unwrap()).unwrap();
            // A room that the client took away is the server's to notice.
            if there.write(0, &tensor.data) == Ok(()) || tensor.data.len() <= room.len() {
                tensor.data = room.slice(..tensor.data.len());
            }
        }
        response
    }

    /// As many responses as the parameter "n" says, then an error if "fail" is set.
    fn repeat(&self, request: Request) -> Result<Reply, Error> {
        if request.expects == Expects::One {
            return Err(Error::new(Code::Unsupported, "model 'repeat' answers with a stream"));
        }
        let parameter = |name: &str| request.parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value);
        let Some(&Parameter::Int(n)) = parameter("n") else { return Err(Error::invalid("no parameter 'n'")) };
        let fails = parameter("fail").is_some().then(|| Err(Error::new(Code::HandlerError, "half-way")));
        let held = self.hold();
        let responses = (0..n).map(move |_| {
            let _held = &held;
            Ok(echo(request.clone()))
        });
        Ok(Reply::Many(stream::iter(responses.chain(fails)).boxed()))
    }
}

impl tower::Service<Request> for Fake {
    type Response = Reply;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

impl Directory for Fake {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.catalog.borrow())
    }

    fn statistics(&self, index: usize) -> Option<Statistics> {
        let success = Durations { count: u64::try_from(index).unwrap(), total: Duration::from_millis(5) };
        Some(Statistics { success, ..Statistics::default() })
    }

    fn snapshot(&self) -> Snapshot {
        self.0.inside.lock().unwrap().clone()
    }

    fn changed(&self, known: u64) -> Changed {
        let mut catalog = self.0.catalog.subscribe();
        Box::pin(async move {
            let _ = catalog.wait_for(|now| now.version != known).await;
        })
    }

    fn explain(&self, request: &Request) -> Explanation {
        *self.0.explained.lock().unwrap() = Some(request.clone());
        let catalog = self.catalog();
        let named = |entry: &CatalogEntry| request.query == Query::model(entry.handler.model_name());
        let of_catalog = catalog.entries.iter().map(|entry| candidate(entry.handler.model_name(), named(entry)));
        let crowd =
            (0..self.0.crowd.load(Ordering::SeqCst)).map(|place| candidate(format!("é{place}"), place % 2 == 0));
        let decision = match &request.query {
            Query::Model(model) if model == "full" => {
                Decision::Refuse(Error::new(Code::Overloaded, "the queue is full"))
            }
            _ => Decision::Run { worker: "worker-0".into() },
        };
        Explanation { query: request.query.to_string(), candidates: of_catalog.chain(crowd).collect(), decision }
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.0.quarantine.lock().unwrap().clone()
    }

    fn release(&self, fingerprint: Option<Fingerprint>) -> usize {
        let mut quarantine = self.0.quarantine.lock().unwrap();
        let before = quarantine.len();
        quarantine.retain(|one| fingerprint.is_some_and(|fingerprint| one.fingerprint != fingerprint));
        before - quarantine.len()
    }
}

fn candidate(model: String, matches: bool) -> Candidate {
    let why = format!("it has model={model}");
    Candidate {
        group: "default".into(),
        capability: format!("model={model}"),
        function: model,
        verdict: if matches { Verdict::Matches { unmentioned: 0 } } else { Verdict::Differs { why } },
        health: "ready",
        queued: 0,
        max_queue: 1024,
        in_flight: 0,
        workers: 2,
        expected_wait: Duration::ZERO,
        chosen: false,
    }
}

fn echo(request: Request) -> Response {
    let Request { inputs, parameters, .. } = request;
    Response { version: "1".into(), outputs: inputs, parameters, ..Response::default() }
}

fn handler(model: &str) -> Handler {
    let pair = ("model".to_owned(), Value::Text(model.to_owned()));
    Handler { stream: model == "repeat", ..Handler::new(Capability::try_new([pair]).unwrap()) }
}

fn entry(model: &str) -> CatalogEntry {
    CatalogEntry { handler: Arc::new(handler(model)), ready: true }
}

fn declared() -> CatalogEntry {
    let spec = |name: &str| Some(vec![TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, 4] }]);
    let handler = Handler { inputs: spec("x"), outputs: spec("y"), ..handler("declared") };
    CatalogEntry { handler: Arc::new(handler), ready: true }
}
