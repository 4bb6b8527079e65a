//! A server with a runtime of its own, so that its end is the end of its connections, too, as when its process dies.

use tokio::runtime::{Builder, Runtime};

use super::WATCHDOG;

/// What runs on a runtime of its own. Dropping it ends it.
pub(crate) struct Alone(Option<Runtime>);

// === impl Alone ===

impl Alone {
    pub(crate) fn run(server: impl Future<Output = ()> + Send + 'static) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(server);
        Self(Some(runtime))
    }

    /// Ends it, and waits for that.
    pub(crate) async fn end(mut self) {
        let runtime = self.0.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(WATCHDOG)).await.unwrap();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}
