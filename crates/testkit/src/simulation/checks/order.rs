//! Who goes before whom, and that nobody waits for nothing.

use std::time::Duration;

use anyserve_sched::WorkerId;

use crate::simulation::books::{Books, Entry, Standing};
use crate::simulation::broken::{Checked, hold};
use crate::simulation::clients::Ask;
use crate::simulation::post::Post;
use crate::simulation::process::Frame;
use crate::simulation::table::Phase;
use crate::simulation::world::World;

/// Time after which the dispatcher looks after what waits in a socket, as `docs/scheduling.md` has it.
const STALL: Duration = Duration::from_millis(5);

/// Nobody of a stricter level is left in the queue who could have had this place: a free one, or, where the request will
/// wait in the socket, the worker's next free one.
pub(super) fn no_inversion(world: &World, worker: WorkerId, frame: &Frame) -> Checked {
    let Some(post) = world.books.posts.get(&worker) else { return Ok(()) };
    let numbers = || frame.members.iter().map(|member| member.number);
    // A worker that was kept free for a suspect is the suspect's.
    if numbers().any(|number| is_blamed(world, &world.books.entries[number])) {
        return Ok(());
    }
    let Some(level) = numbers().map(|number| world.books.entries[number].ask.level()).min() else { return Ok(()) };
    let soon = !post.has_room(frame.handler);
    let goes_before = |entry: &Entry| {
        let Ask { handler, .. } = entry.ask;
        let beside = soon && entry.ask.level() == level && handler != frame.handler;
        entry.ask.level() < level || beside && is_long(world, entry)
    };
    for other in &world.books.groups[post.group].waiting {
        let entry = &world.books.entries[*other];
        let passed_over = goes_before(entry) && could_run(world, post, entry) && is_plain(world, entry);
        hold("a priority is never inverted", !passed_over, || {
            format!("{frame:?} of level {level} goes before {other} of level {}", entry.ask.level())
        })?;
    }
    Ok(())
}

/// No socket takes it, and no worker is free for it just now: where shorter ones of other handlers are let into a socket
/// before it, it waits for ever.
fn is_long(world: &World, entry: &Entry) -> bool {
    let Ask { group, handler, .. } = entry.ask;
    let shortest = world.books.groups[group].shelves[handler].shortest;
    let takes = |post: &Post| post.has_room(handler) || post.may_prefetch(shortest);
    !world.books.posts.values().any(|post| post.group == group && !post.draining && takes(post))
}

/// Among a tenant's requests of one level and handler the one that is due first goes first, and of those without a deadline
/// the one that came first.
pub(super) fn earliest_deadline_first(world: &World, frame: &Frame) -> Checked {
    let Some(first) = frame.members.first().map(|member| &world.books.entries[member.number]) else { return Ok(()) };
    let plain = |entry: &Entry| entry.ask.sequence.is_none() && !is_blamed(world, entry);
    if frame.members.len() > 1 || first.ask.batch.is_some() || !plain(first) {
        return Ok(());
    }
    let alike = |ask: &Ask| (ask.handler, ask.level(), ask.tenant);
    let due = |entry: &Entry| (entry.ask.deadline.is_none(), entry.ask.deadline, entry.ticket);
    for other in &world.books.groups[first.ask.group].waiting {
        let entry = &world.books.entries[*other];
        let sooner = alike(&entry.ask) == alike(&first.ask) && plain(entry) && due(entry) < due(first);
        hold("the earliest deadline goes first", !sooner || entry.returned == world.books.step, || {
            format!("{frame:?} goes before {other}")
        })?;
    }
    Ok(())
}

/// It may run anywhere, now: it belongs to no sequence, has no like with a worker that died, and no batch that still grows.
fn is_plain(world: &World, entry: &Entry) -> bool {
    let returned = entry.returned == world.books.step;
    entry.ask.sequence.is_none() && !is_blamed(world, entry) && !returned && !may_be_held(world, entry)
}

fn is_blamed(world: &World, entry: &Entry) -> bool {
    world.books.blamed.contains(&entry.ask.print)
}

