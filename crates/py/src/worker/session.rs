//! What every request of a worker shares: the connection, the handlers, and who gets an order that came in.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyserve_core::{Code, Error};
use anyserve_shm::SLOTS;
use anyserve_wire::{Frame, Kind, message};
use parking_lot::Mutex;
use prost::Message;
use pyo3::prelude::*;
use rustix::net::RecvFlags;
use rustix::process::{Signal, getpid, kill_process};

use super::ahead::Ahead;
use super::asks::{Ask, Asks};
use super::flow::{Flows, Room};
use super::inbox::{Inbox, Order, Received, Violation, Work};
use super::life::{Phase, Phases};
use super::link::Link;
use super::made::{Made, Next, Outcome};
use super::rooms::releases;
use super::router::{Event, Router};
use super::table::Row;
use crate::errors::to_py;

/// One worker's life with its runtime.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) rows: Vec<Row>,
    pub(super) flows: Flows,
    pub(super) asks: Arc<Asks>,
    /// The calls that handlers have open.
    pub(super) made: Made,
    pub(super) ahead: Mutex<Ahead>,
    inbox: Mutex<Inbox>,
    /// What waits for the one thread of a serial worker.
    queue: Mutex<VecDeque<Work>>,
    /// Where orders go if handlers run on several threads or on an event loop.
    router: Option<Router>,
    /// Where the worker is between its start and its end.
    pub(super) phases: Phases,
    draining: AtomicBool,
    ended: AtomicBool,
    in_flight: AtomicUsize,
}

// === impl Session ===

