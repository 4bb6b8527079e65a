//! Sequences: requests that keep to one worker and to their order.
//!
//! ```text
//!            ┌─────────── ended and nothing left, idle ──────────────► (forgotten)
//!   start ► Idle ──request──► Busy ──answered, next waits──► Busy
//!            ▲                 │
//!            └─── answered ────┤
//!                              └─ its worker died ─► Lost ──start──► Busy;  Lost ──idle──► (forgotten)
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error, SequenceCall, SequenceId};
use slab::Slab;

use crate::{GroupId, Ticket, WorkerId};

/// Sequences that may be alive at the same time.
const MAX_SEQUENCES: usize = 16_384;

/// Which sequence of which handler.
pub(crate) type Name = (GroupId, usize, SequenceId);

/// One sequence.
#[derive(Debug)]
pub(crate) struct Sequence {
    name: Name,
    /// Tells it from a later one with the same number.
    serial: u64,
    /// The worker that keeps it, once its first request was sent.
    worker: Option<WorkerId>,
    /// The one request that has its turn.
    busy: Option<Call>,
    /// Those behind it.
    waiting: VecDeque<Call>,
    /// Its worker died.
    lost: bool,
    /// Its last request has come.
    ended: bool,
    last: Instant,
}

/// One request of a sequence.
#[derive(Clone, Copy, Debug)]
struct Call {
    ticket: Ticket,
    /// It starts the sequence anew.
    start: bool,
}

/// What a request does to its sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has its turn, on this worker if there is one already.
    Now(Option<WorkerId>),
    /// It waits behind others of its sequence.
    Later,
}

/// What follows when a request of a sequence is over.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// The next one has its turn: on the worker that keeps the sequence, or on any.
    pub(crate) turn: Option<(Ticket, Option<WorkerId>)>,
    /// Their start never ran: they are over, too.
    pub(crate) fallen: Vec<(Ticket, Error)>,
}

/// A request that joined its sequence.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) number: usize,
    pub(crate) new: bool,
    pub(crate) turn: Turn,
}

/// Every sequence that is alive.
#[derive(Debug)]
pub(crate) struct Sequences {
    list: Slab<Sequence>,
    names: HashMap<Name, usize>,
    /// Sequences that a worker keeps, by group.
    bound: HashMap<GroupId, usize>,
    serial: u64,
    idle: Duration,
}

/// A sequence that a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle {
    number: usize,
    serial: u64,
}

// === impl Sequences ===

