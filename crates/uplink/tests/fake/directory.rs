//! What a replica serves, as the tests say.

use std::sync::Arc;

use anyserve_core::{
    Capability, CapabilityLoad, Catalog, CatalogEntry, Changed, Decision, Directory, Error, Explanation, Fingerprint,
    Handler, Quarantined, Request, Snapshot, Statistics, Upgrades, Value,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The inside of a replica. Clones are the same.
#[derive(Clone)]
pub(crate) struct Inside {
    catalog: Arc<watch::Sender<Arc<Catalog>>>,
    loads: Arc<Mutex<Vec<CapabilityLoad>>>,
}

// === impl Inside ===

impl Inside {
    /// A replica that serves these types.
    pub(crate) fn of(types: &[&str]) -> Self {
        let inside = Self { catalog: Arc::new(watch::Sender::default()), loads: Arc::default() };
        inside.serve(types);
        inside
    }

    /// Serves these types from now on.
    pub(crate) fn serve(&self, types: &[&str]) {
        self.change(|catalog| catalog.entries = types.iter().map(|kind| entry(kind)).collect());
    }

    /// Has these upgrade rules from now on.
    pub(crate) fn upgrade(&self, rules: &[&str]) {
        self.change(|catalog| catalog.upgrades = Upgrades::parse(rules.iter().copied()).unwrap());
    }

    pub(crate) fn drain(&self) {
        self.change(|catalog| catalog.draining = true);
    }

    /// Is so busy from now on.
    pub(crate) fn load(&self, loads: Vec<CapabilityLoad>) {
        *self.loads.lock() = loads;
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut Catalog)) {
        self.catalog.send_modify(|catalog| {
            let catalog = Arc::make_mut(catalog);
            catalog.version += 1;
            change(catalog);
        });
    }
}

fn typed(kind: &str) -> Capability {
    Capability::try_new([("type".to_owned(), Value::Text(kind.to_owned()))]).unwrap()
}

fn entry(kind: &str) -> CatalogEntry {
    CatalogEntry { handler: Arc::new(Handler::new(typed(kind))), ready: true }
}

impl Directory for Inside {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    fn statistics(&self, _: usize) -> Option<Statistics> {
        None
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { capabilities: self.loads.lock().clone(), ..Snapshot::default() }
    }

    fn changed(&self, known: u64) -> Changed {
        let mut catalog = self.catalog.subscribe();
        Box::pin(async move {
            let _ = catalog.wait_for(|now| now.version != known).await;
        })
    }

    fn explain(&self, request: &Request) -> Explanation {
        let decision = Decision::Refuse(Error::internal("no test asks"));
        Explanation { query: request.query.to_string(), candidates: Vec::new(), decision }
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        Vec::new()
    }

    fn release(&self, _: Option<Fingerprint>) -> usize {
        0
    }
}
