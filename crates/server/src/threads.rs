//! Where connections live: on the runtime that accepts them, or on one of several that have one thread each, so that
//! nothing which a request needs changes its thread.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::Answers;

/// The runtimes of a server's connections.
pub struct Threads<A>(Vec<Thread<A>>);

/// One of them.
pub(crate) struct Thread<A> {
    pub(crate) app: Arc<A>,
    /// `None` is the runtime that accepts.
    runtime: Option<Handle>,
    open: Arc<AtomicUsize>,
}

/// A connection on it; dropping it is its end.
pub(crate) struct Entered(Arc<AtomicUsize>);

// === impl Threads ===

impl<A: Answers> Threads<A> {
    /// Connections live where they are accepted.
    pub fn here(app: Arc<A>) -> Self {
        Self(vec![Thread::new(app, None)])
    }

    /// Each connection lives on the runtime that has the fewest of them, and is answered by the app of that.
    ///
    /// # Panics
    /// Without a runtime.
    pub fn on(runtimes: impl IntoIterator<Item = (Arc<A>, Handle)>) -> Self {
        let threads: Vec<_> = runtimes.into_iter().map(|(app, runtime)| Thread::new(app, Some(runtime))).collect();
        assert!(!threads.is_empty(), "a server has at least one runtime");
        Self(threads)
    }

    pub(crate) fn idlest(&self) -> &Thread<A> {
        self.0.iter().min_by_key(|thread| thread.open.load(Ordering::Relaxed)).expect("there is at least one")
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.0.first().map_or(0, |thread| thread.app.in_flight())
    }

    pub(crate) fn give_up(&self) {
        self.0.iter().for_each(|thread| thread.app.give_up());
    }
}

// === impl Thread ===

impl<A> Thread<A> {
    fn new(app: Arc<A>, runtime: Option<Handle>) -> Self {
        Self { app, runtime, open: Arc::default() }
    }

    pub(crate) fn enter(&self) -> Entered {
        // Relaxed: only the one task that accepts looks at it, and a connection's end may be seen late.
        self.open.fetch_add(1, Ordering::Relaxed);
        Entered(Arc::clone(&self.open))
    }

    /// Runs a connection here.
    pub(crate) fn spawn(&self, open: &mut JoinSet<()>, connection: impl Future<Output = ()> + Send + 'static) {
        match &self.runtime {
            Some(runtime) => open.spawn_on(connection, runtime),
            None => open.spawn(connection),
        };
    }
}

// === impl Entered ===

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
