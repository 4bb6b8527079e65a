//! Who goes before whom, and that nobody waits for nothing.

use std::time::Duration;

use anyserve_sched::WorkerId;

use crate::simulation::books::Entry;
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
    for other in world.books.groups[post.group].waiting.iter().copied().filter(|other| numbers().all(|n| n != *other)) {
        let entry = &world.books.entries[other];
        let stricter = entry.ask.level() < level;
        let starved = soon && entry.ask.level() == level && entry.ask.handler != frame.handler && is_long(world, entry);
        let could = (stricter || starved) && could_run(world, post, entry) && is_plain(world, entry);
        hold("a priority is never inverted", !could, || {
            let members: Vec<_> = numbers().collect();
            format!("requests {members:?} of level {level} go before {other} of level {}", entry.ask.level())
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
    let most = world.scenario.limits(entry.ask.group, entry.ask.handler).max_batch;
    let slots = usize::try_from(world.scenario.config.slots).unwrap_or(usize::MAX);
    !post.draining && post.has_place(entry.ask.handler) && post.held.len() + most <= slots
}

/// What a free worker could run at once is not in the queue.
pub(super) fn nobody_waits_beside_a_free_worker(world: &World) -> Checked {
    for (place, own) in world.books.groups.iter().enumerate() {
        if own.waiting.is_empty() || may_be_kept(world, place) {
            continue;
        }
        let posts = || world.books.posts.iter().filter(|(_, post)| post.group == place);
        for number in &own.waiting {
            let entry = &world.books.entries[*number];
            let free = posts().find(|(_, post)| post.has_room(entry.ask.handler) && could_run(world, post, entry));
            let Some((worker, _)) = free.filter(|_| is_plain(world, entry)) else { continue };
            return hold("nobody waits beside a free worker", false, || {
                format!("request {number} of handler {} could run on worker {}", entry.ask.handler, worker.0)
            });
        }
    }
    Ok(())
}

/// What was sent to wait in a socket is taken back when its worker answers nothing for a while.
pub(super) fn nothing_waits_in_a_stuck_socket(world: &World) -> Checked {
    let (now, longest) = (world.time.now(), STALL * 2 + world.scenario.lateness * 2);
    for (worker, post) in &world.books.posts {
        let Some(since) = post.waits_since.max(post.last_answer).filter(|_| post.waits_since.is_some()) else { continue };
        if now.saturating_duration_since(since) <= longest {
            continue;
        }
        for (slot, held) in &post.held {
            let prefetched = post.calls.get(&held.call).is_some_and(|call| call.prefetched);
            let stuck = prefetched
                && world.books.entries[held.number].ask.sequence.is_none()
                && post.table.is(*slot, held.ticket, Phase::Offered);
            hold("what waits in a stuck worker's socket is taken back", !stuck, || {
                format!("request {} waits at worker {} for {longest:?}", held.number, worker.0)
            })?;
        }
    }
    Ok(())
}
