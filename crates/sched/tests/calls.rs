//! Calls that would wait for ever are found when they come, and no others.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod bench;

use std::collections::{BTreeMap, BTreeSet};

use anyserve_sched::{Calls, GroupId, HandlerLimits, Job, Line, Places, Progress, Ticket};
use bench::{Bench, QUICK, SLOW, W1, W2, limits, sequence};
use proptest::prelude::*;

// === on the dispatcher ===

/// A dispatcher, the calls of its requests, and what is said to a call.
struct Shell {
    bench: Bench,
    calls: Calls,
    grows: BTreeSet<GroupId>,
}

// === impl Shell ===

impl Shell {
    /// One group for each of these, with one worker that makes so many calls at once.
    fn new(groups: &[(&[HandlerLimits], u32)]) -> Self {
        let mut bench = Bench::new(groups[0].0);
        bench.ready(W1, groups[0].1);
        for (number, (handlers, credits)) in (2..).zip(&groups[1..]) {
            let group = bench.machine.add_group(handlers.iter().copied());
            bench.machine.worker_ready(group, anyserve_sched::WorkerId(number), *credits, bench.now, &mut bench.out);
        }
        Self { bench, calls: Calls::default(), grows: BTreeSet::new() }
    }

    fn request(&mut self, group: usize, handler: usize) -> Ticket {
        self.bench.submit("r", &job(group, handler)).unwrap()
    }

    /// A call of this request: the requests that hold the places if it would wait for ever.
    fn call(&mut self, caller: Ticket, job: &Job<'_>) -> Result<Ticket, usize> {
        self.calls.begin(caller);
        let grows = |group| self.grows.contains(&group);
        if let Some(places) = self.bench.machine.is_stuck(job, caller, &self.calls, grows) {
            self.calls.end(caller, None);
            return Err(places);
        }
        let call = self.bench.submit("c", job).unwrap();
        self.calls.enter(caller, call);
        Ok(call)
    }

    /// A call is over. Says which other has to be given up.
    fn end(&mut self, caller: Ticket, call: Option<Ticket>) -> Option<Ticket> {
        self.calls.end(caller, call);
        self.bench.machine.stuck_since(caller, &self.calls, |group| self.grows.contains(&group))
    }
}

fn job(group: usize, handler: usize) -> Job<'static> {
    Job::new(GroupId(group), handler)
}

const ONE: &[HandlerLimits] = &[HandlerLimits {
    concurrency: 1,
    max_queue: 100,
    max_batch: 1,
    max_delay: std::time::Duration::ZERO,
    idempotent: false,
    sequence: false,
}];

#[test]
fn a_handler_that_calls_itself_needs_a_second_place() {
    let mut shell = Shell::new(&[(ONE, 1)]);
    let only = shell.request(0, 0);
    assert_eq!(shell.call(only, &job(0, 0)), Err(1));
    shell.bench.ready(W2, 1);
    let second = shell.call(only, &job(0, 0)).unwrap();
    assert_eq!(shell.call(second, &job(0, 0)), Err(2), "now both wait");
    assert_eq!(shell.calls.chain(second).collect::<Vec<_>>(), [second, only]);
}

#[test]
fn a_group_that_may_get_another_worker_is_waited_for() {
    let mut shell = Shell::new(&[(ONE, 1)]);
    let only = shell.request(0, 0);
    shell.grows.insert(GroupId(0));
    assert!(shell.call(only, &job(0, 0)).is_ok());
}

#[test]
fn two_groups_that_wait_for_each_other_are_found_at_the_second_call() {
    let mut shell = Shell::new(&[(ONE, 1), (ONE, 1)]);
    let (a, b) = (shell.request(0, 0), shell.request(1, 0));
    assert!(shell.call(a, &job(1, 0)).is_ok(), "b ends by itself");
    assert_eq!(shell.call(b, &job(0, 0)), Err(1));
}

#[test]
fn a_call_behind_somebody_who_waits_for_nobody_is_fine() {
    let mut shell = Shell::new(&[(ONE, 1), (ONE, 1)]);
    let (a, _free) = (shell.request(0, 0), shell.request(1, 0));
    let call = shell.call(a, &job(1, 0)).unwrap();
    assert_eq!(shell.bench.machine.worker_of(call), None, "it waits");
}

