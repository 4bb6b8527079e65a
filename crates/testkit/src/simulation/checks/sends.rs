//! What may go to a worker.

use anyserve_core::SequenceCall;
use anyserve_sched::{Sending, WorkerId};

use crate::simulation::books::{Books, Entry, Standing};
use crate::simulation::broken::{Checked, hold};
use crate::simulation::process::Frame;
use crate::simulation::world::World;

fn entries<'a>(world: &'a World, frame: &'a Frame) -> impl Iterator<Item = (usize, &'a Entry)> {
    frame.members.iter().map(|member| (member.number, &world.books.entries[member.number]))
}

/// However late the timers are.
pub(super) fn in_time(world: &World, frame: &Frame) -> Checked {
    let now = world.time.now();
    for (number, entry) in entries(world, frame) {
        let passed = entry.ask.deadline.is_some_and(|deadline| deadline <= now);
        hold("nothing is sent after its deadline", !passed, || format!("request {number}"))?;
    }
    Ok(())
}

/// Only what waits is sent, and every time is counted.
pub(super) fn counted(world: &World, sendings: &[Sending], frame: &Frame) -> Checked {
    for ((number, entry), sending) in entries(world, frame).zip(sendings) {
        hold("only what waits is sent", entry.standing == Standing::Waiting, || {
            format!("request {number} {:?}", entry.standing)
        })?;
        hold("attempts are counted", sending.attempt == entry.attempts + 1, || {
            format!("request {number} is sent as attempt {} after {}", sending.attempt, entry.attempts)
        })?;
    }
    Ok(())
}

/// A worker gets more than it can run only as far as that is known to be short.
pub(super) fn within_limits(world: &World, worker: WorkerId, frame: &Frame) -> Checked {
    let post = world.books.posts.get(&worker);
    let takes = post.is_some_and(|post| !post.draining);
    hold("only a worker that takes requests gets some", takes, || format!("worker {}", worker.0))?;
    let Some(post) = post else { return Ok(()) };
    let shortest = world.books.groups[post.group].shelves[frame.handler].shortest;
    let may = post.has_room(frame.handler) || post.may_prefetch(shortest);
    hold("a limit on concurrency is never broken", may, || {
        format!("handler {} on worker {} with {} calls", frame.handler, worker.0, post.calls.len())
    })
}

/// A batch has members of one kind, as many as the handler takes.
pub(super) fn of_one_kind(world: &World, frame: &Frame) -> Checked {
    let mut kinds = entries(world, frame).map(|(_, entry)| (entry.ask.group, entry.ask.handler, entry.ask.batch));
    let first = kinds.next();
    let group = first.map_or(0, |(group, ..)| group);
    let alike = frame.members.len() == 1 || first.is_some_and(|(.., batch)| batch.is_some());
    hold("a batch is of one kind", alike && kinds.all(|kind| Some(kind) == first), || format!("{frame:?}"))?;
    let most = world.scenario.limits(group, frame.handler).max_batch;
    hold("a batch has no more members than its handler takes", frame.members.len() <= most, || format!("{frame:?}"))?;
    let bytes: usize = entries(world, frame).map(|(_, entry)| entry.ask.bytes).sum();
    let fits = frame.members.len() == 1 || bytes <= world.scenario.config.max_batch_bytes;
    hold("a batch has no more bytes than a frame", fits, || format!("{bytes} bytes in {frame:?}"))
}

/// What was with a dying worker has its next worker for itself.
pub(super) fn alone(world: &World, worker: WorkerId, frame: &Frame) -> Checked {
    let Some(post) = world.books.posts.get(&worker) else { return Ok(()) };
    hold("nothing runs beside a suspect", post.alone.is_none(), || {
        format!("{frame:?} goes to worker {} beside request {:?}", worker.0, post.alone)
    })?;
    let suspect = entries(world, frame).find(|(_, entry)| entry.suspect && entry.ask.sequence.is_none());
    let Some((number, _)) = suspect else { return Ok(()) };
    hold("a suspect runs alone", frame.members.len() == 1 && post.held.is_empty(), || {
        format!("request {number} goes to worker {} which has {:?}", worker.0, post.held)
    })
}

/// A fingerprint that is refused at the door is not let in from the queue either.
pub(super) fn not_quarantined(world: &World, frame: &Frame) -> Checked {
    if !world.machine.wants_fingerprints() {
        return Ok(());
    }
    let refused = world.machine.quarantined(world.time.now());
    for (number, entry) in entries(world, frame) {
        let known = refused.iter().any(|record| record.fingerprint == entry.ask.print);
        hold("what is quarantined is not sent", !known, || format!("request {number}"))?;
    }
    Ok(())
}

/// A sequence's requests go one at a time, in order, to the worker that ran its start.
pub(super) fn in_sequence(world: &World, worker: WorkerId, frame: &Frame) -> Checked {
    for (number, entry) in entries(world, frame) {
        let Some(SequenceCall { start, .. }) = entry.ask.sequence else { continue };
        let name = Books::chain_of(&entry.ask);
        let chain = name.and_then(|name| world.books.chains.get(&name)).cloned().unwrap_or_default();
        hold("a sequence runs one request at a time", chain.busy.is_none(), || format!("{number}, {chain:?}"))?;
        hold("a sequence keeps its order", chain.last < entry.ticket, || format!("{number}, {chain:?}"))?;
        let own = chain.starts.iter().copied().filter(|start| world.books.entries[*start].ticket < entry.ticket).max();
        let began = own.is_some_and(|start| world.books.entries[start].runs > 0) && chain.worker == Some(worker);
        hold("a sequence goes on only where its start has run", start || began, || {
            format!("request {number} goes to worker {}, its start is {own:?}, {chain:?}", worker.0)
        })?;
    }
    Ok(())
}