impl Session {
    pub(super) fn new(link: Link, rows: Vec<Row>, router: Option<Router>) -> Self {
        let batches = rows.iter().map(|row| row.handler.max_batch_size).collect();
        Self {
            inbox: Mutex::new(Inbox::new(link.limits, batches, link.memory.clone())),
            link,
            rows,
            flows: Flows::default(),
            asks: Arc::default(),
            made: Made::default(),
            ahead: Mutex::default(),
            queue: Mutex::default(),
            router,
            phases: Phases::default(),
            draining: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// The router of a worker that is not serial.
    pub(super) fn router(&self) -> Option<&Router> {
        self.router.as_ref()
    }

    /// What is next for the one thread of a serial worker.
    pub(super) fn pop(&self) -> Option<Work> {
        self.queue.lock().pop_front()
    }

    /// Whether that thread has something else to do than to read.
    pub(super) fn has_news(&self) -> bool {
        !self.queue.lock().is_empty() || self.has_ended() || self.is_due() || self.is_draining()
    }

    /// Reads once and hands out what came. Ends the process if the runtime broke a rule, or left requests behind.
    pub(super) fn receive(&self, flags: RecvFlags) -> Received {
        self.receive_unless(|| false, flags)
    }

    /// The same, unless what this thread waits for has come by the time that it may read: another one may have read it, and
    /// nobody would send another byte. Nor does it wait for one that reads on.
    pub(super) fn receive_unless(&self, has_come: impl Fn() -> bool, flags: RecvFlags) -> Received {
        loop {
            let inbox = self.inbox.try_lock_for(PATIENCE);
            if has_come() {
                return Received::Bytes;
            }
            if let Some(mut inbox) = inbox {
                return self.receive_into(&mut inbox, flags);
            }
        }
    }

    /// The same, unless another thread is reading.
    pub(super) fn try_receive(&self, flags: RecvFlags) -> Option<Received> {
        let mut inbox = self.inbox.try_lock()?;
        Some(self.receive_into(&mut inbox, flags))
    }

    /// Takes no new requests; what has come is finished.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the runtime closed the socket.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.has_ended() || self.is_draining() && self.is_idle()
    }

    /// Whether the runtime asked for a hook that can run now.
    pub(super) fn is_due(&self) -> bool {
        matches!(self.phases.get(), Phase::FallingAsleep | Phase::Waking) && self.is_idle()
    }

    /// Takes nothing more from now on, and sends every answer: who wrote the last one may not have come to it. False if
    /// something had come just before, which is to be finished first.
    pub(super) fn leave(&self, py: Python<'_>) -> bool {
        self.phases.end();
        let idle = self.is_idle();
        self.link.flush(py);
        idle
    }

    fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Requests were answered, or will not be.
    fn settle_all(&self, requests: usize) {
        let was = self.in_flight.fetch_sub(requests, Ordering::SeqCst);
        if was == requests && (self.is_draining() || self.is_due()) {
            self.wake();
        }
    }

    /// One request was answered.
    pub(super) fn settle(&self) {
        self.settle_all(1);
    }

    /// Waits, with the interpreter's lock released, until a stream may send again. Everything pending is sent first.
    pub(super) fn wait_for_room(&self, py: Python<'_>, id: u64) -> PyResult<Room> {
        self.link.flush(py);
        if self.router.is_some() {
            return Ok(py.detach(|| self.flows.wait(id)));
        }
        // Nobody else reads the socket: the credit comes only if this thread does.
        while self.flows.room(id) == Room::Full {
            let has_come = || self.flows.room(id) != Room::Full;
            if let Received::Nothing = py.detach(|| self.receive_unless(has_come, RecvFlags::empty())) {
                py.check_signals()?;
            }
        }
        Ok(self.flows.room(id))
    }

    /// Asks the runtime and waits for its answer, with the interpreter's lock released.
    ///
    /// # Errors
    /// What a signal raises, and `Unavailable` if the runtime has gone.
    pub(super) fn ask(&self, py: Python<'_>, kind: Kind, meta: &impl Message) -> PyResult<message::View> {
        let ask = self.asks.begin();
        py.detach(|| {
            self.link.send_detached(&Frame::with_meta(kind, ask.id, meta));
            self.listen_for(&ask);
        });
        self.finish(py, &ask)
    }

    /// Waits for the answer to something that was asked, and may not have been sent yet.
    pub(super) fn finish(&self, py: Python<'_>, ask: &Ask) -> PyResult<message::View> {
        loop {
            if let Some(view) = ask.take() {
                return Ok(view);
            }
            if self.has_ended() {
                return Err(to_py(py, &Error::new(Code::Unavailable, "the replica's runtime has gone")));
            }
            py.check_signals()?;
            self.link.flush(py);
            py.detach(|| self.listen_for(ask));
        }
    }

    /// Waits for the next result of a call, with the interpreter's lock released; the end of one that is over.
    ///
    /// # Errors
    /// What a signal raises.
    pub(super) fn next_result(&self, py: Python<'_>, call: u64) -> PyResult<Outcome> {
        loop {
            match self.made.take(call, self.window()) {
                Next::Part(outcome, credit) => {
                    self.give_credit(py, call, credit);
                    return Ok(outcome);
                }
                Next::Over => return Ok(Ok(None)),
                Next::Nothing if self.has_ended() => {
                    return Ok(Err(Error::new(Code::Unavailable, "the replica's runtime has gone")));
                }
                Next::Nothing => {}
            }
            py.check_signals()?;
            self.link.flush(py);
            py.detach(|| self.listen(|| self.made.is_answered(call), || self.made.wait(call, PATIENCE)));
        }
    }

    /// Bytes of a call's results, or of a stream, that may be on their way.
    pub(super) fn window(&self) -> u64 {
        u64::try_from(self.link.window).unwrap_or(0)
    }

    /// Lets the runtime send more results of a call.
    pub(super) fn give_credit(&self, py: Python<'_>, call: u64, credit: Option<u64>) {
        if let Some(bytes) = credit {
            self.link.push_frame(py, &Frame::with_meta(Kind::Credit, call, &message::Credit { bytes }));
            self.link.flush(py);
        }
    }

    fn listen_for(&self, ask: &Ask) {
        self.listen(|| ask.is_answered(), || ask.wait(PATIENCE));
    }

    /// Waits for some bytes, or for an answer that another thread reads.
    ///
    /// Beside other handlers there is a reader, whose lock is not so much as tried: who held it while it waited would keep
    /// its own answer from being read.
    fn listen(&self, is_answered: impl Fn() -> bool, wait: impl Fn()) {
        if self.router.is_some() {
            return wait();
        }
        let Some(mut inbox) = self.inbox.try_lock() else { return wait() };
        // Whoever read before may have read this answer, and nobody would send another byte.
        if !is_answered() {
            self.receive_into(&mut inbox, RecvFlags::empty());
        }
        drop(inbox);
        self.nudge();
    }

    /// Has every thread that waits look again: for its answer, and whether it is the one to read now.
    fn nudge(&self) {
        self.asks.nudge();
        self.made.nudge();
    }

    fn answered(&self, id: u64, view: message::View) {
        releases(self.asks.answer(id, view)).for_each(|release| self.link.push_detached(&release));
    }

    fn receive_into(&self, inbox: &mut Inbox, flags: RecvFlags) -> Received {
        let received = inbox.receive(&self.link.socket, flags);
        match received {
            Received::Nothing => {}
            Received::End => {
                inbox.check_end().unwrap_or_else(|violation| refuse(&violation));
                self.end();
            }
            Received::Bytes => {
                while let Some(order) = inbox.next().unwrap_or_else(|violation| refuse(&violation)) {
                    self.obey(order);
                }
            }
        }
        received
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Work(work) => self.accept(work),
            Order::Cancel(id) => {
                self.flows.cancel(id);
                self.router.iter().for_each(|router| router.push(Event::Cancel(id)));
            }
            Order::Credit(id, bytes) => {
                if self.flows.credit(id, bytes) {
                    self.router.iter().for_each(|router| router.push(Event::Room(id)));
                }
            }
            Order::View(id, view) => self.answered(id, view),
            Order::Result(id, part) => {
                if self.made.put(id, part) {
                    self.router.iter().for_each(|router| router.push(Event::Result(id)));
                }
            }
            Order::Forget(region) => self.link.memory.regions.forget(region),
            Order::Sleep => self.turn(Kind::Sleep, Phase::Awake, Phase::FallingAsleep),
            Order::Wake => self.turn(Kind::Wake, Phase::Asleep, Phase::Waking),
            Order::Drain => self.drain(),
            Order::Ping(id) => self.link.send_detached(&Frame::bare(Kind::Pong, id)),
        }
    }