#[test]
fn a_call_that_can_only_begin_when_its_caller_has_ended_is_refused_whatever_else_that_waits_for() {
    let mut shell = Shell::new(&[(ONE, 1)]);
    let only = shell.request(0, 0);
    shell.calls.begin(only);
    assert_eq!(shell.call(only, &job(0, 0)), Err(1));
    assert_eq!(shell.end(only, None), None);
    assert!(!shell.calls.waits(only));
}

#[test]
fn a_deadlock_that_an_answer_closes_is_found_then() {
    let mut shell = Shell::new(&[(ONE, 1), (ONE, 1)]);
    let (a, b) = (shell.request(0, 0), shell.request(1, 0));
    shell.calls.begin(a);
    let waits = shell.call(a, &job(1, 0)).unwrap();
    let back = shell.call(b, &job(0, 0)).expect("a may end as soon as its other call is answered");
    assert_eq!(shell.end(a, None), Some(back), "it goes on to wait for b, which waits for it");
    assert_eq!(shell.end(b, Some(back)), None);
    assert_eq!(shell.calls.chain(waits).collect::<Vec<_>>(), [waits, a]);
}

#[test]
fn a_handlers_own_limit_counts_beside_the_workers() {
    let two = HandlerLimits::new(2, 100);
    let mut shell = Shell::new(&[(&[limits(), two], 3)]);
    let (narrow, _free) = (shell.request(0, 0), shell.request(0, 1));
    assert_eq!(shell.call(narrow, &job(0, 0)), Err(1), "the other handler's end does not help");
    let wide = shell.call(narrow, &job(0, 1)).unwrap();
    assert!(shell.call(wide, &job(0, 1)).is_ok(), "the one that runs there waits for nobody");
}

#[test]
fn what_waits_in_the_socket_of_who_waits_for_it_is_found() {
    let mut shell = Shell::new(&[(ONE, 1)]);
    let quick = shell.request(0, 0);
    let (now, out) = (shell.bench.now, &mut shell.bench.out);
    shell.bench.machine.finished(GroupId(0), W1, quick, Some(QUICK), now, out).unwrap();
    let (first, second) = (shell.request(0, 0), shell.request(0, 0));
    assert_eq!(shell.bench.machine.worker_of(second), Some(W1), "it is sent ahead");
    assert_eq!(shell.call(first, &job(0, 0)), Err(1), "the one behind it does not run");
}

#[test]
fn a_request_does_not_wait_for_its_own_sequence() {
    let keeps = HandlerLimits { sequence: true, ..limits() };
    let mut shell = Shell::new(&[(&[keeps], 1)]);
    shell.bench.ready(W2, 1);
    let (first, next) = (sequence(1, true, false), sequence(1, false, false));
    let head = shell.bench.submit("r", &Job { sequence: Some(&first), ..job(0, 0) }).unwrap();
    assert_eq!(shell.call(head, &Job { sequence: Some(&next), ..job(0, 0) }), Err(1));
    let other = sequence(2, true, false);
    assert!(shell.call(head, &Job { sequence: Some(&other), ..job(0, 0) }).is_ok());
}

#[test]
fn a_batch_waits_as_one() {
    let batched = HandlerLimits { max_batch: 2, ..limits() };
    let mut shell = Shell::new(&[(&[batched], 1)]);
    let plug = shell.request(0, 0);
    let pair: Vec<_> = (0..2).map(|_| shell.bench.submit("b", &Job { batch: Some(7), ..job(0, 0) }).unwrap()).collect();
    let (now, out) = (shell.bench.now, &mut shell.bench.out);
    shell.bench.machine.finished(GroupId(0), W1, plug, Some(SLOW), now, out).unwrap();
    assert!(pair.iter().all(|ticket| shell.bench.machine.worker_of(*ticket) == Some(W1)));
    assert_eq!(shell.call(pair[1], &job(0, 0)), Err(2), "its mate is not free, although it has no call open");
}

// === against the definition ===

