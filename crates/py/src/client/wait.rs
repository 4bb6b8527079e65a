//! Waiting for a future on a Python thread: without the GIL, and awake for Ctrl-C.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tokio::runtime::Handle;

/// How long Ctrl-C may go unnoticed.
const SIGNALS: Duration = Duration::from_millis(100);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread, with the timers and sockets of the runtime.
///
/// Unlike tokio's `block_on` it may be called on any thread, one of a runtime's own included.
///
/// # Errors
/// What a signal handler raised, `KeyboardInterrupt` above all; the future is dropped then.
pub(crate) fn wait<F>(py: Python<'_>, runtime: &Handle, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        let polled = py.detach(|| {
            let _context = runtime.enter();
            poll_for(SIGNALS, future.as_mut(), &waker)
        });
        match polled {
            Poll::Ready(output) => return Ok(output),
            Poll::Pending => py.check_signals()?,
        }
    }
}

fn poll_for<F: Future>(span: Duration, mut future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    let until = Instant::now() + span;
    let mut context = Context::from_waker(waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Poll::Ready(output);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Poll::Pending;
        }
        thread::park_timeout(left);
    }
}
