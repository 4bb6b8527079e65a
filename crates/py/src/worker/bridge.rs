//! Between the socket and the event loop that async handlers run on.
//!
//! The reading thread collects events and wakes the loop by one descriptor; the loop takes all of them in one callback
//! and makes tasks. Replies leave once per turn of the loop, or at once if nothing left for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::batch::Batch;
use super::call::{Call, Started, start};
use super::context::check_room;
use super::exchange::{BatchExchange, Exchange};
use super::inbox::{Incoming, Work};
use super::lane::Lane;
use super::made::{Next, Outcome};
use super::made_call::outcome_into_py;
use super::router::{Event, Router};
use super::session::Session;
use super::table::Kind;
use super::task::{Crowd, Task};
use crate::kserve::ModelInferRequest;

/// The event loop's face of the session; `anyserve.worker.loop` knows nothing else.
#[pyclass(frozen, module = "anyserve._core", name = "_Bridge")]
pub(crate) struct Bridge {
    session: Arc<Session>,
    event_loop: PyOnceLock<EventLoop>,
    /// The future that is done when there is nothing left to do, or a hook has its turn.
    over: Mutex<Option<Py<PyAny>>>,
    tasks: Mutex<HashMap<u64, Task>>,
    /// Futures of streams that wait for credit.
    rooms: Mutex<HashMap<u64, Py<PyAny>>>,
    /// Futures of calls whose next result is awaited.
    results: Mutex<HashMap<u64, Py<PyAny>>>,
    /// One for each handler, to keep its `concurrency`.
    lanes: Mutex<Vec<Lane>>,
    flush_planned: AtomicBool,
}

struct EventLoop {
    itself: Py<PyAny>,
    create_future: Py<PyAny>,
    create_task: Py<PyAny>,
    call_soon: Py<PyAny>,
    flush: Py<PyAny>,
    answer: Py<PyAny>,
    answer_batch: Py<PyAny>,
    stream: Py<PyAny>,
}

// === impl Bridge ===

