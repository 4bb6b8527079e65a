//! Counting requests. A request costs one lookup by name and a few atomic additions; the text is made when asked for.

mod certificates;
mod collector;
pub mod encode;
mod histogram;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyserve_core::{Catalog, Code};
use parking_lot::RwLock;

use histogram::Histogram;

pub use certificates::CertificateDates;
pub(crate) use collector::text;

/// The label of requests for models that nobody has.
const UNKNOWN: &str = "unknown";

/// How many of its spellings a model is found by at once; any further one is looked up in the catalog each time.
const MAX_SPELLINGS: usize = 4096;

/// What is counted of all models.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By the name that requests use. Read for every request, written when a name is first seen.
    by_name: RwLock<HashMap<String, Arc<ModelMetrics>>>,
    /// By the label that is shown. Labels are names of the catalog, so that clients cannot make up new ones.
    by_label: RwLock<HashMap<String, Arc<ModelMetrics>>>,
    unknown: Arc<ModelMetrics>,
}

/// What is counted of one model.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    label: String,
    /// Ended requests; the last place is for those that ended well.
    ended: Vec<AtomicU64>,
    duration: Histogram,
    in_flight: AtomicU64,
}

/// One request in flight. Dropping it without [`Call::finish`] counts it as cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    metrics: Arc<ModelMetrics>,
    started: Instant,
    finished: bool,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new() -> Self {
        let unknown = Arc::new(ModelMetrics::new(UNKNOWN));
        Self { by_name: RwLock::default(), by_label: RwLock::default(), unknown }
    }

    /// Begins to count a request for `model`; `catalog` is asked when the name is new.
    pub(crate) fn begin(&self, model: &str, started: Instant, catalog: impl FnOnce() -> Arc<Catalog>) -> Call {
        let known = self.by_name.read().get(model).map(Arc::clone);
        let metrics = known.unwrap_or_else(|| self.learn(model, &catalog()));
        metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        Call { metrics, started, finished: false }
    }

    /// Requests in flight now.
    pub(crate) fn in_flight(&self) -> u64 {
        self.all().iter().map(|model| model.in_flight.load(Ordering::Relaxed)).sum()
    }

    fn learn(&self, model: &str, catalog: &Catalog) -> Arc<ModelMetrics> {
        let Some(label) = catalog.named(model).first().map(|(_, entry)| entry.handler.model_name()) else {
            return Arc::clone(&self.unknown);
        };
        let metrics = self.labelled(label);
        let mut by_name = self.by_name.write();
        if by_name.len() < MAX_SPELLINGS {
            by_name.insert(model.to_owned(), Arc::clone(&metrics));
        }
        metrics
    }

    fn labelled(&self, label: String) -> Arc<ModelMetrics> {
        let mut by_label = self.by_label.write();
        let metrics = by_label.entry(label).or_insert_with_key(|label| Arc::new(ModelMetrics::new(label)));
        Arc::clone(metrics)
    }

    /// Every model that was asked for, in the order of labels.
    fn all(&self) -> Vec<Arc<ModelMetrics>> {
        let mut all: Vec<_> = self.by_label.read().values().map(Arc::clone).collect();
        all.push(Arc::clone(&self.unknown));
        all.sort_by(|left, right| left.label.cmp(&right.label));
        all
    }
}

// === impl ModelMetrics ===

impl ModelMetrics {
    fn new(label: &str) -> Self {
        let ended = std::iter::repeat_with(AtomicU64::default).take(ok_place() + 1).collect();
        let (duration, in_flight) = (Histogram::default(), AtomicU64::default());
        Self { label: label.to_owned(), ended, duration, in_flight }
    }

    fn end(&self, code: Option<Code>, started: Instant) {
        let place = code.and_then(|code| usize::try_from(code.number()).ok()).unwrap_or_else(ok_place);
        self.ended[place].fetch_add(1, Ordering::Relaxed);
        self.duration.observe(started.elapsed());
    }

    /// Ended requests by name of their code, without those that never happened.
    fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Code::all().map(Code::name).chain(std::iter::once("OK"));
        let counts = self.ended.iter().map(|count| count.load(Ordering::Relaxed));
        names.zip(counts).filter(|(_, count)| *count > 0)
    }
}

fn ok_place() -> usize {
    Code::all().count()
}

// === impl Call ===

impl Call {
    /// Counts the request's end; `None` is an end without error. It stays in flight until it is dropped.
    pub(crate) fn finish(&mut self, code: Option<Code>) {
        if !self.finished {
            self.finished = true;
            self.metrics.end(code, self.started);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A request that panics is dropped as well.
        let code = if std::thread::panicking() { Code::Internal } else { Code::Cancelled };
        self.finish(Some(code));
        self.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyserve_core::{Capability, CatalogEntry, Handler, Value};

    fn catalog() -> Arc<Catalog> {
        let capability = Capability::try_new([("model".to_owned(), Value::Int(7))]).unwrap();
        let entry = CatalogEntry { handler: Arc::new(Handler::new(capability)), ready: true };
        Arc::new(Catalog { entries: vec![entry], ..Catalog::default() })
    }

    #[test]
    fn labels_are_names_of_the_catalog_however_requests_spell_them() {
        let metrics = Metrics::new();
        for name in ["7", "7.0", "07", "nobody", "' or 1=1"] {
            metrics.begin(name, Instant::now(), catalog).finish(None);
        }
        let labels: Vec<_> = metrics.all().iter().map(|model| model.label.clone()).collect();
        assert_eq!(labels, ["7", UNKNOWN]);
    }

    #[test]
    fn a_request_that_is_dropped_counts_as_cancelled_and_no_longer_in_flight() {
        let metrics = Metrics::new();
        let call = metrics.begin("7", Instant::now(), catalog);
        assert_eq!(metrics.in_flight(), 1);
        drop(call);
        assert_eq!(metrics.in_flight(), 0);
        let ended: Vec<_> = metrics.labelled("7".into()).ended().collect();
        assert_eq!(ended, [("CANCELLED", 1)]);
    }
}
