//! How a request may end, and when it may be sent again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyserve_core::{Code, Error};
use anyserve_sched::{Action, Finished, Outlook, Over, Ticket, Verdict, WorkerId};

use crate::simulation::books::Standing;
use crate::simulation::broken::{Checked, hold};
use crate::simulation::clients::{Fate, Parcel};
use crate::simulation::world::{Reply, Why, World};

/// What `explain` says is what is then done. What is said to wait may still go at once: where its coming fills a batch or
/// pushes another out, where less strict ones of its handler wait, and where a request waits for a worker of its own,
/// even if not for long.
pub(in crate::simulation) fn explained(
    world: &World,
    number: usize,
    outlook: &Outlook,
    submitted: &Result<Ticket, Error>,
) -> Checked {
    let (ask, actions) = (&world.books.entries[number].ask, &world.actions);
    let sent_to = |ticket: Ticket| {
        actions.iter().find_map(|action| match action {
            Action::Send(worker, sending) if sending.ticket == ticket => Some(*worker),
            _ => None,
        })
    };
    let may_go = ask.batch.is_some()
        || world.machine.wants_fingerprints()
        || world.books.groups[ask.group].shelves[ask.handler].waiting > 0
        || matches!(actions.first(), Some(Action::Over(_)));
    let agree = match (&outlook.verdict, submitted) {
        (Verdict::Run(worker), Ok(ticket)) => sent_to(*ticket) == Some(*worker),
        (Verdict::Refuse(expected), Err(error)) => error == expected,
        (Verdict::Wait { .. }, Ok(ticket)) => may_go || sent_to(*ticket).is_none(),
        _ => false,
    };
    hold("what is explained is what is done", agree, || format!("{:?}, but {submitted:?}", outlook.verdict))
}

/// A request is not accepted, for a reason.
pub(in crate::simulation) fn refused(world: &World, number: usize, error: &Error) -> Checked {
    let (ask, now) = (&world.books.entries[number].ask, world.time.now());
    let limits = world.scenario.limits(ask.group, ask.handler);
    let shelf = &world.books.groups[ask.group].shelves[ask.handler];
    let crowded = shelf.waiting >= limits.max_queue || world.books.groups[ask.group].waiting.len() > 1;
    let fits = match error.code {
        Code::Deadline => ask.deadline.is_some_and(|deadline| deadline <= now),
        Code::Overloaded => (crowded || ask.deadline.is_some()) && error.retry_after.is_some(),
        Code::Poison => is_guilty(world, number),
        Code::Unavailable => world.machine.load(world.groups[ask.group]).down,
        Code::InvalidInput | Code::WorkerLost => limits.sequence,
        _ => false,
    };
    hold("a refusal has its reason", fits, || format!("request {number}: {error}"))
}

/// Where nothing but poison kills, nothing but poison is blamed.
fn is_guilty(world: &World, number: usize) -> bool {
    world.books.entries[number].ask.fate == Fate::Kills || !world.scenario.only_poison_kills()
}

/// A request is over without an answer, for a reason.
pub(in crate::simulation) fn over(world: &World, over: &Over<Parcel>, why: Why) -> Checked {
    let (number, now) = (over.payload.number, world.time.now());
    let entry = &world.books.entries[number];
    let sequence = entry.ask.sequence.is_some();
    let fits = match over.error.code {
        Code::Deadline => entry.ask.deadline.is_some_and(|deadline| deadline <= now),
        Code::Overloaded => why == Why::Submit && entry.standing == Standing::Waiting,
        Code::WorkerLost => why == Why::Gone && (entry.attempts > 0 || sequence),
        Code::Poison => is_guilty(world, number),
        Code::Unavailable => why == Why::Down,
        Code::InvalidInput => sequence,
        _ => false,
    };
    hold("an end has its reason", fits, || format!("request {number} at {why:?}: {}", over.error))?;
    hold("the error tells the attempts", over.attempts == entry.attempts, || {
        format!("{} instead of {} of request {number}", over.attempts, entry.attempts)
    })
}

/// A worker's answer goes to whoever still waits for it, and to nobody else.
pub(in crate::simulation) fn answered(
    world: &World,
    worker: WorkerId,
    reply: &Reply,
    finished: &Finished<Parcel>,
) -> Checked {
    let Reply { number, slot, took, .. } = *reply;
    let entry = &world.books.entries[number];
    let waits = entry.standing == Standing::With(worker) && entry.slot == slot;
    hold("an answer frees its own slot", finished.slot == slot, || format!("{} instead of {slot}", finished.slot))?;
    hold("an answer reaches exactly who waits for it", finished.payload.is_some() == waits, || {
        format!("request {number} {:?} from worker {}", entry.standing, worker.0)
    })?;
    let Some(payload) = &finished.payload else { return Ok(()) };
    let right = payload.number == number && took.is_some() && finished.attempts == entry.attempts;
    hold("an answer is for its own request", right, || format!("{finished:?} for request {number}"))
}

/// A request survived its worker: it may, and the budget allows it.
pub(in crate::simulation) fn survived(world: &mut World, number: usize, started: bool) -> Checked {
    let may = may_run_again(world, number, started);
    hold("only what may run again is sent again", may, || format!("request {number}"))?;
    let (now, books) = (world.time.now(), &mut world.books.groups[world.books.entries[number].ask.group]);
    books.retried.push_back(now);
    let (retries, requests) = (lately(&books.retried, now, 9), lately(&books.accepted, now, 10));
    hold("the retry budget is kept", retries <= (requests / 10).max(10), || {
        format!("{retries} retries for {requests} requests")
    })
}

/// A request was lost with its worker: it could not be sent again, or the budget was used up.
pub(in crate::simulation) fn perished(world: &World, number: usize, started: bool) -> Checked {
    let entry = &world.books.entries[number];
    let (now, books) = (world.time.now(), &world.books.groups[entry.ask.group]);
    let (retries, requests) = (lately(&books.retried, now, 10) + books.vague, lately(&books.accepted, now, 9));
    let needless = entry.ended == Some(Code::WorkerLost) && may_run_again(world, number, started);
    hold("no request is given up while the retry budget lasts", !needless || retries >= (requests / 10).max(10), || {
        format!("request {number} after {retries} retries for {requests} requests")
    })
}

fn may_run_again(world: &World, number: usize, started: bool) -> bool {
    let entry = &world.books.entries[number];
    let harmless = world.scenario.limits(entry.ask.group, entry.ask.handler).idempotent && !entry.emitted;
    entry.ask.sequence.is_none() && (!started || harmless)
}

/// How many of these times are within so many seconds. The budget is a tenth of what came within ten seconds, at least
/// ten; the dispatcher counts in whole seconds, so that the window it looks at is between nine and ten seconds long.
fn lately(times: &VecDeque<Instant>, now: Instant, seconds: u64) -> usize {
    let recent = |at: &&Instant| now.saturating_duration_since(**at) < Duration::from_secs(seconds);
    times.iter().rev().take_while(recent).count()
}