impl Bridge {
    /// The bridge of a session with a router; the router finds it again.
    pub(super) fn new<'py>(py: Python<'py>, session: &Arc<Session>, router: &Router) -> PyResult<Bound<'py, Self>> {
        let lanes = session.rows.iter().map(|_| Lane::default()).collect();
        let bridge = Bound::new(
            py,
            Self {
                session: Arc::clone(session),
                event_loop: PyOnceLock::new(),
                over: Mutex::default(),
                tasks: Mutex::default(),
                rooms: Mutex::default(),
                results: Mutex::default(),
                lanes: Mutex::new(lanes),
                flush_planned: AtomicBool::new(false),
            },
        )?;
        router.set_bridge(py, bridge.clone().unbind());
        Ok(bridge)
    }

    fn event_loop(&self, py: Python<'_>) -> PyResult<&EventLoop> {
        self.event_loop.get(py).ok_or_else(|| PyRuntimeError::new_err("the event loop does not run yet"))
    }

    /// Starts the handler, or lets the work wait until a call of its handler has ended.
    fn admit(slf: &Bound<'_, Self>, work: Work) {
        let own = slf.get();
        let (row, limit) = (work.row(), own.session.rows[work.row()].handler.concurrency);
        let admitted = own.lanes.lock()[row].admit(work, limit);
        Self::occupy(slf, row, admitted);
    }

    /// A call of this handler has ended; the next one starts.
    pub(super) fn leave(slf: &Bound<'_, Self>, row: usize) -> PyResult<()> {
        slf.get().plan_flush(slf.py())?;
        let next = slf.get().lanes.lock()[row].leave();
        Self::occupy(slf, row, next);
        Ok(())
    }

    /// Starts work in a place of its handler's, and the next one if it does not keep the place.
    fn occupy(slf: &Bound<'_, Self>, row: usize, mut next: Option<Work>) {
        while let Some(work) = next {
            match Self::launch(slf, work) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => error.write_unraisable(slf.py(), Some(slf)),
            }
            next = slf.get().lanes.lock()[row].leave();
        }
    }

    /// True if there is an exchange now, which leaves by itself; false if everything was taken back.
    fn launch(slf: &Bound<'_, Self>, work: Work) -> PyResult<bool> {
        let launched = match work {
            Work::One(incoming) => Self::launch_one(slf, *incoming)?,
            Work::Batch(members) => Self::launch_batch(slf, members)?,
        };
        if !launched {
            slf.get().plan_flush(slf.py())?;
        }
        Ok(launched)
    }

    fn launch_one(slf: &Bound<'_, Self>, incoming: Incoming) -> PyResult<bool> {
        let (py, own, row) = (slf.py(), slf.get(), incoming.row);
        let Some(started) = start(py, &own.session, incoming) else { return Ok(false) };
        let Started { call, request, arguments } = started?;
        let (id, kind, handler) = (call.id, call.row().kind, call.row().call.clone_ref(py));
        let event_loop = own.event_loop(py)?;
        let exchange = Bound::new(py, Exchange::new(call, request.unbind(), slf.clone().unbind(), row))?;
        let wrapper = if kind == Kind::AsyncGenerator { &event_loop.stream } else { &event_loop.answer };
        match own.spawn(wrapper.bind(py).call1((exchange, handler, arguments))) {
            Ok(task) => own.keep(id, Task::of_one(task)),
            Err(error) => error.write_unraisable(py, Some(slf)),
        }
        Ok(true)
    }

    fn launch_batch(slf: &Bound<'_, Self>, members: Vec<Incoming>) -> PyResult<bool> {
        let (py, own) = (slf.py(), slf.get());
        let Some(batch) = Batch::claim(py, &own.session, members) else { return Ok(false) };
        let (handler, crowd) = (batch.row().call.clone_ref(py), Arc::new(Crowd::of(&batch)));
        let wrapper = own.event_loop(py)?.answer_batch.bind(py);
        let exchange = Bound::new(py, BatchExchange::new(batch, Arc::clone(&crowd), slf.clone().unbind()))?;
        match own.spawn(wrapper.call1((exchange, handler))) {
            Ok(task) => crowd.ids().for_each(|id| own.keep(id, Task::of_batch(task.clone_ref(py), &crowd))),
            Err(error) => error.write_unraisable(py, Some(slf)),
        }
        Ok(true)
    }

    fn spawn(&self, coroutine: PyResult<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let coroutine = coroutine?;
        let create_task = self.event_loop(coroutine.py())?.create_task.bind(coroutine.py());
        Ok(create_task.call1((coroutine,))?.unbind())
    }

    fn keep(&self, id: u64, task: Task) {
        let earlier = self.tasks.lock().insert(id, task);
        // Only now: what is dropped with it may want the lock.
        drop(earlier);
    }

    /// Nothing is to be cancelled or woken for this request any more.
    pub(super) fn forget(&self, id: u64) {
        let task = self.tasks.lock().remove(&id);
        let room = self.rooms.lock().remove(&id);
        drop((task, room));
    }

    fn cancel(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        let task = self.tasks.lock().get(&id).and_then(|task| task.to_cancel(py));
        if let Some(task) = task {
            // Not at once: a task that is cancelled before its first step never enters its handler, nor the code that
            // answers. Its first step is in the loop's queue already, so this comes after it.
            let cancel = task.getattr(py, intern!(py, "cancel"))?;
            self.event_loop(py)?.call_soon.bind(py).call1((cancel,))?;
        }
        Ok(())
    }

    fn open_room(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        let room = self.rooms.lock().remove(&id);
        room.map_or(Ok(()), |room| resolve(room.bind(py)))
    }

    /// Refuses another event loop than the worker's: nothing wakes it.
    pub(super) fn check_loop(&self, other: &Bound<'_, PyAny>) -> PyResult<()> {
        if other.is(self.event_loop(other.py())?.itself.bind(other.py())) {
            return Ok(());
        }
        let text = "a call is awaited on the worker's own event loop: use context.acall where the handler runs";
        Err(PyRuntimeError::new_err(text))
    }

    /// A future waits for the next result of a call. The event that brings it is handled by this thread, so it cannot come
    /// before.
    pub(super) fn await_result(&self, call: u64, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let earlier = self.results.lock().insert(call, future.clone().unbind());
        drop(earlier);
        self.plan_flush(future.py())
    }

    /// Hands the next result of a call to the future that waits for it; the end, if the call is over.
    pub(super) fn deliver_result(&self, py: Python<'_>, call: u64) -> PyResult<()> {
        let Some(future) = self.results.lock().remove(&call) else { return Ok(()) };
        match self.session.made.take_or_await(call, self.session.window()) {
            Next::Part(outcome, credit) => {
                self.session.give_credit(py, call, credit);
                settle(future.bind(py), outcome)
            }
            Next::Over => settle(future.bind(py), Ok(None)),
            Next::Nothing => self.await_result(call, future.bind(py)),
        }
    }

    /// Replies leave now if nothing left for a while, otherwise before the loop looks for new work.
    pub(super) fn plan_flush(&self, py: Python<'_>) -> PyResult<()> {
        if self.session.link.flush_if_due(py) && !self.flush_planned.swap(true, Ordering::AcqRel) {
            let event_loop = self.event_loop(py)?;
            event_loop.call_soon.bind(py).call1((event_loop.flush.bind(py),))?;
        }
        Ok(())
    }

    /// Lets the loop return to who runs it.
    fn let_go(&self, py: Python<'_>) -> PyResult<()> {
        let over = self.over.lock().as_ref().map(|over| over.clone_ref(py));
        over.map_or(Ok(()), |over| resolve(over.bind(py)))
    }

    /// Sends a response of a stream, or gives the future to wait for.
    pub(super) fn offer<'py>(
        &self,
        call: &Call,
        response: &Bound<'py, PyAny>,
        request: &Bound<'py, ModelInferRequest>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = response.py();
        if check_room(py, self.session.flows.await_room(call.id))? {
            call.send(response, request)?;
            self.plan_flush(py)?;
            return Ok(None);
        }
        self.session.link.flush(py);
        // The event that opens it is handled by this thread, so it cannot come before the future is in the map.
        let room = self.event_loop(py)?.create_future.bind(py).call0()?;
        let earlier = self.rooms.lock().insert(call.id, room.clone().unbind());
        drop(earlier);
        Ok(Some(room))
    }
}

