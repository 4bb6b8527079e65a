//! Which requests wait for which: the calls that handlers have open, and whether a new one could ever begin.
//!
//! ```text
//!  request ──has open──► call ──is──► request that runs     ──has open──► …
//!                          │    └───► request that waits    ──for a place of──► handler ──taken by──► requests that run …
//!                          └────────► served elsewhere: free
//! ```
//!
//! Something is *free* if it can end or begin by itself: a request that runs and has no call open, a call that is served
//! elsewhere, a handler with a place left, or one whose group may get another worker. A request with several open calls
//! may go on as soon as one of them has an answer. Those who wait for a new call, its caller and whoever called that
//! one, are not free for it: when they end, the call is cancelled. A call from which nothing free is reached would wait
//! for ever, and is refused; no other is.
//!
//! It is enough to look when a call comes and when one ends. A deadlock is a set of requests that wait for nobody but
//! each other, and it begins with what closes it. What runs and waits for nothing is free, so that only a request that
//! begins to wait can close it: by a call that it makes, or when the one of its calls that was free has been answered
//! and it goes on to wait for the others ([`Calls::stuck_since`]). Whatever else happens, a request that is sent, ends or
//! leaves, gives what waits for it more to hope for and never less. (Workers that an operator takes away are an
//! exception; what waits for those ends by its deadline.)

use std::collections::{HashMap, HashSet};

use crate::{GroupId, Ticket};

/// The calls that handlers have open.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    open: HashMap<Ticket, Open>,
    /// Who made the call that a request is.
    callers: HashMap<Ticket, Ticket>,
}

/// The open calls of one request.
#[derive(Clone, Debug, Default)]
struct Open {
    /// Requests that are calls, here.
    here: Vec<Ticket>,
    /// Calls that are served elsewhere, or of which nobody knows yet where.
    elsewhere: usize,
}

/// A handler of a group, as something to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The group.
    pub group: GroupId,
    /// The handler's place in it.
    pub handler: usize,
}

/// How it stands with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a place of this handler.
    Waits(Line),
    /// Its handler runs.
    Runs,
    /// It is over.
    Over,
}

/// What is known of requests and workers.
pub trait Places {
    /// How it stands with a request.
    fn progress(&self, ticket: Ticket) -> Progress;

    /// The requests that run in one call of a handler with this one, which is among them.
    fn together(&self, ticket: Ticket) -> Vec<Ticket>;

    /// The requests any of whose ends would give this handler a place; `None` if it has one, or may get one otherwise.
    /// `waits` tells of a request whether it has calls open.
    fn taken_by(&self, line: Line, waits: impl Fn(Ticket) -> bool) -> Option<Vec<Ticket>>;
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Line(Line),
    Request(Ticket),
}

// === impl Calls ===

impl Calls {
    /// A request has made a call; nobody knows yet who serves it.
    pub fn begin(&mut self, caller: Ticket) {
        self.open.entry(caller).or_default().elsewhere += 1;
    }

    /// That call is this request.
    pub fn enter(&mut self, caller: Ticket, call: Ticket) {
        let open = self.open.entry(caller).or_default();
        open.elsewhere = open.elsewhere.saturating_sub(1);
        open.here.push(call);
        self.callers.insert(call, caller);
    }

    /// A call is over: this request, or one that never became a request here.
    pub fn end(&mut self, caller: Ticket, call: Option<Ticket>) {
        let Some(open) = self.open.get_mut(&caller) else { return };
        match call {
            Some(call) => {
                open.here.retain(|own| *own != call);
                self.callers.remove(&call);
            }
            None => open.elsewhere = open.elsewhere.saturating_sub(1),
        }
        if open.here.is_empty() && open.elsewhere == 0 {
            self.open.remove(&caller);
        }
    }

    /// Whether a request has calls open.
    pub fn waits(&self, request: Ticket) -> bool {
        self.open.contains_key(&request)
    }

    /// Who called, and who called that one, up to a request that no handler made; the first is `caller` itself.
    pub fn chain(&self, caller: Ticket) -> impl Iterator<Item = Ticket> {
        std::iter::successors(Some(caller), |call| self.callers.get(call).copied())
    }

    /// Whether a call that `caller` is about to make would wait for ever for a place of this handler. Says how many requests
    /// hold the places then.
    pub fn is_stuck(&self, caller: Ticket, line: Line, places: &impl Places) -> Option<usize> {
        self.reach(&[Node::Line(line)], &self.chain(caller).collect(), places)?;
        Some(places.taken_by(line, |request| self.waits(request)).map_or(0, |requests| requests.len()))
    }

    /// Whether a call that `caller` is about to make would wait for ever for this request to end.
    pub fn is_stuck_behind(&self, caller: Ticket, ahead: Ticket, places: &impl Places) -> bool {
        self.reach(&[Node::Request(ahead)], &self.chain(caller).collect(), places).is_some()
    }

    /// After a call of `caller` has ended: whether those that it still has open will all wait for ever. Says which call,
    /// of all that have no place, came last; to give that one up is enough.
    pub fn stuck_since(&self, caller: Ticket, places: &impl Places) -> Option<Ticket> {
        if !self.waits(caller) {
            return None;
        }
        let calls = self.beyond_request(caller, &HashSet::new(), places)?;
        let stuck = self.reach(&calls, &HashSet::from([caller]), places)?;
        let waiting = stuck.into_iter().filter_map(|node| match node {
            Node::Request(request) if matches!(places.progress(request), Progress::Waits(_)) => Some(request),
            _ => None,
        });
        waiting.filter(|request| self.callers.contains_key(request) && !self.waits(*request)).max()
    }

    /// Everything that is reached from here; `None` as soon as anything free is. Beyond the `bound` it does not go: they
    /// do not end.
    fn reach(&self, start: &[Node], bound: &HashSet<Ticket>, places: &impl Places) -> Option<HashSet<Node>> {
        let (mut next, mut seen) = (start.to_vec(), start.iter().copied().collect::<HashSet<_>>());
        while let Some(node) = next.pop() {
            let beyond = match node {
                Node::Line(line) => self.beyond_line(line, places)?,
                Node::Request(request) => self.beyond_request(request, bound, places)?,
            };
            next.extend(beyond.into_iter().filter(|node| seen.insert(*node)));
        }
        Some(seen)
    }

    /// What has to end before a place of this handler is free.
    fn beyond_line(&self, line: Line, places: &impl Places) -> Option<Vec<Node>> {
        let requests = places.taken_by(line, |request| self.waits(request))?;
        Some(requests.into_iter().map(Node::Request).collect())
    }

    /// What has to end before this request can go on; `None` if nothing has to.
    fn beyond_request(&self, request: Ticket, bound: &HashSet<Ticket>, places: &impl Places) -> Option<Vec<Node>> {
        match places.progress(request) {
            Progress::Over => return None,
            Progress::Waits(line) if !self.waits(request) => return Some(vec![Node::Line(line)]),
            Progress::Waits(_) | Progress::Runs => {}
        }
        let together = places.together(request);
        if together.iter().any(|member| bound.contains(member)) {
            return Some(Vec::new());
        }
        let open: Vec<_> = together.iter().filter_map(|member| self.open.get(member)).collect();
        let waits = !open.is_empty() && open.iter().all(|open| open.elsewhere == 0);
        waits.then(|| open.iter().flat_map(|open| open.here.iter().copied().map(Node::Request)).collect())
    }
}