/// A worker may be kept free for a request that wants one for itself, or run one.
fn may_be_kept(world: &World, group: usize) -> bool {
    let books = &world.books;
    let held = books.posts.values().filter(|post| post.group == group).flat_map(|post| post.held.values());
    let live = books.groups[group].waiting.iter().copied().chain(held.map(|held| held.number));
    !books.blamed.is_empty() && live.into_iter().any(|number| is_blamed(world, &books.entries[number]))
}

/// A batch waits to grow for its most urgent member, which may be younger than this one.
fn may_be_held(world: &World, entry: &Entry) -> bool {
    let delay = world.scenario.limits(entry.ask.group, entry.ask.handler).max_delay + world.scenario.lateness;
    let now = world.time.now();
    let kin = |other: &&Entry| {
        (other.ask.handler, other.ask.level()) == (entry.ask.handler, entry.ask.level())
            && now.saturating_duration_since(other.came) <= delay
    };
    let waiting = &world.books.groups[entry.ask.group].waiting;
    delay > world.scenario.lateness && waiting.iter().map(|number| &world.books.entries[*number]).any(|one| kin(&one))
}

fn could_run(world: &World, post: &Post, entry: &Entry) -> bool {
    // A worker without slots left for a whole batch waits for some.
    let most = u32::try_from(world.scenario.limits(entry.ask.group, entry.ask.handler).max_batch).unwrap_or(u32::MAX);
    let slots = world.scenario.config.slots;
    !post.draining && post.has_place(entry.ask.handler) && post.slots() + most <= slots
}

/// What a free worker could run at once is not in the queue.
pub(super) fn nobody_waits_beside_a_free_worker(world: &World) -> Checked {
    for (place, own) in world.books.groups.iter().enumerate() {
        let posts = || world.books.posts.values().filter(|post| post.group == place);
        let is_open = |handler| posts().any(|post| !post.draining && post.has_room(handler));
        let open: Vec<_> = (0..own.shelves.len()).map(is_open).collect();
        if own.waiting.is_empty() || !open.contains(&true) || may_be_kept(world, place) {
            continue;
        }
        for number in &own.waiting {
            let entry = &world.books.entries[*number];
            let handler = entry.ask.handler;
            let takes = |post: &Post| post.has_room(handler) && could_run(world, post, entry);
            let waits = open[handler] && is_plain(world, entry) && posts().any(takes);
            hold("nobody waits beside a free worker", !waits, || format!("request {number} of handler {handler}"))?;
        }
    }
    Ok(())
}

/// What was sent to wait in a socket is taken back when its worker answers nothing for a while.
pub(super) fn nothing_waits_in_a_stuck_socket(world: &World) -> Checked {
    let (now, longest) = (world.time.now(), STALL * 2 + world.scenario.lateness * 2);
    for (worker, post) in &world.books.posts {
        let Some(since) = post.waits_since else { continue };
        for (slot, held) in &post.held {
            let Some(call) = post.calls.get(&held.call).filter(|call| call.prefetched) else { continue };
            let since = since.max(call.sent).max(post.last_answer.unwrap_or(since));
            let stuck = now.saturating_duration_since(since) > longest
                && world.books.entries[held.number].ask.sequence.is_none()
                && post.table.is(*slot, held.ticket, Phase::Offered);
            hold("what waits in a stuck worker's socket is taken back", !stuck, || {
                format!("request {} waits at worker {} for {longest:?}", held.number, worker.0)
            })?;
        }
    }
    Ok(())
}

/// Whoever waits behind a start that never ran is told at once.
pub(super) fn nobody_waits_for_a_start_that_never_ran(world: &World) -> Checked {
    let entries = &world.books.entries;
    for number in world.books.groups.iter().flat_map(|group| &group.waiting) {
        let entry = &entries[*number];
        let Some(chain) = Books::chain_of(&entry.ask).and_then(|name| world.books.chains.get(&name)) else { continue };
        let own = chain.starts.iter().rev().find(|start| entries[**start].ticket <= entry.ticket);
        let never = own.is_none_or(|start| entries[*start].standing == Standing::Over && entries[*start].runs == 0);
        hold("those behind a start that never ran are over, too", !never, || {
            format!("request {number} waits behind {own:?}")
        })?;
    }
    Ok(())
}