/// Ends a future with a result, unless somebody has cancelled it.
pub(super) fn settle(future: &Bound<'_, PyAny>, outcome: Outcome) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.extract()? {
        return Ok(());
    }
    match outcome_into_py(py, outcome) {
        Ok(result) => future.call_method1(intern!(py, "set_result"), (result,))?,
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
    };
    Ok(())
}

fn resolve(future: &Bound<'_, PyAny>) -> PyResult<()> {
    if !future.call_method0("done")?.extract::<bool>()? {
        future.call_method1("set_result", (future.py().None(),))?;
    }
    Ok(())
}

/// For a stream object in an async handler: sends, or gives the future to wait for.
pub(super) fn offer<'py>(
    call: &Call,
    response: &Bound<'py, PyAny>,
    request: &Bound<'py, ModelInferRequest>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = response.py();
    let bridge = call.session.router().and_then(|router| router.bridge(py));
    let bridge = bridge.ok_or_else(|| PyRuntimeError::new_err("this worker has no event loop"))?;
    bridge.get().offer(call, response, request)
}

#[pymethods]
impl Bridge {
    /// Binds the bridge to the running loop, which is the same each time.
    fn attach(slf: &Bound<'_, Self>, event_loop: &Bound<'_, PyAny>, over: Bound<'_, PyAny>) -> PyResult<()> {
        let (py, own) = (slf.py(), slf.get());
        let earlier = own.over.lock().replace(over.unbind());
        drop(earlier);
        if own.event_loop.get(py).is_some() {
            return Ok(());
        }
        let wrappers = py.import("anyserve.worker.loop")?;
        let attached = EventLoop {
            itself: event_loop.clone().unbind(),
            create_future: event_loop.getattr("create_future")?.unbind(),
            create_task: event_loop.getattr("create_task")?.unbind(),
            call_soon: event_loop.getattr("call_soon")?.unbind(),
            flush: slf.getattr("flush")?.unbind(),
            answer: wrappers.getattr("answer")?.unbind(),
            answer_batch: wrappers.getattr("answer_batch")?.unbind(),
            stream: wrappers.getattr("stream")?.unbind(),
        };
        let fresh = own.event_loop.set(py, attached).is_ok();
        if fresh { Ok(()) } else { Err(PyRuntimeError::new_err("the bridge has an event loop already")) }
    }

    /// The descriptor that is readable when there is something to `drain`.
    fn fileno(&self) -> i32 {
        self.session.router().map_or(-1, Router::raw_fd)
    }

    /// Handles everything that came since the last time.
    fn drain(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, own) = (slf.py(), slf.get());
        let Some(router) = own.session.router() else { return Ok(()) };
        for event in router.take() {
            let handled = match event {
                Event::Work(work) => {
                    Self::admit(slf, work);
                    Ok(())
                }
                Event::Cancel(id) => own.cancel(py, id),
                Event::Room(id) => own.open_room(py, id),
                Event::Result(id) => own.deliver_result(py, id),
            };
            // One that cannot be handled must not take the others with it.
            if let Err(error) = handled {
                error.write_unraisable(py, Some(slf));
            }
        }
        if own.session.is_over() || own.session.is_due() { own.let_go(py) } else { Ok(()) }
    }

    /// Sends what is pending.
    fn flush(&self, py: Python<'_>) {
        self.flush_planned.store(false, Ordering::Release);
        self.session.link.flush(py);
    }

    /// Finishes what is in flight, then lets the loop end.
    fn terminate(&self) {
        self.session.drain();
    }
}