/// Groups of one handler each, and requests that are in them, as plainly as can be.
#[derive(Clone, Debug, Default)]
struct Toy {
    slots: Vec<usize>,
    grows: Vec<bool>,
    /// Group of each request that is not over.
    group: BTreeMap<u64, usize>,
    running: BTreeSet<u64>,
    /// In the order of their coming.
    waiting: Vec<u64>,
    /// The open calls of each request; `None` is one that is elsewhere.
    calls: BTreeMap<u64, Vec<Option<u64>>>,
    next: u64,
}

// === impl Toy ===

impl Toy {
    fn add(&mut self, group: usize) -> u64 {
        self.next += 1;
        self.group.insert(self.next, group);
        self.waiting.push(self.next);
        self.fill();
        self.next
    }

    fn fill(&mut self) {
        let taken = |toy: &Self, group| toy.running.iter().filter(|request| toy.group[*request] == group).count();
        for request in std::mem::take(&mut self.waiting) {
            let group = self.group[&request];
            if self.grows[group] || taken(self, group) < self.slots[group] {
                self.running.insert(request);
            } else {
                self.waiting.push(request);
            }
        }
    }

    fn end(&mut self, request: u64) {
        self.group.remove(&request);
        self.running.remove(&request);
        self.waiting.retain(|own| *own != request);
        self.calls.remove(&request);
        for calls in self.calls.values_mut() {
            calls.retain(|call| *call != Some(request));
        }
        self.calls.retain(|_, calls| !calls.is_empty());
        self.fill();
    }

    /// The definition: whether a request has a place at last, if everybody who can end does, as often as anybody can,
    /// except for those who are bound. Who has calls open can end as soon as one of them has.
    fn begins_at_last(mut self, request: u64, bound: &[u64]) -> bool {
        let callers = self.calls.clone();
        loop {
            let over = |call: &Option<u64>| call.is_none_or(|call| !self.group.contains_key(&call));
            let may_end = |own: &u64| callers.get(own).is_none_or(|calls| calls.iter().any(over));
            let next = self.running.iter().copied().find(|own| *own != request && !bound.contains(own) && may_end(own));
            let Some(next) = next else { break };
            self.end(next);
        }
        self.running.contains(&request)
    }

    fn caller_of(&self, request: u64) -> Option<u64> {
        self.calls.iter().find(|(_, list)| list.contains(&Some(request))).map(|(caller, _)| *caller)
    }

    /// A request that runs and waits for nothing, the one with this place.
    fn idle(&self, place: usize) -> Option<u64> {
        picked(self.running.iter().copied().filter(|request| !self.calls.contains_key(request)), place)
    }

    fn is_open(&self, line: Line) -> bool {
        let running = self.running.iter().filter(|request| self.group[*request] == line.group.0).count();
        self.grows[line.group.0] || running < self.slots[line.group.0]
    }
}

impl Places for Toy {
    fn progress(&self, ticket: Ticket) -> Progress {
        match self.group.get(&ticket.number()) {
            None => Progress::Over,
            Some(_) if self.running.contains(&ticket.number()) => Progress::Runs,
            Some(group) => Progress::Waits(Line { group: GroupId(*group), handler: 0 }),
        }
    }

    fn together(&self, ticket: Ticket) -> Vec<Ticket> {
        vec![ticket]
    }

    fn taken_by(&self, line: Line, _: impl Fn(Ticket) -> bool) -> Option<Vec<Ticket>> {
        let own = self.running.iter().filter(|request| self.group[*request] == line.group.0);
        (!self.is_open(line)).then(|| own.map(|request| Ticket::from_number(*request)).collect())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Request(usize),
    /// The request with this place among those that run calls this group.
    Call(usize, usize),
    /// It calls something that is served elsewhere.
    Elsewhere(usize),
    /// The caller with this place has an answer to such a call.
    Answer(usize),
    /// The request with this place among those that run and have no call open ends.
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_usize..3).prop_map(Step::Request),
        6 => (0_usize..12, 0_usize..3).prop_map(|(who, group)| Step::Call(who, group)),
        1 => (0_usize..12).prop_map(Step::Elsewhere),
        1 => (0_usize..12).prop_map(Step::Answer),
        2 => (0_usize..12).prop_map(Step::End),
    ]
}

