//! The calls that one worker's handlers have open, and how much of their results is on its way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyserve_core::{Code, Error, Request};
use anyserve_sched::Ticket;
use anyserve_wire::{Header, Kind, message};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::calls::Guard;

/// Calls that one worker may have open.
pub(crate) const MAX_CALLS: usize = 256;
/// Calls, open or refused, whose ends a worker may leave unread before it is taken for one that never reads.
const MAX_UNREAD: usize = 2 * MAX_CALLS;

/// The open calls of one worker.
#[derive(Debug)]
pub(crate) struct OpenCalls {
    /// `parking_lot` and never held across an await: every hold is a few steps, or one result that is queued. May be taken
    /// with the dispatcher's lock held, never the other way round.
    open: Mutex<HashMap<u64, OpenCall>>,
    /// How many there are, for those who only want to know whether there are any.
    count: AtomicUsize,
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
struct OpenCall {
    /// The request whose handler made it.
    caller: Ticket,
    course: Arc<Course>,
}

/// What becomes of a call while it is carried out.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// Nobody wants it any more.
    pub(crate) over: CancellationToken,
    /// Cost of the results that the handler has not taken.
    unread: AtomicUsize,
    taken: Notify,
}

/// A call that is to be carried out.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) request: Request,
    pub(crate) course: Arc<Course>,
    pub(crate) guard: Guard,
}

/// One result, or the end of a call, as it is sent.
#[derive(Debug)]
pub(crate) struct ResultFrame {
    id: u64,
    pub(crate) meta: Bytes,
    pub(crate) body: Vec<Bytes>,
    /// It is the call's last.
    pub(crate) end: bool,
}

/// Why a call cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOpened {
    /// The worker is told, and may go on.
    #[error("{open} calls of this worker are open, at most {MAX_CALLS} are allowed; wait for some of them")]
    TooMany { open: usize },
    /// It makes calls and does not read what becomes of them.
    #[error("a Call frame, while the ends of {open} others are open or not read")]
    Unread { open: usize },
    /// Two calls with one number.
    #[error("a Call frame with the number {id}, which is 0 or that of an open call")]
    Number { id: u64 },
    /// It calls for a request of somebody else's.
    #[error("a Call frame for {caller:?}, which is with another worker")]
    Foreign { caller: Ticket },
    /// The request is over, or its caller has left: the worker will see that soon.
    #[error("the request that makes this call is over")]
    Over,
}

// === impl OpenCalls ===

impl OpenCalls {
    /// No calls, and where the orders come out.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, carried_out) = mpsc::channel(MAX_CALLS);
        (Self { open: Mutex::default(), count: AtomicUsize::new(0), orders }, carried_out)
    }

    /// Opens a call. `unread` calls have ended, and the worker has not read so yet.
    pub(crate) fn open(&self, id: u64, caller: Ticket, unread: usize) -> Result<Arc<Course>, NotOpened> {
        let mut table = self.open.lock();
        check(&table, id, unread)?;
        let course = Arc::new(Course::default());
        table.insert(id, OpenCall { caller, course: Arc::clone(&course) });
        self.count.store(table.len(), Ordering::Relaxed);
        Ok(course)
    }

    /// Has a call carried out.
    ///
    /// # Errors
    /// `OVERLOADED` if too many wait for that: calls that were made and given up at once.
    pub(crate) fn order(&self, order: Order) -> Result<(), Error> {
        let full = |_| Error::new(Code::Overloaded, "too many calls of this worker wait to be carried out");
        self.orders.try_send(order).map_err(full)
    }

    /// The worker does not want a call any more. One that it does not have was over when it said so.
    pub(crate) fn cancel(&self, id: u64) {
        let mut table = self.open.lock();
        table.remove(&id).iter().for_each(OpenCall::end);
        self.count.store(table.len(), Ordering::Relaxed);
    }

    /// The handler has taken results of this cost.
    pub(crate) fn credit(&self, id: u64, bytes: u64) {
        if let Some(call) = self.open.lock().get(&id) {
            call.course.take(bytes);
        }
    }

    /// Ends the calls of one request. Returns their numbers.
    pub(crate) fn end_of(&self, caller: Ticket) -> Vec<u64> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut table = self.open.lock();
        let own: Vec<_> = table.iter().filter(|(_, call)| call.caller == caller).map(|(id, _)| *id).collect();
        own.iter().filter_map(|id| table.remove(id)).for_each(|call| call.end());
        self.count.store(table.len(), Ordering::Relaxed);
        own
    }

    /// Ends all calls: their worker is gone.
    pub(crate) fn end_all(&self) {
        self.open.lock().drain().for_each(|(_, call)| call.end());
        self.count.store(0, Ordering::Relaxed);
    }

    /// Sends something about a call, unless it is over; the `last` thing that is sent is its end. True if it was sent.
    /// Another call may have its number by now, but not its course.
    pub(crate) fn while_open(&self, id: u64, course: &Arc<Course>, last: bool, send: impl FnOnce()) -> bool {
        let mut table = self.open.lock();
        if !table.get(&id).is_some_and(|call| Arc::ptr_eq(&call.course, course)) {
            return false;
        }
        send();
        if last {
            table.remove(&id);
            self.count.store(table.len(), Ordering::Relaxed);
        }
        true
    }
}

