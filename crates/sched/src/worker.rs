//! What the dispatcher knows of one worker: its credits, and what is with it.

use std::time::{Duration, Instant};

use crate::Ticket;

/// A worker, as the shell numbers them. A number belongs to one process and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// Work that may wait in a busy worker's socket, so that it never idles for want of a round trip.
const PREFETCH: Duration = Duration::from_micros(500);
/// Calls beyond its credits that a worker may hold.
pub(crate) const MAX_PREFETCH: u32 = 128;
/// What waits in a worker's socket should have begun after this time; otherwise another worker may have it.
pub(crate) const STALL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    /// Calls that it runs at the same time; a batch is one call.
    credits: u32,
    /// Requests that it can hold, whatever their calls.
    slots: u32,
    /// Sent and not yet answered, in the order of sending.
    held: Vec<Held>,
    /// Calls under way.
    calls: u32,
    /// Calls under way, by handler.
    by_handler: Vec<Busy>,
    /// Calls under way that their handlers' own limits let run.
    running: u32,
    /// Batches under way.
    batches: Vec<Batch>,
    /// Expected time of everything it holds.
    backlog: Duration,
    pub(crate) draining: bool,
    pub(crate) keep: Keep,
    /// Something waits in its socket for longer than was expected; it gets no more of that.
    pub(crate) stalled: bool,
    /// A timer is set to look after what waits in its socket.
    pub(crate) watched: bool,
    /// When it answered last.
    pub(crate) last_answer: Option<Instant>,
    /// Slots that were used before and are free again.
    free_slots: Vec<u32>,
    /// The lowest slot that was never used.
    fresh_slot: u32,
    next_batch: u32,
}

/// Whom a worker is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// For all.
    Open,
    /// It takes nothing more until a request that wants it for itself has come.
    Reserved,
    /// It runs a request that wants it for itself.
    Exclusive,
}

/// A request that is with a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) ticket: Ticket,
    /// Its place in the worker's slot table.
    pub(crate) slot: u32,
    pub(crate) sent: Instant,
    /// It was taken back and belongs to somebody else now; the worker has yet to say that it didn't run it.
    pub(crate) recalled: bool,
    handler: usize,
    expected: Duration,
    /// The batch that it is in.
    batch: Option<u32>,
}

/// One handler's calls under way, and those that it runs at the same time.
#[derive(Clone, Copy, Debug)]
struct Busy {
    calls: u32,
    limit: u32,
}

/// A batch whose members are not all answered.
#[derive(Clone, Copy, Debug)]
struct Batch {
    number: u32,
    size: u32,
    left: u32,
    took: Duration,
}

/// A call that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) handler: usize,
    /// Expected time of the whole call.
    pub(crate) expected: Duration,
    /// Requests in it.
    pub(crate) size: u32,
}

/// A request that its worker has answered for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) slot: u32,
    pub(crate) recalled: bool,
    pub(crate) handler: usize,
    /// The call is over now: its size, and the time it took as far as it is known.
    pub(crate) over: Option<(u32, Option<Duration>)>,
}

// === impl Worker ===

impl Worker {
    /// `limits` are the handlers' own: the calls of each that run at the same time.
    pub(crate) fn new(id: WorkerId, credits: u32, slots: u32, limits: impl Iterator<Item = u32>) -> Self {
        Self {
            id,
            credits,
            slots,
            held: Vec::new(),
            calls: 0,
            by_handler: limits.map(|limit| Busy { calls: 0, limit }).collect(),
            running: 0,
            batches: Vec::new(),
            backlog: Duration::ZERO,
            draining: false,
            keep: Keep::Open,
            stalled: false,
            watched: false,
            last_answer: None,
            free_slots: Vec::new(),
            fresh_slot: 0,
            next_batch: 0,
        }
    }

    /// Whether a call of this handler would run at once.
    pub(crate) fn has_room(&self, call: &Call) -> bool {
        self.running < self.credits && self.has_place(call)
    }

    /// Whether a call of this handler would run as soon as any other is over.
    pub(crate) fn has_place(&self, call: &Call) -> bool {
        let busy = &self.by_handler[call.handler];
        self.takes(call) && busy.calls < busy.limit
    }