impl Sequences {
    pub(crate) fn new(idle: Duration) -> Self {
        Self { list: Slab::new(), names: HashMap::new(), bound: HashMap::new(), serial: 0, idle }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Sequences that workers of this group keep.
    pub(crate) fn bound_in(&self, group: GroupId) -> usize {
        self.bound.get(&group).copied().unwrap_or(0)
    }

    /// Sequences that this worker keeps.
    pub(crate) fn bound_to(&self, worker: WorkerId) -> usize {
        self.list.iter().filter(|(_, sequence)| sequence.worker == Some(worker)).count()
    }

    /// A worker keeps the sequence from now on, or none does.
    fn bind(&mut self, number: usize, worker: Option<WorkerId>) {
        let sequence = &mut self.list[number];
        let (before, group) = (std::mem::replace(&mut sequence.worker, worker), sequence.name.0);
        let count = self.bound.entry(group).or_default();
        *count = *count + usize::from(worker.is_some()) - usize::from(before.is_some());
        if *count == 0 {
            self.bound.remove(&group);
        }
    }

    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Whether a request may join its sequence.
    ///
    /// # Errors
    /// `INVALID_INPUT` without a sequence or for one that was never started, `WORKER_LOST` after its worker's death,
    /// `OVERLOADED` if there are too many.
    pub(crate) fn check(&self, group: GroupId, handler: usize, call: Option<&SequenceCall>) -> Result<(), Error> {
        let Some(call) = call else {
            let message = "this capability keeps sequences: the parameter 'sequence_id' must name one, and not be 0 or \
                           empty";
            return Err(Error::invalid(message));
        };
        let known = self.names.get(&(group, handler, call.id.clone())).map(|number| &self.list[*number]);
        match known {
            _ if call.start => self.check_room(known.is_some()),
            Some(sequence) if sequence.lost => Err(lost(&call.id)),
            Some(sequence) if !sequence.ended => Ok(()),
            _ => Err(Error::invalid(format!(
                "sequence {} is not known here: its first request must set 'sequence_start'; it may have ended, or \
                 been idle for {:?}",
                shown(&call.id),
                self.idle
            ))),
        }
    }

    fn check_room(&self, known: bool) -> Result<(), Error> {
        if known || self.list.len() < MAX_SEQUENCES {
            return Ok(());
        }
        let message = format!("{MAX_SEQUENCES} sequences are alive, which is the most; end some, or come back later");
        Err(Error::new(Code::Overloaded, message).with_retry_after(self.idle.min(Duration::from_secs(1))))
    }

    /// The sequence that a request would join, if it is known.
    pub(crate) fn find(&self, group: GroupId, handler: usize, call: &SequenceCall) -> Option<usize> {
        self.names.get(&(group, handler, call.id.clone())).copied()
    }

    /// The worker that keeps a sequence, once its first request was sent.
    pub(crate) fn worker_of(&self, number: usize) -> Option<WorkerId> {
        self.list[number].worker
    }

    /// Whether a request that joins now would wait behind others.
    pub(crate) fn is_busy(&self, number: usize) -> bool {
        self.list[number].busy.is_some()
    }

    /// The request of a sequence that has its turn.
    pub(crate) fn head(&self, number: usize) -> Option<Ticket> {
        self.list[number].busy.map(|busy| busy.ticket)
    }

    /// Lets a request join that was checked. Returns its sequence's number, whether that is new, and its turn.
    pub(crate) fn join(&mut self, name: Name, call: &SequenceCall, ticket: Ticket, now: Instant) -> Joined {
        let known = self.list.len();
        let number = self.number(name, now);
        let new = self.list.len() > known;
        let sequence = &mut self.list[number];
        if call.start && sequence.lost {
            sequence.lost = false;
        }
        (sequence.ended, sequence.last) = (call.end, now);
        let call = Call { ticket, start: call.start };
        if sequence.busy.is_some() {
            sequence.waiting.push_back(call);
            return Joined { number, new, turn: Turn::Later };
        }
        sequence.busy = Some(call);
        Joined { number, new, turn: Turn::Now(sequence.worker) }
    }

    fn number(&mut self, name: Name, now: Instant) -> usize {
        if let Some(number) = self.names.get(&name) {
            return *number;
        }
        self.serial += 1;
        let number = self.list.insert(Sequence {
            name: name.clone(),
            serial: self.serial,
            worker: None,
            busy: None,
            waiting: VecDeque::new(),
            lost: false,
            ended: false,
            last: now,
        });
        self.names.insert(name, number);
        number
    }

    /// Its request goes to this worker, which keeps it from now on.
    pub(crate) fn sent(&mut self, number: usize, worker: WorkerId) {
        self.bind(number, Some(worker));
    }

    /// A request of it is over, wherever it was, and `ran` or did not.
    pub(crate) fn over(&mut self, number: usize, ticket: Ticket, ran: bool, now: Instant) -> Next {
        let Some(sequence) = self.list.get_mut(number) else { return Next::default() };
        let Some(own) = sequence.busy.filter(|busy| busy.ticket == ticket) else {
            return Next { turn: None, fallen: sequence.leave_line(ticket) };
        };
        sequence.last = now;
        let never = own.start && !ran;
        let fallen = if never { sequence.orphans(0) } else { Vec::new() };
        sequence.busy = sequence.waiting.pop_front();
        let (next, ended) = (sequence.busy, sequence.ended);
        if never {
            // What would have run for this start must not run in whatever state an earlier one left behind.
            self.bind(number, None);
        }
        let turn = next.map(|next| (next.ticket, self.list[number].worker));
        if turn.is_none() && (ended || never) {
            self.forget(number);
        }
        Next { turn, fallen }
    }

    /// The sequences that this worker kept are lost; their requests are over.
    pub(crate) fn worker_gone(&mut self, worker: WorkerId) -> Vec<(Ticket, Error)> {
        let mut over = Vec::new();
        let own = self.list.iter().filter(|(_, sequence)| sequence.worker == Some(worker));
        let own: Vec<_> = own.map(|(number, _)| number).collect();
        for number in own {
            self.bind(number, None);
            let sequence = &mut self.list[number];
            sequence.lost = true;
            let all = sequence.busy.take().into_iter().chain(sequence.waiting.drain(..));
            over.extend(all.map(|call| (call.ticket, lost(&sequence.name.2))));
        }
        over
    }

    /// What a timer needs to find this sequence again, if it is there.
    pub(crate) fn handle(&self, number: usize) -> Handle {
        Handle { number, serial: self.list[number].serial }
    }

    /// Forgets a sequence that was idle for long enough. Returns when to look again otherwise.
    pub(crate) fn expire(&mut self, handle: Handle, now: Instant) -> Option<Instant> {
        let sequence = self.list.get(handle.number).filter(|sequence| sequence.serial == handle.serial)?;
        let due = sequence.last + self.idle;
        if due > now {
            return Some(due);
        }
        if sequence.busy.is_some() {
            return Some(now + self.idle);
        }
        self.forget(handle.number);
        None
    }

    fn forget(&mut self, number: usize) {
        self.bind(number, None);
        let sequence = self.list.remove(number);
        self.names.remove(&sequence.name);
    }
}

// === impl Sequence ===

impl Sequence {
    /// A request leaves that was waiting behind others. If it was to start the sequence anew, those that it was to start
    /// it for are over, too, and nothing joins before another start.
    fn leave_line(&mut self, ticket: Ticket) -> Vec<(Ticket, Error)> {
        let Some(at) = self.waiting.iter().position(|call| call.ticket == ticket) else { return Vec::new() };
        let start = self.waiting.remove(at).is_some_and(|call| call.start);
        let fallen = if start { self.orphans(at) } else { Vec::new() };
        self.ended |= start && at == self.waiting.len();
        fallen
    }

    /// Takes out those from this place up to the next start.
    fn orphans(&mut self, from: usize) -> Vec<(Ticket, Error)> {
        let len = self.waiting.iter().skip(from).take_while(|call| !call.start).count();
        let error = never_began(&self.name.2);
        self.waiting.drain(from..from + len).map(|call| (call.ticket, error.clone())).collect()
    }
}

fn lost(id: &SequenceId) -> Error {
    let message = format!("sequence {} ended: the worker that kept it died; start it again", shown(id));
    Error::new(Code::WorkerLost, message)
}

fn never_began(id: &SequenceId) -> Error {
    let id = shown(id);
    Error::invalid(format!("sequence {id} never began: the request that was to start it ended before it ran"))
}

fn shown(id: &SequenceId) -> String {
    match id {
        SequenceId::Number(number) => number.to_string(),
        SequenceId::Text(text) => format!("'{text}'"),
    }
}