fn check(table: &HashMap<u64, OpenCall>, id: u64, unread: usize) -> Result<(), NotOpened> {
    let open = table.len() + unread;
    match open {
        _ if id == 0 || table.contains_key(&id) => Err(NotOpened::Number { id }),
        MAX_UNREAD.. => Err(NotOpened::Unread { open }),
        MAX_CALLS.. => Err(NotOpened::TooMany { open }),
        _ => Ok(()),
    }
}

// === impl OpenCall ===

impl OpenCall {
    fn end(&self) {
        self.course.over.cancel();
    }
}

// === impl Course ===

impl Course {
    /// A result of this cost is on its way.
    pub(crate) fn send(&self, cost: usize) {
        self.unread.fetch_add(cost, Ordering::Relaxed);
    }

    /// More than was sent is as much as was sent: only this call's own window is at stake.
    fn take(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let taken = |unread: usize| Some(unread.saturating_sub(bytes));
        // Never fails: it always has a new value.
        let _ = self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        self.taken.notify_one();
    }

    /// Waits until less than the window is unread. Only the one who sends waits.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn room(&self, window: usize) {
        while self.unread.load(Ordering::Relaxed) >= window {
            self.taken.notified().await;
        }
    }
}

// === impl ResultFrame ===

impl ResultFrame {
    pub(crate) fn new(id: u64, meta: &message::CallResult, body: Vec<Bytes>) -> Self {
        Self { id, meta: meta.encode_to_vec().into(), body, end: meta.end }
    }

    /// The end of a call in an error.
    pub(crate) fn failed(id: u64, error: &Error) -> Self {
        let failed = Some(message::Failed::from(error));
        Self::new(id, &message::CallResult { failed, end: true, ..Default::default() }, Vec::new())
    }

    /// The end of a call after its last result.
    pub(crate) fn ended(id: u64) -> Self {
        Self::new(id, &message::CallResult { end: true, ..Default::default() }, Vec::new())
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            kind: Kind::CallResult,
            flags: 0,
            id: self.id,
            meta_len: u32::try_from(self.meta.len()).expect("checked against the limit when it was made"),
            body_len: self.body.iter().map(|bytes| bytes.len() as u64).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets() -> (Ticket, Ticket) {
        (Ticket::from_number(1), Ticket::from_number(2))
    }

    #[test]
    fn so_many_calls_are_open_and_no_more() {
        let ((calls, _orders), (a, _)) = (OpenCalls::new(), tickets());
        let number = |id: usize| u64::try_from(id).unwrap();
        for id in 1..=MAX_CALLS {
            calls.open(number(id), a, 0).unwrap();
        }
        let next = number(MAX_CALLS + 1);
        assert_eq!(calls.open(next, a, 0).unwrap_err(), NotOpened::TooMany { open: MAX_CALLS });
        calls.cancel(1);
        assert_eq!(calls.open(next, a, 1).unwrap_err(), NotOpened::TooMany { open: MAX_CALLS }, "its end is unread");
        assert!(calls.open(next, a, 0).is_ok());
        let unread = MAX_UNREAD - MAX_CALLS;
        let refused = |unread| calls.open(next + 1, a, unread).unwrap_err();
        assert_eq!(refused(unread - 1), NotOpened::TooMany { open: MAX_UNREAD - 1 });
        assert_eq!(refused(unread), NotOpened::Unread { open: MAX_UNREAD });
    }

    #[test]
    fn a_number_is_not_zero_and_not_used_twice_while_it_is_open() {
        let ((calls, _orders), (a, b)) = (OpenCalls::new(), tickets());
        assert_eq!(calls.open(0, a, 0).unwrap_err(), NotOpened::Number { id: 0 });
        let course = calls.open(7, a, 0).unwrap();
        assert_eq!(calls.open(7, b, 0).unwrap_err(), NotOpened::Number { id: 7 });
        assert!(calls.while_open(7, &course, true, || {}));
        assert!(calls.open(7, b, 0).is_ok());
        assert!(!calls.while_open(7, &course, true, || panic!("it is another call")));
    }

    #[test]
    fn the_calls_of_a_request_end_with_it_and_those_of_others_go_on() {
        let ((calls, _orders), (a, b)) = (OpenCalls::new(), tickets());
        let (first, other) = (calls.open(1, a, 0).unwrap(), calls.open(2, b, 0).unwrap());
        assert_eq!((calls.end_of(a), calls.end_of(a)), (vec![1], vec![]));
        assert_eq!((first.over.is_cancelled(), other.over.is_cancelled()), (true, false));
        assert!(!calls.while_open(1, &first, false, || panic!("it is over")));
        calls.end_all();
        assert!(other.over.is_cancelled());
    }

    #[tokio::test]
    async fn a_call_sends_until_its_window_is_full_and_again_when_something_was_taken() {
        let course = Course::default();
        for (sent, credit, room) in [(9, 0, true), (1, 0, false), (0, 1, true), (100, 0, false), (0, u64::MAX, true)] {
            course.send(sent);
            course.take(credit);
            let waits = tokio::time::timeout(std::time::Duration::ZERO, course.room(10)).await.is_err();
            assert_eq!(!waits, room, "{sent} {credit}");
        }
    }
}