    /// Whether a call may wait in the worker's socket. Only where its time is known to be short: a request must not be
    /// bound to a busy worker while another might become free.
    pub(crate) fn may_prefetch(&self, call: &Call) -> bool {
        let few = self.calls < self.credits + MAX_PREFETCH && !self.stalled;
        self.takes(call) && few && !call.expected.is_zero() && self.backlog + call.expected <= PREFETCH
    }

    /// Whether it has nothing at all to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.draining && self.held.is_empty()
    }

    fn takes(&self, call: &Call) -> bool {
        !self.draining && self.keep == Keep::Open && self.held() + call.size <= self.slots
    }

    /// Requests that it holds.
    pub(crate) fn held(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    /// Calls that run, as far as its credits go; what waits in its socket does not count.
    pub(crate) fn running(&self) -> u32 {
        self.running.min(self.credits)
    }

    /// Calls of a handler that run.
    pub(crate) fn running_of(&self, handler: usize) -> u32 {
        self.by_handler[handler].calls.min(self.by_handler[handler].limit)
    }

    pub(crate) fn backlog(&self) -> Duration {
        self.backlog
    }

    /// Calls of this handler that it can run at the same time.
    pub(crate) fn width(&self, concurrency: u32) -> u32 {
        if self.draining { 0 } else { self.credits.min(concurrency) }
    }

    /// Whether something waits in its socket behind what runs.
    pub(crate) fn has_prefetched(&self) -> bool {
        self.calls > self.running.min(self.credits)
    }

    /// The requests go to the worker in one call. Their slots are returned in their order.
    pub(crate) fn take(&mut self, tickets: &[Ticket], call: &Call, now: Instant) -> Vec<u32> {
        let batch = (tickets.len() > 1).then(|| self.open_batch(tickets.len()));
        let expected = call.expected / call.size.max(1);
        self.begin(call.handler);
        // The sum of what its members take off again, to the nanosecond: what is left over would add up.
        self.backlog += expected * call.size;
        let mut put = |ticket: &Ticket| {
            let slot = self.slot();
            let (ticket, handler) = (*ticket, call.handler);
            self.held.push(Held { ticket, slot, sent: now, recalled: false, handler, expected, batch });
            slot
        };
        tickets.iter().map(&mut put).collect()
    }

    /// One request goes to the worker; its slot is returned.
    pub(crate) fn take_one(&mut self, ticket: Ticket, call: &Call, now: Instant) -> u32 {
        self.begin(call.handler);
        self.backlog += call.expected;
        let slot = self.slot();
        let (handler, expected) = (call.handler, call.expected);
        self.held.push(Held { ticket, slot, sent: now, recalled: false, handler, expected, batch: None });
        slot
    }

    fn begin(&mut self, handler: usize) {
        let busy = &mut self.by_handler[handler];
        self.running += u32::from(busy.calls < busy.limit);
        busy.calls += 1;
        self.calls += 1;
    }

    fn end(&mut self, handler: usize) {
        let busy = &mut self.by_handler[handler];
        busy.calls -= 1;
        self.running -= u32::from(busy.calls < busy.limit);
        self.calls -= 1;
    }

    fn open_batch(&mut self, len: usize) -> u32 {
        let (number, size) = (self.next_batch, u32::try_from(len).unwrap_or(u32::MAX));
        self.next_batch = self.next_batch.wrapping_add(1);
        self.batches.push(Batch { number, size, left: size, took: Duration::ZERO });
        number
    }

    fn slot(&mut self) -> u32 {
        self.free_slots.pop().unwrap_or_else(|| {
            self.fresh_slot += 1;
            self.fresh_slot - 1
        })
    }

    /// The worker has answered for this request, with the time that its call took if it ran; `None` if it never had it.
    pub(crate) fn give_back(&mut self, ticket: Ticket, took: Option<Duration>, now: Instant) -> Option<Returned> {
        // A request may be here twice: taken back, and sent again.
        let own = |held: &Held| held.ticket == ticket && (held.recalled == took.is_none());
        let place = self.held.iter().position(own);
        let place = place.or_else(|| self.held.iter().position(|held| held.ticket == ticket))?;
        let held = self.held.remove(place);
        self.free_slots.push(held.slot);
        self.backlog = self.backlog.saturating_sub(held.expected);
        (self.stalled, self.last_answer) = (false, Some(now));
        let over = match held.batch {
            None => Some((1, took)),
            Some(number) => self.leave_batch(number, took),
        };
        if over.is_some() {
            self.end(held.handler);
        }
        Some(Returned { slot: held.slot, recalled: held.recalled, handler: held.handler, over })
    }

    /// The batch's size and time, if this was its last member.
    fn leave_batch(&mut self, number: u32, took: Option<Duration>) -> Option<(u32, Option<Duration>)> {
        let at = self.batches.iter().position(|batch| batch.number == number)?;
        let batch = &mut self.batches[at];
        batch.left -= 1;
        batch.took = batch.took.max(took.unwrap_or_default());
        if batch.left > 0 {
            return None;
        }
        let Batch { size, took, .. } = self.batches.swap_remove(at);
        Some((size, Some(took).filter(|took| !took.is_zero())))
    }

    pub(crate) fn slot_of(&self, ticket: Ticket) -> Option<u32> {
        self.held.iter().find(|held| held.ticket == ticket && !held.recalled).map(|held| held.slot)
    }

    pub(crate) fn requests(&self) -> impl ExactSizeIterator<Item = Held> + DoubleEndedIterator {
        self.held.iter().copied()
    }

    /// The other requests of the same call that are not answered yet.
    pub(crate) fn mates_of(&self, ticket: Ticket) -> impl Iterator<Item = Ticket> {
        let own = self.held.iter().find(|held| held.ticket == ticket && !held.recalled);
        let batch = own.and_then(|held| held.batch);
        let mates = self.held.iter().filter(move |held| batch.is_some() && held.batch == batch && !held.recalled);
        mates.map(|held| held.ticket).filter(move |other| *other != ticket)
    }

    /// Whether the handler of a request runs, as far as the order in which the worker starts what it gets tells.
    pub(crate) fn is_run(&self, ticket: Ticket) -> bool {
        self.run().any(|held| held.ticket == ticket)
    }

    /// The requests whose handlers run: as many calls as the worker and its handlers run at the same time, in the order
    /// in which they were sent. What comes behind them waits in its socket.
    fn run(&self) -> impl Iterator<Item = &Held> {
        let (mut calls, mut of, mut batches) = (0, vec![0; self.by_handler.len()], Vec::new());
        self.held.iter().filter(|held| !held.recalled).filter(move |held| {
            if held.batch.is_some_and(|batch| batches.contains(&batch)) {
                return true;
            }
            let runs = calls < self.credits && of[held.handler] < self.by_handler[held.handler].limit;
            if runs {
                (calls, of[held.handler]) = (calls + 1, of[held.handler] + 1);
                batches.extend(held.batch);
            }
            runs
        })
    }

    /// The requests that hold the places of a handler, or all places; `None` if there is one left. What has calls open
    /// runs, whatever its turn was.
    pub(crate) fn taken_by(&self, handler: usize, waits: impl Fn(Ticket) -> bool) -> Option<Vec<Ticket>> {
        let busy = &self.by_handler[handler];
        let (full, crowded) = (busy.calls >= busy.limit, self.running >= self.credits);
        if !full && !crowded {
            return None;
        }
        let own = |held: &&Held| !full || held.handler == handler;
        let run: Vec<_> = self.run().filter(own).map(|held| held.ticket).collect();
        let others = self.held.iter().filter(|held| !held.recalled).filter(own).map(|held| held.ticket);
        let others: Vec<_> = others.filter(|ticket| waits(*ticket) && !run.contains(ticket)).collect();
        Some([run, others].concat())
    }

    /// A request was taken back from its socket.
    pub(crate) fn recall(&mut self, ticket: Ticket) {
        if let Some(held) = self.held.iter_mut().find(|held| held.ticket == ticket && !held.recalled) {
            held.recalled = true;
        }
    }

    /// When the first of its calls is expected to be over.
    pub(crate) fn free_at(&self) -> Option<Instant> {
        self.held.first().map(|held| held.sent + held.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_batch_is_left_in_the_backlog_when_it_is_over() {
        let now = Instant::now();
        let mut worker = Worker::new(WorkerId(1), 1, 10, [1].into_iter());
        let tickets = [Ticket::from_number(1), Ticket::from_number(2), Ticket::from_number(3)];
        worker.take(&tickets, &Call { handler: 0, expected: Duration::from_nanos(100), size: 3 }, now);
        for ticket in tickets {
            worker.give_back(ticket, Some(Duration::from_nanos(100)), now).expect("it has this one");
        }
        assert_eq!(worker.backlog(), Duration::ZERO, "a nanosecond each would add up");
    }
}