    /// The runtime asks for a hook.
    fn turn(&self, kind: Kind, from: Phase, to: Phase) {
        if self.phases.step(from, to) {
            return self.wake();
        }
        let phase = self.phases.get();
        // One that leaves by itself may be asked for something until the runtime sees it.
        if phase != Phase::Over {
            refuse(&Violation::Untimely(kind, phase));
        }
    }

    fn accept(&self, work: Work) {
        // Counted first: either `leave` sees it, or this sees that the worker has left.
        if self.in_flight.fetch_add(work.len(), Ordering::SeqCst) + work.len() > SLOTS {
            refuse(&Violation::TooMany);
        }
        match self.phases.get() {
            Phase::Awake => self.hand_out(work),
            // It never starts, which the slot table says: once this process has ended, it is sent to another worker.
            Phase::Over => self.settle_all(work.len()),
            phase => refuse(&Violation::Untimely(Kind::Request, phase)),
        }
    }

    fn hand_out(&self, work: Work) {
        match &self.router {
            None => self.queue.lock().push_back(work),
            Some(router) => router.route(work, &self.rows),
        }
    }

    fn end(&self) {
        if !self.is_idle() || self.phases.get().is_turning() {
            // Handlers or hooks are running for nobody, perhaps in a call that never returns; there is nothing left to
            // tell.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        self.ended.store(true, Ordering::Release);
        self.nudge();
        self.wake();
    }

    fn wake(&self) {
        self.router.iter().for_each(Router::wake);
    }
}

/// How long a thread waits for another one to read its answer, before it looks whether it has to read itself.
const PATIENCE: Duration = Duration::from_millis(20);

/// Ends the process: what the runtime sends cannot be understood any more.
fn refuse(violation: &Violation) -> ! {
    let _ = writeln!(std::io::stderr(), "anyserve worker: the runtime broke a rule of the socket: {violation}");
    std::process::exit(1)
}
