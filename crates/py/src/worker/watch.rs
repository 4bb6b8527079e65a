//! Reads the socket for a serial worker whose one thread is in a long handler.
//!
//! A ping is answered and the runtime's end is seen however long a handler takes, also if it holds the interpreter's
//! lock. Short handlers never meet this thread: it looks ten times a second, and sleeps while nothing happens.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use super::session::Session;

const TICK: Duration = Duration::from_millis(100);
/// Looks without any work after which it goes to sleep.
const IDLE_TICKS: u32 = 20;

/// What the serving thread tells the watching one.
pub(super) struct Watch {
    pulse: Arc<Pulse>,
    thread: Thread,
    requests: u64,
}

#[derive(Default)]
struct Pulse {
    /// Number of the request whose handler runs; 0 while none does.
    running: AtomicU64,
    asleep: AtomicBool,
}

// === impl Watch ===

impl Watch {
    pub(super) fn start(session: &Arc<Session>) -> std::io::Result<Self> {
        let pulse = Arc::new(Pulse::default());
        let (session, theirs) = (Arc::clone(session), Arc::clone(&pulse));
        let thread = thread::Builder::new().name("anyserve-watch".to_owned());
        let thread = thread.spawn(move || watch(&session, &theirs))?.thread().clone();
        Ok(Self { pulse, thread, requests: 0 })
    }

    /// A handler runs from now on.
    pub(super) fn begin(&mut self) {
        self.requests += 1;
        self.pulse.running.store(self.requests, Ordering::SeqCst);
        if self.pulse.asleep.load(Ordering::SeqCst) {
            self.pulse.asleep.store(false, Ordering::SeqCst);
            self.thread.unpark();
        }
    }

    /// No handler runs; the serving thread reads the socket itself.
    pub(super) fn rest(&self) {
        self.pulse.running.store(0, Ordering::SeqCst);
    }
}

fn watch(session: &Session, pulse: &Pulse) {
    let (mut seen, mut idle) = (0, 0);
    while !session.has_ended() {
        thread::park_timeout(TICK);
        let running = pulse.running.load(Ordering::SeqCst);
        if running != 0 && running == seen {
            // Answers wait for a handler that used to be short, and this time is not.
            session.link.flush_detached();
            take_over(session, pulse, running);
        }
        idle = if running == seen { idle + 1 } else { 0 };
        seen = running;
        if running == 0 && idle > IDLE_TICKS {
            sleep(pulse);
            idle = 0;
        }
    }
}

/// Sleeps until a handler runs. Either this sees the handler's number, or its thread sees that this one is asleep.
fn sleep(pulse: &Pulse) {
    pulse.asleep.store(true, Ordering::SeqCst);
    while pulse.asleep.load(Ordering::SeqCst) && pulse.running.load(Ordering::SeqCst) == 0 {
        thread::park();
    }
    pulse.asleep.store(false, Ordering::SeqCst);
}

/// Reads until that handler has ended.
fn take_over(session: &Session, pulse: &Pulse, request: u64) {
    let tick = Timespec::try_from(TICK).expect("a tenth of a second fits");
    while pulse.running.load(Ordering::SeqCst) == request {
        let mut ready = [PollFd::from_borrowed_fd(session.link.socket.as_fd(), PollFlags::IN)];
        let readable = poll(&mut ready, Some(&tick)).is_ok_and(|count| count > 0);
        // Taken by the serving thread means that it reads itself, waiting for credit.
        if readable && session.try_receive(RecvFlags::DONTWAIT).is_none() {
            thread::park_timeout(TICK);
        }
    }
}