fn picked(list: impl Iterator<Item = u64>, place: usize) -> Option<u64> {
    let list: Vec<_> = list.collect();
    (!list.is_empty()).then(|| list[place % list.len()])
}

/// Makes a call in both, or finds out that both refuse it.
fn call(toy: &mut Toy, calls: &mut Calls, caller: u64, group: usize) -> Result<(), TestCaseError> {
    let (line, ticket) = (Line { group: GroupId(group), handler: 0 }, Ticket::from_number(caller));
    calls.begin(ticket);
    let (stuck, bound) =
        (calls.is_stuck(ticket, line, toy), calls.chain(ticket).map(Ticket::number).collect::<Vec<_>>());
    let mut after = toy.clone();
    let made = after.add(group);
    after.calls.entry(caller).or_default().push(Some(made));
    prop_assert_eq!(
        stuck.is_none(),
        after.clone().begins_at_last(made, &bound),
        "{} calls {} in {:?}",
        caller,
        group,
        toy
    );
    if stuck.is_some() {
        calls.end(ticket, None);
    } else {
        calls.enter(ticket, Ticket::from_number(made));
        *toy = after;
    }
    Ok(())
}

/// Ends a request in both, and gives up what its caller would then wait for in vain.
fn end(toy: &mut Toy, calls: &mut Calls, request: u64) {
    let caller = toy.caller_of(request);
    toy.end(request);
    let Some(caller) = caller.map(Ticket::from_number) else { return };
    calls.end(caller, Some(Ticket::from_number(request)));
    give_up(toy, calls, caller);
}

fn give_up(toy: &mut Toy, calls: &mut Calls, caller: Ticket) {
    if let Some(stuck) = calls.stuck_since(caller, toy) {
        assert!(toy.waiting.contains(&stuck.number()), "what has a place is never given up");
        end(toy, calls, stuck.number());
    }
}

/// Whether all end if everybody waits for all of its calls, and those that are elsewhere are answered at last.
fn all_end(mut toy: Toy, mut calls: Calls) -> bool {
    let elsewhere: Vec<_> = toy.calls.iter().flat_map(|(own, list)| list.iter().map(|call| (*own, *call))).collect();
    for (caller, _) in elsewhere.into_iter().filter(|(_, call)| call.is_none()) {
        answer_elsewhere(&mut toy, &mut calls, caller);
    }
    while let Some(request) = toy.idle(0) {
        end(&mut toy, &mut calls, request);
    }
    toy.group.is_empty()
}

fn answer_elsewhere(toy: &mut Toy, calls: &mut Calls, caller: u64) {
    let Some(list) = toy.calls.get_mut(&caller) else { return };
    let Some(place) = list.iter().position(Option::is_none) else { return };
    list.remove(place);
    toy.calls.retain(|_, calls| !calls.is_empty());
    calls.end(Ticket::from_number(caller), None);
    give_up(toy, calls, Ticket::from_number(caller));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn exactly_those_calls_are_refused_that_would_never_begin_and_nobody_waits_for_ever(
        slots in prop::collection::vec(1_usize..3, 3),
        grows in prop::collection::vec(prop::bool::weighted(0.1), 3),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (mut toy, mut calls) = (Toy { slots, grows, ..Toy::default() }, Calls::default());
        for step in steps {
            match step {
                Step::Request(group) => drop(toy.add(group)),
                Step::Call(who, group) => {
                    if let Some(caller) = picked(toy.running.iter().copied(), who) {
                        call(&mut toy, &mut calls, caller, group)?;
                    }
                }
                Step::Elsewhere(who) => {
                    if let Some(caller) = picked(toy.running.iter().copied(), who) {
                        calls.begin(Ticket::from_number(caller));
                        toy.calls.entry(caller).or_default().push(None);
                    }
                }
                Step::Answer(who) => {
                    if let Some(caller) = picked(toy.calls.keys().copied(), who) {
                        answer_elsewhere(&mut toy, &mut calls, caller);
                    }
                }
                Step::End(who) => {
                    if let Some(request) = toy.idle(who) {
                        end(&mut toy, &mut calls, request);
                    }
                }
            }
            prop_assert!(all_end(toy.clone(), calls.clone()), "somebody waits for ever: {:?}", toy);
        }
    }
}
